"""Word alignments that people made, and how far others agree with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.data.corpus import read_lines
from nmt.errors import UserError, counted
from nmt.words import SEGMENTATIONS, split_words

Link = tuple[int, int]  # (source word, target word), both from 0

_LINK = re.compile(r"(\d{1,9})([-p?])(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Gold:
    """The links people gave a pair, from 0; the sure ones are among the possible ones."""

    sure: frozenset[Link]
    possible: frozenset[Link]

    def turned(self) -> Gold:
        """The same of the pair with its sides exchanged."""
        sure, possible = (frozenset((j, i) for i, j in links) for links in (self.sure, self.possible))
        return Gold(sure, possible)


@dataclass
class Agreement:
    """Counts of links, to which pairs are added."""

    found: int = 0
    sure: int = 0
    found_sure: int = 0
    found_possible: int = 0

    def add(self, found: Iterable[Link], gold: Gold) -> None:
        links = list(found)
        self.found += len(links)
        self.sure += len(gold.sure)
        self.found_sure += len(gold.sure.intersection(links))
        self.found_possible += len(gold.possible.intersection(links))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.found, self.sure, self.found_sure, self.found_possible

    @property
    def aer(self) -> float:
        """1 - (|A & S| + |A & P|) / (|A| + |S|) (Och and Ney 2003, eq. 31): 0 is best."""
        both = self.found + self.sure
        return 1 - (self.found_sure + self.found_possible) / both if both else 0.0

    @property
    def precision(self) -> float:
        """|A & P| / |A|."""
        return self.found_possible / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """|A & S| / |S|."""
        return self.found_sure / self.sure if self.sure else 0.0


def agreement_of(found: Iterable[Iterable[Link]], gold: Sequence[Gold]) -> Agreement:
    """Over the links of all pairs together."""
    agreement = Agreement()
    for links, right in zip(found, gold, strict=True):
        agreement.add(links, right)
    return agreement


def read_gold(path: Path, pairs: Sequence[tuple[str, str]], *, words: str, base: int = 0) -> list[Gold]:
    """A gold alignment, a line a pair: `3-4` is a sure link, `3p4` and `3?4` are possible ones.

    Args:
        pairs: the sentences it aligns, against whose words it is checked.
        words: of SEGMENTATIONS.
        base: the number of the first word.

    Raises:
        UserError: names the line of what is no link, or links words that are not there.
    """
    lines = list(read_lines(path))
    if len(lines) != len(pairs):
        raise UserError(
            f"has {counted(len(lines), 'line')} for {counted(len(pairs), 'sentence pair')}; "
            "give the alignment of this text",
            file=path,
        )
    found = [_parse(line, path, number, base) for number, line in enumerate(lines, start=1)]
    if not any(gold.possible for gold in found):
        raise UserError("has no links; give a gold alignment", file=path)
    outside = _first_outside(found, pairs, words)
    if outside is not None:
        number, (i, j), counts = outside
        raise UserError(
            f"link {i + base}-{j + base} is outside {counts[0]} source and {counts[1]} target words counted "
            f"from {base}; {_count_otherwise(found, pairs, base)}",
            file=path,
            line=number,
        )
    return found


def read_links(path: Path, *, base: int = 0) -> list[Gold]:
    """A file in Pharaoh's format, of which no text is known: as `read_gold`, but links may be anywhere.

    Raises:
        UserError: names the line of what is no link, or counts from less than `base`.
    """
    found = [_parse(line, path, number, base) for number, line in enumerate(read_lines(path), start=1)]
    for number, gold in enumerate(found, start=1):
        if any(min(link) < 0 for link in gold.possible):
            raise UserError(f"has a word 0, and words count from {base}", file=path, line=number)
    return found


def _parse(line: str, path: Path, number: int, base: int) -> Gold:
    sure, possible = set(), set()
    for text in line.split():
        match = _LINK.fullmatch(text)
        if match is None:
            raise UserError(
                f"{text[:40]!r} is no link; write 3-4 for a sure one and 3p4 for a possible one",
                file=path,
                line=number,
            )
        link = int(match[1]) - base, int(match[3]) - base
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return Gold(frozenset(sure), frozenset(possible))


def _first_outside(
    gold: Sequence[Gold], pairs: Sequence[tuple[str, str]], words: str, shift: int = 0
) -> tuple[int, Link, Link] | None:
    """The first link, with its line and that line's numbers of words, that is not between two words."""
    for number, (line, (source, target)) in enumerate(zip(gold, pairs, strict=True), start=1):
        counts = len(split_words(source, words)), len(split_words(target, words))
        for i, j in sorted(line.possible):
            if not (0 <= i + shift < counts[0] and 0 <= j + shift < counts[1]):
                return number, (i, j), counts
    return None


def _count_otherwise(gold: Sequence[Gold], pairs: Sequence[tuple[str, str]], base: int) -> str:
    """How words would have to be counted: the file is more often right than the options."""
    for words in SEGMENTATIONS:
        for other in (0, 1):
            if _first_outside(gold, pairs, words, shift=base - other) is None:
                return f"all links are inside with --words {words} --gold-base {other}"
    return "give the alignment of this text"
