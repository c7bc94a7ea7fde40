"""Reading in blocks says what reading line by line says, of good files and of bad ones."""

from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt.data.blocks import read_blocks
from nmt.data.corpus import Pairs, read_parallel
from nmt.errors import UserError

PIECES = [
    b"a",
    b"\n",
    b"\r\n",
    b"\r",
    b"\xef\xbb\xbf",
    "ä".encode(),
    b"\xe2\x80\xa8",
    b"\t",
    b"\xff",
    b" ",
    b"\x00",
]
content = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


def outcome(read: object) -> tuple[Pairs, str | None]:
    """The pairs up to the first mistake, and what it is."""
    pairs: Pairs = []
    try:
        for pair in read():  # type: ignore[operator]
            pairs.append(pair)
    except UserError as error:
        return pairs, str(error)
    return pairs, None


def in_blocks(prefix: Path, lines: int) -> Pairs:
    return [
        pair
        for block in read_blocks([str(prefix)], "en", "de", lines=lines)
        for pair in zip(*block.sides(), strict=True)
    ]


def agree(prefix: Path, lines: int) -> None:
    pairs, mistake = outcome(lambda: read_parallel(prefix, "en", "de"))
    _, same_mistake = outcome(lambda: iter(in_blocks(prefix, lines)))
    beyond = re.search(r":(\d+): byte \d+ is not valid UTF-8", mistake or "")
    if same_mistake != mistake and beyond:
        # Of lines that the other side does not have, only blocks say that and not what is in them.
        assert same_mistake is not None
        assert re.search(r": \d+ lines?, but|the file is empty", same_mistake)
        assert int(beyond[1]) > len(pairs)
        return
    assert same_mistake == mistake
    if mistake is None:
        assert in_blocks(prefix, lines) == pairs


@settings(deadline=None, max_examples=300)
@given(source=content, target=content, lines=st.integers(1, 4), packed=st.booleans())
@example(b"\xef\xbb\xbf", b"a\n", 2, False)
@example(b"a\nb\nc\n\xff\n", b"a\nb\n", 2, False)
@example(b"a\n\xff\n", b"\xff\nb\n", 2, False)
def test_two_files(source: bytes, target: bytes, lines: int, packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "t"
        Path(f"{prefix}.en").write_bytes(source)
        Path(f"{prefix}.de{'.gz' if packed else ''}").write_bytes(gzip.compress(target) if packed else target)
        agree(prefix, lines)


@settings(deadline=None, max_examples=200)
@given(text=content, lines=st.integers(1, 4))
@example(b"a\tb\nc\td\te\n", 4)
def test_one_tsv(text: bytes, lines: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "t.tsv"
        prefix.write_bytes(text)
        agree(prefix, lines)


def test_damaged_gzip_names_the_line(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b"%d some text\n" % i for i in range(5000)), mtime=0)
    (tmp_path / "t.en.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "t.de").write_bytes(b"x\n" * 5000)
    _, mistake = outcome(lambda: read_parallel(tmp_path / "t", "en", "de"))
    _, same = outcome(lambda: iter(in_blocks(tmp_path / "t", 100)))
    assert mistake is not None
    assert "damaged after line" in mistake
    assert same == mistake


def test_blocks_follow_and_can_be_skipped(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 3)):
        for suffix in ("en", "de"):
            (tmp_path / f"{name}.{suffix}").write_text("".join(f"{name}{i}\n" for i in range(count)))
    prefixes = [str(tmp_path / "a"), str(tmp_path / "b")]
    blocks = list(read_blocks(prefixes, "en", "de", lines=2))
    assert [(b.corpus, b.first, b.count) for b in blocks] == [
        (0, 1, 2),
        (0, 3, 2),
        (0, 5, 1),
        (1, 1, 2),
        (1, 3, 1),
    ]
    assert list(read_blocks(prefixes, "en", "de", lines=2, skip=3)) == blocks[3:]


def test_a_missing_corpus_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither t\.en"):
        list(read_blocks([str(tmp_path / "t")], "en", "de"))
