"""Two alignments of a sentence pair, one from each direction, made into one.

Och and Ney 2003, "A systematic comparison of various statistical alignment models", sec. 4: intersection,
union, and growing from the first towards the second. Koehn, Och and Marcu 2003, "Statistical phrase-based
translation", sec. 3.1: growing by diagonal neighbours too, and the final step; with "and" that step links
only words of which neither has a link.

Where the papers leave the order open, it is that of Moses' symal: links grow in the order of the target, then
of the source, those found on the way in their turn; the final step takes the links of the first direction,
then of the second. Links are (source word, target word).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable

Link = tuple[int, int]
Links = set[Link]
# Straight neighbours, then diagonal ones, in the order in which they are looked at.
_NEIGHBOURS = ((0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))


def intersection(forward: Iterable[Link], backward: Iterable[Link]) -> Links:
    return set(forward) & set(backward)


def union(forward: Iterable[Link], backward: Iterable[Link]) -> Links:
    return set(forward) | set(backward)


def grow_diag(forward: Iterable[Link], backward: Iterable[Link]) -> Links:
    """The intersection, and links of the union next to it that link a word which has none yet, again and
    again until there are no more."""
    forward, backward = set(forward), set(backward)
    both, found = forward | backward, forward & backward
    words = _Linked(found)
    order = sorted((j, i) for i, j in found)
    grew = True
    while grew:
        grew = False
        place = 0
        while place < len(order):
            j, i = order[place]
            for di, dj in _NEIGHBOURS:
                link = i + di, j + dj
                if link in both and link not in found and words.either_free(link):
                    found.add(link)
                    words.add(link)
                    bisect.insort(order, (link[1], link[0]))
                    grew = True
            place = bisect.bisect_right(order, (j, i))
    return found


def grow_diag_final(forward: Iterable[Link], backward: Iterable[Link]) -> Links:
    """`grow_diag`, then every link of either direction that links a word which has none."""
    forward, backward = set(forward), set(backward)
    return _final(grow_diag(forward, backward), forward, backward, _Linked.either_free)


def grow_diag_final_and(forward: Iterable[Link], backward: Iterable[Link]) -> Links:
    """`grow_diag`, then every link of either direction that links two words of which neither has one."""
    forward, backward = set(forward), set(backward)
    return _final(grow_diag(forward, backward), forward, backward, _Linked.both_free)


METHODS: dict[str, Callable[[Iterable[Link], Iterable[Link]], Links]] = {
    "intersection": intersection,
    "union": union,
    "grow-diag": grow_diag,
    "grow-diag-final": grow_diag_final,
    "grow-diag-final-and": grow_diag_final_and,
}
DEFAULT = "grow-diag-final-and"


class _Linked:
    """The words that have a link."""

    def __init__(self, links: Iterable[Link]):
        self.sources: set[int] = set()
        self.targets: set[int] = set()
        for link in links:
            self.add(link)

    def add(self, link: Link) -> None:
        self.sources.add(link[0])
        self.targets.add(link[1])

    def either_free(self, link: Link) -> bool:
        return link[0] not in self.sources or link[1] not in self.targets

    def both_free(self, link: Link) -> bool:
        return link[0] not in self.sources and link[1] not in self.targets


def _final(found: Links, forward: Links, backward: Links, wanted: Callable[[_Linked, Link], bool]) -> Links:
    words = _Linked(found)
    for direction in (forward, backward):
        for link in sorted(direction - found, key=lambda link: (link[1], link[0])):
            if wanted(words, link):
                found.add(link)
                words.add(link)
    return found
