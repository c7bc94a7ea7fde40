"""Symmetrisation: worked by hand, against a second implementation on matrices, and what must always hold."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.symmetrize import METHODS

Links = set[tuple[int, int]]

SIZE = 6
link = st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1))
any_links = st.sets(link, max_size=14)
# As models give them: a source word for each target word, a target word for each source word.
forward_links = st.lists(st.integers(-1, SIZE - 1), min_size=SIZE, max_size=SIZE).map(
    lambda row: {(i, j) for j, i in enumerate(row) if i >= 0}
)
backward_links = st.lists(st.integers(-1, SIZE - 1), min_size=SIZE, max_size=SIZE).map(
    lambda row: {(i, j) for i, j in enumerate(row) if j >= 0}
)
directions = st.one_of(st.tuples(any_links, any_links), st.tuples(forward_links, backward_links))


def symal(forward: Links, backward: Links, *, final: bool, both: bool) -> Links:
    """What Moses' symal computes, over matrices whose rows are target and whose columns source words."""
    union, found = np.zeros((2, SIZE, SIZE), dtype=bool)
    for i, j in forward | backward:
        union[j, i] = True
    for i, j in forward & backward:
        found[j, i] = True
    added = True
    while added:
        added = False
        for j in range(SIZE):
            for i in range(SIZE):
                if not found[j, i]:
                    continue
                for dj, di in ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
                    y, x = j + dj, i + di
                    if not (0 <= y < SIZE and 0 <= x < SIZE) or not union[y, x]:
                        continue
                    if not (found[y].any() and found[:, x].any()):
                        found[y, x] = added = True
    if final:
        for direction in (forward, backward):
            for j, i in sorted((j, i) for i, j in direction):
                row, column = found[j].any(), found[:, i].any()
                if not (row or column) if both else not (row and column):
                    found[j, i] = True
    return {(int(i), int(j)) for j, i in np.argwhere(found)}


@settings(max_examples=400)
@given(directions)
def test_against_matrices(drawn: tuple[Links, Links]) -> None:
    forward, backward = drawn
    found = {name: method(forward, backward) for name, method in METHODS.items()}
    assert found["intersection"] == {link for link in forward if link in backward}
    assert found["union"] == {*forward, *backward}
    assert found["grow-diag"] == symal(forward, backward, final=False, both=False)
    assert found["grow-diag-final"] == symal(forward, backward, final=True, both=False)
    assert found["grow-diag-final-and"] == symal(forward, backward, final=True, both=True)


@settings(max_examples=200)
@given(directions)
def test_what_always_holds(drawn: tuple[Links, Links]) -> None:
    forward, backward = drawn
    found = {name: method(forward, backward) for name, method in METHODS.items()}
    chain = ["intersection", "grow-diag", "grow-diag-final-and", "union"]
    assert all(found[less] <= found[more] for less, more in pairwise(chain))
    assert found["grow-diag"] <= found["grow-diag-final"] <= found["union"]
    for method in METHODS.values():
        assert method(forward, forward) == forward
        assert method(set(), set()) == set()
        assert method(sorted(forward), iter(backward)) == method(forward, backward)  # any iterables
    # The final step leaves no word alone that some link would join.
    for name, free in (("grow-diag-final", any), ("grow-diag-final-and", all)):
        sources, targets = ({link[side] for link in found[name]} for side in (0, 1))
        left = [(i, j) for i, j in found["union"] - found[name] if free([i not in sources, j not in targets])]
        assert left == []
    # Growing has stopped: no neighbour of a link joins a word that has none.
    grown = found["grow-diag"]
    sources, targets = ({link[side] for link in grown} for side in (0, 1))
    for i, j in found["union"] - grown:
        if i not in sources or j not in targets:
            assert not any(max(abs(i - x), abs(j - y)) == 1 for x, y in grown)
    # What was added to the intersection added a word each time.
    before = found["intersection"]
    words = len({i for i, _ in before}) + len({j for _, j in before})
    assert len(grown - before) <= len(sources) + len(targets) - words


def drawing(*rows: str) -> tuple[Links, Links]:
    """A row for each source word: x in both directions, f forward only, b backward only."""
    cells = [(i, j, mark) for i, row in enumerate(rows) for j, mark in enumerate(row)]
    forward, backward = ({(i, j) for i, j, mark in cells if mark in marks} for marks in ("xf", "xb"))
    return forward, backward


@pytest.mark.parametrize(
    ("rows", "added"),
    [
        # A diagonal neighbour joins two words that have no link.
        (("x..", ".f.", "..."), {"grow-diag": [(1, 1)], "final": [], "final-and": []}),
        # A straight neighbour joins one; then its own neighbour grows in turn.
        (("xf.", "..b"), {"grow-diag": [(0, 1), (1, 2)], "final": [], "final-and": []}),
        # A neighbour of words that both have links stays out, to the end.
        (("xf", ".x"), {"grow-diag": [], "final": [], "final-and": []}),
        # No neighbour: with two words free both final steps take it.
        (("x..", "...", "..b"), {"grow-diag": [], "final": [(2, 2)], "final-and": [(2, 2)]}),
        # No neighbour, one word free: final takes it, final-and does not.
        (("x.f", "..."), {"grow-diag": [], "final": [(0, 2)], "final-and": []}),
        # Of two forward links to free words the one of the earlier target word is first.
        (("x....", ".....", "..f.f"), {"grow-diag": [], "final": [(2, 2), (2, 4)], "final-and": [(2, 2)]}),
        # Forward links are taken before backward ones, whatever their place.
        (("x....", ".....", "..b.f"), {"grow-diag": [], "final": [(2, 2), (2, 4)], "final-and": [(2, 4)]}),
    ],
)
def test_worked_by_hand(rows: tuple[str, ...], added: dict[str, Any]) -> None:
    forward, backward = drawing(*rows)
    grown = (forward & backward) | set(added["grow-diag"])
    assert METHODS["grow-diag"](forward, backward) == grown
    assert METHODS["grow-diag-final"](forward, backward) == grown | set(added["final"])
    assert METHODS["grow-diag-final-and"](forward, backward) == grown | set(added["final-and"])


def test_growing_takes_words_far_away() -> None:
    """Word numbers are not bound to a matrix."""
    forward = {(i, i) for i in range(0, 2000, 2)} | {(i, i) for i in range(1, 2000, 2)}
    backward = {(i, i) for i in range(0, 2000, 2)}
    assert METHODS["grow-diag"](forward, backward) == forward
