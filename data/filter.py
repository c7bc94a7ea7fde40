"""What preparation drops from a training text, and why.

The doctor (`nmt.data.check`) uses the same rules, so what it announces is what happens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path


@dataclass(frozen=True)
class Filter:
    """What preparation drops.

    Blank lines are always dropped. Words are what blanks part; for scripts without blanks
    `max_characters` is the limit that bites. The length ratio is of characters, longer over shorter,
    since word counts say nothing between, say, Chinese and English.
    """

    max_words: int = 250
    max_characters: int = 5000
    max_ratio: float = 9.0
    drop_copies: bool = False
    drop_duplicates: bool = False
    drop_overlap: bool = False


@dataclass(frozen=True)
class DropRow:
    """How many pairs one rule drops; `share` is of all pairs seen."""

    reason: str
    count: int
    share: float
    places: tuple[str, ...]


def reason_to_drop(source: str, target: str, rules: Filter) -> str | None:
    """Why preparation drops this pair, looking at nothing but the pair, or None to keep it.

    Returns:
        "blank source", "blank target", "too long", "length ratio" or "copy", the first that holds.
    """
    source, target = source.strip(), target.strip()
    if not source:
        return "blank source"
    if not target:
        return "blank target"
    if too_long(source, rules) or too_long(target, rules):
        return "too long"
    if length_ratio(source, target) > rules.max_ratio:
        return "length ratio"
    if rules.drop_copies and source == target:
        return "copy"
    return None


class HeldOut:
    """The source lines of validation and test sets, to find them again in the training text.

    Blanks at the ends of a line do not count. Lines are kept as text: looked up, that is faster than hashes,
    and these sets are small.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._places: list[str] = []  # by number
        self._sets: list[tuple[str, int, list[int]]] = []  # name, lines, the numbers of those with text

    def add(self, name: str | Path, pairs: Iterable[tuple[str, str]]) -> HeldOut:
        """Take in the pairs of one set; `name` is what places are called after. Returns itself."""
        line, numbers = 0, []
        for line, (source, _) in enumerate(pairs, start=1):
            if text := source.strip():
                number = self._numbers.setdefault(text, len(self._places))
                numbers.append(number)
                if number == len(self._places):
                    self._places.append(f"{name}:{line}")
        self._sets.append((str(name), line, numbers))
        return self

    def number(self, source: str) -> int | None:
        """By what this source line is known, if it is one of them."""
        return self._numbers.get(source.strip())

    def find(self, source: str) -> str | None:
        """Where this source line stands, as ``name:line``."""
        number = self.number(source)
        return None if number is None else self._places[number]

    def counts(self, numbers: Iterable[int]) -> list[tuple[str, int, int]]:
        """Of each set its name, how many of its lines have one of these numbers, and its lines."""
        wanted = set(numbers)
        return [(name, sum(n in wanted for n in mine), lines) for name, lines, mine in self._sets]


class Dropper:
    """Decides pair by pair what is dropped, and keeps count.

    Duplicates are known by 8-byte hashes in a flat table, 16 to 32 bytes a pair; among ten million
    pairs the odds that two different ones share a hash are three in a million.
    """

    REASONS = ("blank source", "blank target", "too long", "length ratio", "copy", "overlap", "duplicate")

    def __init__(self, rules: Filter, held_out: HeldOut | None = None, *, most_places: int = 5):
        self.rules = rules
        self.seen = 0
        self.kept = 0
        self._held_out = held_out or HeldOut()
        self._pairs = HashSet()
        self._dropped = Counter[str]()
        self._places: dict[str, list[str]] = {reason: [] for reason in self.REASONS}
        self._most_places = most_places

    def reason(self, source: str, target: str, *, file: str | Path = "", line: int = 0) -> str | None:
        """Why this pair is dropped, or None to keep it; `file` and `line` are noted for the table.

        Returns:
            As `reason_to_drop`, or "overlap" or "duplicate".
        """
        self.seen += 1
        reason = reason_to_drop(source, target, self.rules)
        if reason is None and self.rules.drop_overlap and self._held_out.find(source):
            reason = "overlap"
        if reason is None and self.rules.drop_duplicates and not self._pairs.add(pair_hash(source, target)):
            reason = "duplicate"
        if reason is None:
            self.kept += 1
        else:
            self._dropped[reason] += 1
            if len(self._places[reason]) < self._most_places:
                self._places[reason].append(f"{file}:{line}" if line else str(file))
        return reason

    def drop_table(self) -> tuple[DropRow, ...]:
        """One row for each reason for which pairs were dropped so far."""
        return tuple(
            DropRow(reason, count, count / self.seen, tuple(self._places[reason]))
            for reason in self.REASONS
            if (count := self._dropped[reason])
        )


class HashSet:
    """A set of 64-bit numbers: open addressing in a flat array, for a fraction of the memory of `set`."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, number: int) -> bool:
        """Take a number in; whether it is new."""
        if 2 * self._count >= len(self._slots):
            held, self._slots, self._count = self._slots, array("Q", bytes(16 * len(self._slots))), 0
            for slot in held:
                if slot:
                    self._insert(slot)
        return self._insert(number or 1)

    def _insert(self, number: int) -> bool:
        slots, mask = self._slots, len(self._slots) - 1
        place = number & mask
        while slots[place]:
            if slots[place] == number:
                return False
            place = (place + 1) & mask
        slots[place] = number
        self._count += 1
        return True


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def pair_hash(source: str, target: str) -> int:
    """What a pair is known by among duplicates; blanks at the ends do not count."""
    return _hash(f"{source.strip()}\n{target.strip()}")


def too_long(text: str, rules: Filter) -> bool:
    """Whether one side, stripped, has too many words or characters."""
    if len(text) > rules.max_characters:
        return True
    # So many words need at least as many blanks between them.
    return len(text) > 2 * rules.max_words and len(text.split()) > rules.max_words


def length_ratio(source: str, target: str) -> float:
    """Characters of the longer over those of the shorter; neither may be empty."""
    return max(len(source), len(target)) / min(len(source), len(target))
