"""The alignment of a whole text: from one model or two, by a view that is given or found to be the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from nmt.alignment import Aligner, Links, View, in_order, pharaoh
from nmt.gold import Agreement, Gold, agreement_of
from nmt.symmetrize import METHODS

# Pairs encoded together.
CHUNK_PAIRS = 2000


@dataclass(frozen=True)
class Seen:
    """A text's links as seen from several views."""

    views: list[View]
    links: list[list[Links]]  # by view, by pair
    too_long: list[int]  # pairs left without links, from 0


@dataclass(frozen=True)
class Alignment:
    """A text's links, as seen from one view, and how they agree with the gold."""

    view: View
    links: list[Links]  # one a pair
    too_long: list[int]  # pairs left without links, from 0
    agreement: Agreement | None
    ranking: list[tuple[View, Agreement]]  # of all views with the gold, best first; empty without gold

    @property
    def lines(self) -> list[str]:
        """In Pharaoh's format, one a pair."""
        return [pharaoh(found) for found in self.links]


def look(
    aligner: Aligner,
    pairs: Sequence[tuple[str, str]],
    views: Sequence[View],
    tell: Callable[[int], None] = lambda _: None,
) -> Seen:
    """Align a text from each view.

    Args:
        tell: called now and then with the number of pairs done.
    """
    found: list[list[Links]] = [[] for _ in views]
    too_long = []
    for start in range(0, len(pairs), CHUNK_PAIRS):
        for number, seen in enumerate(aligner.align(pairs[start : start + CHUNK_PAIRS], views), start=start):
            if seen is None:
                too_long.append(number)
            for of_view, links in zip(found, seen or [[]] * len(views), strict=True):
                of_view.append(links)
        tell(len(found[0]))
    return Seen(list(views), found, too_long)


def choose(seen: Seen, gold: Sequence[Gold] | None) -> Alignment:
    """From the view that agrees best with the gold; without gold, from the first."""
    if gold is None:
        return Alignment(seen.views[0], seen.links[0], seen.too_long, None, [])
    agreements = [agreement_of(links, gold) for links in seen.links]
    order = sorted(range(len(seen.views)), key=lambda place: agreements[place].aer)
    best = order[0]
    ranking = [(seen.views[place], agreements[place]) for place in order]
    return Alignment(seen.views[best], seen.links[best], seen.too_long, agreements[best], ranking)


def choose_by_agreement(forward: Seen, backward: Seen) -> tuple[Alignment, Alignment, float]:
    """The views from which two directions of a text agree most, where there is no gold to choose by.

    Those with the most links in common: a head that links little, and that surely, agrees with its like but
    aligns nothing. Give a text of some hundred lines or more, on which heads do not agree by chance. A pair
    that is too long for either counts for neither.

    Args:
        backward: links are (target word, source word).

    Returns:
        Of each direction the alignment, and F1 of their links, 2 |A & B| / (|A| + |B|).
    """
    places = [range(len(seen.views)) for seen in (forward, backward)]
    kept = [n for n in range(len(forward.links[0])) if n not in {*forward.too_long, *backward.too_long}]
    ours = {place: {(n, *link) for n in kept for link in forward.links[place][n]} for place in places[0]}
    theirs = {place: {(n, i, j) for n in kept for j, i in backward.links[place][n]} for place in places[1]}

    best = max(product(*places), key=lambda pair: len(ours[pair[0]] & theirs[pair[1]]))
    a, b = ours[best[0]], theirs[best[1]]
    agreement = 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0
    chosen = [
        Alignment(seen.views[place], seen.links[place], seen.too_long, None, [])
        for seen, place in zip((forward, backward), best, strict=True)
    ]
    return chosen[0], chosen[1], agreement


@dataclass(frozen=True)
class Symmetric:
    """A text's links from both directions, each from its view, made into one."""

    forward: Alignment
    backward: Alignment  # its links turned round: (source word, target word)
    links: list[Links]
    too_long: list[int]  # for either model
    agreement: Agreement | None
    by_method: dict[str, Agreement]  # what each way to symmetrise would give; empty without gold


def symmetric(forward: Alignment, backward: Alignment, method: str, gold: Sequence[Gold] | None) -> Symmetric:
    """Two directions of one text as one. A pair too long for either model has no links.

    Args:
        backward: of the model that translates back, as it gave it: links are (target word, source word).
        method: of `nmt.symmetrize.METHODS`.
    """
    turned = [[(i, j) for j, i in found] for found in backward.links]
    too_long = sorted({*forward.too_long, *backward.too_long})
    left_out = set(too_long)
    both = [
        ([], []) if number in left_out else sides
        for number, sides in enumerate(zip(forward.links, turned, strict=True))
    ]
    by_method = {}
    if gold is not None:
        by_method = {
            name: agreement_of((combine(*sides) for sides in both), gold) for name, combine in METHODS.items()
        }
    return Symmetric(
        forward,
        replace(backward, links=turned),
        [in_order(METHODS[method](*sides)) for sides in both],
        too_long,
        by_method.get(method),
        by_method,
    )
