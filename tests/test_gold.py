"""Gold alignments are read and checked; the error rate is that of the definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import UserError
from nmt.gold import Agreement, Gold, agreement_of, read_gold, read_links

some_links = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)))


@settings(max_examples=200)
@given(st.lists(st.tuples(some_links, some_links, some_links), min_size=1, max_size=4))
def test_alignment_error_rate(drawn: list[tuple[set[Any], set[Any], set[Any]]]) -> None:
    """Against the definitions, over the links of all lines together."""
    agreement = Agreement()
    for found, sure, possible in drawn:
        agreement.add(sorted(found), Gold(frozenset(sure), frozenset(sure | possible)))
    a = {(n, link) for n, (found, _, _) in enumerate(drawn) for link in found}
    s = {(n, link) for n, (_, sure, _) in enumerate(drawn) for link in sure}
    p = s | {(n, link) for n, (_, _, possible) in enumerate(drawn) for link in possible}
    if a or s:
        assert agreement.aer == pytest.approx(1 - (len(a & s) + len(a & p)) / (len(a) + len(s)))
    if a:
        assert agreement.precision == pytest.approx(len(a & p) / len(a))
    if s:
        assert agreement.recall == pytest.approx(len(a & s) / len(s))
    if a and s and p == s:  # with sure links only: one minus F1
        both = agreement.precision + agreement.recall
        assert agreement.aer == pytest.approx(
            1 - 2 * agreement.precision * agreement.recall / both if both else 1
        )


def test_reading_gold(tmp_path: Path) -> None:
    pairs = [("a b c", "x y"), ("", ""), ("d", "z z z")]
    (tmp_path / "gold").write_text("0-0 2-1 1p1\n\n0?2  0-1 0p1\r\n")
    gold = read_gold(tmp_path / "gold", pairs, words="blank")
    assert [sorted(line.sure) for line in gold] == [[(0, 0), (2, 1)], [], [(0, 1)]]
    assert [sorted(line.possible) for line in gold] == [[(0, 0), (1, 1), (2, 1)], [], [(0, 1), (0, 2)]]
    (tmp_path / "gold").write_text("1-1 3-2 2p2\n\n1?3 1-2\n")
    assert read_gold(tmp_path / "gold", pairs, words="blank", base=1) == gold


@pytest.mark.parametrize(
    ("text", "base", "message"),
    [
        ("0-0\n0:0\n", 0, "gold:2: '0:0' is no link; write 3-4 for a sure one and 3p4"),
        ("0-0\n-1-0\n", 0, "gold:2: '-1-0' is no link"),
        ("0-0\n1-\n", 0, "gold:2: '1-' is no link"),
        (f"0-0\n{'9' * 5000}-0\n", 0, "gold:2: '9999999999999999999999999999999999999999' is no link"),
        ("0-0\n999999999-0\n", 0, "gold:2: link 999999999-0 is outside"),
        ("0-0\n٣-0\n", 0, "gold:2: '٣-0' is no link"),
        ("0-0\n", 0, "gold: has 1 line for 2 sentence pairs"),
        ("0-0\n\n\n", 0, "gold: has 3 lines for 2 sentence pairs"),
        ("\n\n", 0, "gold: has no links"),
        (
            "0-0\n1-1\n",
            1,
            "gold:1: link 0-0 is outside 2 source and 2 target words counted from 1; all links",
        ),
        ("1-1\n2-2\n", 0, "counted from 0; all links are inside with --words blank --gold-base 1"),
        ("0-0\n2-2 3-3\n", 0, "gold:2: link 2-2 is outside 2 source and 2 target words counted from 0;"),
        ("0-0\n2-2 3-3\n", 0, "all links are inside with --words punctuation --gold-base 0"),
        ("1-1\n4-4\n", 0, "all links are inside with --words punctuation --gold-base 1"),
        ("9-9\n0-0\n", 0, "2 target words counted from 0; give the alignment of this text"),
    ],
)
def test_wrong_gold(tmp_path: Path, text: str, base: int, message: str) -> None:
    (tmp_path / "gold").write_text(text)
    with pytest.raises(UserError) as caught:
        read_gold(tmp_path / "gold", [("a b", "x y"), ("a, b!", "x, y!")], words="blank", base=base)
    assert message in str(caught.value)


def test_links_without_text(tmp_path: Path) -> None:
    (tmp_path / "links").write_text("0-0 900-1 1p1\n\n0?2\n")
    found = read_links(tmp_path / "links")
    assert [sorted(line.possible) for line in found] == [[(0, 0), (1, 1), (900, 1)], [], [(0, 2)]]
    with pytest.raises(UserError, match="links:1: has a word 0, and words count from 1"):
        read_links(tmp_path / "links", base=1)
    (tmp_path / "links").write_text("0-0\n0:1\n")
    with pytest.raises(UserError, match="links:2: '0:1' is no link"):
        read_links(tmp_path / "links")


def test_turned_round() -> None:
    gold = Gold(frozenset({(0, 1)}), frozenset({(0, 1), (2, 3)}))
    assert gold.turned() == Gold(frozenset({(1, 0)}), frozenset({(1, 0), (3, 2)}))
    assert gold.turned().turned() == gold


def test_agreement_over_all_pairs() -> None:
    """3 links, 2 sure ones: AER = 1 - (1 + 2) / (3 + 2)."""
    gold = [
        Gold(frozenset({(0, 0)}), frozenset({(0, 0), (1, 1)})),
        Gold(frozenset({(0, 1)}), frozenset({(0, 1)})),
    ]
    found = agreement_of([[(0, 0), (1, 1)], [(5, 5)]], gold)
    assert found.aer == pytest.approx(1 - 3 / 5)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), 0.5)
