"""What a training text is like: size, lengths, scripts, and what preparation would drop."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from nmt.data.filter import Dropper, DropRow, Filter, HashSet, pair_hash

Pairs = Sequence[tuple[str, str]]

SAMPLE = 2000  # lines looked at for scripts and lengths
DROPPED, DUPLICATE, COPY = 1, 2, 4
# Scripts written without blanks between words, by the first word of their characters' Unicode names.
UNSPACED = frozenset(("Han", "Kana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"))
_SCRIPTS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana"}


@dataclass(frozen=True)
class Side:
    """One language of a corpus, judged by a sample."""

    scripts: tuple[str, ...]  # those of a fifth of the letters or more, the most frequent first
    words: float  # between blanks, a line
    characters: float  # a line

    @property
    def spaced(self) -> bool:
        """Whether blanks part the words."""
        if not UNSPACED.intersection(self.scripts):
            return True
        # Text of such a script may have been segmented into words.
        return self.words >= 2 and self.characters / self.words <= 6


@dataclass(frozen=True)
class Profile:
    """What a training text is like."""

    kept: Pairs = field(repr=False)  # what preparation will keep under the advised rules
    pairs: int
    dropped: tuple[DropRow, ...]  # by the default rules
    duplicates: int
    drop_duplicates: bool
    copies: int
    drop_copies: bool
    source: Side
    target: Side

    @property
    def same_script(self) -> bool:
        return bool(set(self.source.scripts) & set(self.target.scripts))


def look(pairs: Pairs) -> Profile:
    """Measure a training text."""
    dropper, known = Dropper(Filter()), HashSet()
    marks = bytearray(len(pairs))
    for index, (source, target) in enumerate(pairs):
        if dropper.reason(source, target) is not None:
            marks[index] = DROPPED
        else:
            duplicate = DUPLICATE * (not known.add(pair_hash(source, target)))
            marks[index] = duplicate | COPY * (source.strip() == target.strip())
    duplicates = sum(bool(mark & DUPLICATE) for mark in marks)
    copies = sum(bool(mark & COPY) for mark in marks)
    # Above these shares they cost more than a look at the data; where half is copied, copying is the task.
    drop_duplicates = duplicates > 0.02 * dropper.kept
    drop_copies = 0.01 * dropper.kept < copies < 0.5 * dropper.kept
    unwanted = DROPPED | DUPLICATE * drop_duplicates | COPY * drop_copies
    kept = [pair for pair, mark in zip(pairs, marks, strict=True) if not mark & unwanted]
    sample = spread(kept, SAMPLE)
    return Profile(
        kept,
        len(pairs),
        dropper.drop_table(),
        duplicates,
        drop_duplicates,
        copies,
        drop_copies,
        _side([source for source, _ in sample]),
        _side([target for _, target in sample]),
    )


def spread(pairs: Pairs, count: int) -> Pairs:
    """At most `count` pairs, evenly spaced."""
    if len(pairs) <= count:
        return pairs
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _side(lines: Sequence[str]) -> Side:
    letters = Counter(_script(c) for line in lines for c in line if c.isalpha())
    count = max(1, len(lines))
    scripts = tuple(name for name, n in letters.most_common() if n >= 0.2 * letters.total())
    return Side(
        scripts or ("no letters",),
        sum(len(line.split()) for line in lines) / count,
        sum(map(len, lines)) / count,
    )


@lru_cache(maxsize=100_000)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "unknown").split(" ")[0].split("-")[0]
    return _SCRIPTS.get(first, first.capitalize())
