"""The first pass of preparation: a verdict on every pair of the corpora, one byte each.

Several processes judge blocks of lines; what needs to know all pairs, finding those that come again, is
done at the end from hashes on the disk. Memory stays flat however long the corpora are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.data.blocks import Block, read_blocks
from nmt.data.filter import Dropper, DropRow, Filter, HeldOut, pair_hash, reason_to_drop
from nmt.data.links import parse_links
from nmt.data.pool import Pool
from nmt.data.unfinished import Growing

MOST_PLACES = 5  # lines named for each reason to drop
KEPT = 0
CODES = {reason: code for code, reason in enumerate(Dropper.REASONS, start=1)}
_VERDICTS, _HASHES, _OVERLAP = "verdicts", "hashes", "overlap"
_SORTED = 1 << 21  # hashes sorted at a time, about
_CHUNK = 1 << 20


class Scanner:
    """The task of a worker: verdicts on the pairs of a block; of those it would keep hashes, and which
    held-out lines they have."""

    def __init__(self, rules: Filter, held_out: HeldOut, link_words: str = "blank"):
        """`link_words`: what ends a word in links, which are checked where a block has some."""
        self._rules = rules
        self._held_out = held_out
        self._link_words = link_words

    def __call__(self, block: Block) -> tuple[int, bytes, bytes, bytes]:
        """The corpus, a byte a pair, 8 bytes a pair that no rule drops if duplicates are to be found, and 4
        bytes a held-out line that is the source of such a pair."""
        rules = self._rules
        verdicts = bytearray()
        hashes = []
        overlap = set()
        sides = block.sides()
        if block.links is not None:
            for number, (line, *pair) in enumerate(zip(block.link_lines(), *sides, strict=True), block.first):
                parse_links(line, *pair, words=self._link_words, file=block.links_file, number=number)
        for source, target in zip(*sides, strict=True):
            reason = reason_to_drop(source, target, rules)
            if reason is None and (known := self._held_out.number(source)) is not None:
                if rules.drop_overlap:
                    reason = "overlap"
                else:
                    overlap.add(known)
            verdicts.append(KEPT if reason is None else CODES[reason])
            if reason is None and rules.drop_duplicates:
                hashes.append(pair_hash(source, target))
        return (
            block.corpus,
            bytes(verdicts),
            np.array(hashes, dtype=np.uint64).tobytes(),
            np.array(sorted(overlap), dtype=np.uint32).tobytes(),
        )


@dataclass(frozen=True)
class Scan:
    """What the first pass found. Pairs are counted from 0 through all corpora."""

    folder: Path
    names: tuple[str, ...]  # of the corpora
    lines: tuple[int, ...]  # of each

    def verdicts(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """Of pairs in a row: `KEPT`, or one of `CODES`."""
        return np.fromfile(self.folder / _VERDICTS, dtype=np.uint8, count=count, offset=first)

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """All verdicts a million at a time, and the first pair of each time."""
        for first in range(0, sum(self.lines), _CHUNK):
            yield first, self.verdicts(first, _CHUNK)

    @property
    def kept(self) -> int:
        return sum(int((verdicts == KEPT).sum()) for _, verdicts in self.chunks())

    @property
    def overlap(self) -> list[int]:
        """Numbers of the held-out lines (`HeldOut.number`) that are the source of a pair that is kept."""
        found: set[int] = set()
        with (self.folder / _OVERLAP).open("rb") as file:
            while chunk := file.read(4 * _CHUNK):
                found.update(np.unique(np.frombuffer(chunk, dtype=np.uint32)).tolist())
        return sorted(found)

    def place(self, pair: int) -> str:
        """``corpus:line`` of a pair."""
        for name, count in zip(self.names, self.lines, strict=True):
            if pair < count:
                return f"{name}:{pair + 1}"
            pair -= count
        raise IndexError(pair)

    def drop_table(self) -> list[DropRow]:
        """One row for each reason for which pairs are dropped."""
        counts = np.zeros(256, dtype=np.int64)
        places: dict[int, list[str]] = {code: [] for code in CODES.values()}
        for first, verdicts in self.chunks():
            counts += np.bincount(verdicts, minlength=256)
            for code, found in places.items():
                if counts[code] and len(found) < MOST_PLACES:
                    pairs = np.flatnonzero(verdicts == code)[: MOST_PLACES - len(found)]
                    found += [self.place(first + int(pair)) for pair in pairs]
        lines = sum(self.lines)
        return [
            DropRow(reason, int(counts[code]), int(counts[code]) / lines, tuple(places[code]))
            for reason, code in CODES.items()
            if counts[code]
        ]


def scan(
    prefixes: Sequence[str],
    languages: tuple[str, str],
    scanner: Scanner,
    folder: Path,
    *,
    workers: int,
    links: Sequence[Path | None] = (),
) -> Scan:
    """Judge all pairs; goes on where a scan into the same folder was killed.

    Args:
        links: as `read_blocks` takes them.

    Raises:
        UserError: as `nmt.data.corpus.read_parallel`; word links are not those of the text.
    """
    with Growing(folder, "scan", [_VERDICTS, _HASHES, _OVERLAP]) as growing:
        state: dict[str, Any] = growing.state or {"blocks": 0, "lines": [0] * len(prefixes), "done": False}
        if not state["done"]:
            blocks = read_blocks(prefixes, *languages, skip=state["blocks"], links=links)
            with Pool(scanner, workers) as pool:
                for corpus, verdicts, hashes, overlap in pool.map(blocks):
                    growing.write(_VERDICTS, verdicts)
                    growing.write(_HASHES, hashes)
                    growing.write(_OVERLAP, overlap)
                    state["blocks"] += 1
                    state["lines"][corpus] += len(verdicts)
                    growing.done(state)
            growing.done({**state, "done": True}, last=True)
    found = Scan(folder, tuple(Path(prefix).name for prefix in prefixes), tuple(state["lines"]))
    _drop_repeated(found)
    return found


def _drop_repeated(scan: Scan) -> None:
    """Change the verdict on pairs whose hash came before. Done twice it changes nothing.

    Hashes have 64 bits: among twenty million pairs the odds that two different ones share one are one in
    a hundred thousand.
    """
    hashes = scan.folder / _HASHES
    count = hashes.stat().st_size // 8
    if not count:
        return
    repeated = np.zeros(count, dtype=bool)
    buckets = -(-count // _SORTED)
    for bucket in range(buckets):
        places, values = [], []
        for first in range(0, count, _CHUNK):
            chunk = np.fromfile(hashes, dtype=np.uint64, count=_CHUNK, offset=8 * first)
            inside = np.flatnonzero(chunk % np.uint64(buckets) == bucket)
            places.append(first + inside)
            values.append(chunk[inside])
        place, value = np.concatenate(places), np.concatenate(values)
        order = np.argsort(value, kind="stable")
        value = value[order]
        repeated[place[order[1:]]] = value[1:] == value[:-1]
    duplicate = CODES["duplicate"]
    with (scan.folder / _VERDICTS).open("r+b") as file:
        done = 0
        for first, verdicts in scan.chunks():
            hashed = np.flatnonzero((verdicts == KEPT) | (verdicts == duplicate))
            drop = hashed[repeated[done : done + len(hashed)]]
            done += len(hashed)
            verdicts[drop] = duplicate
            file.seek(first)
            file.write(verdicts.tobytes())
