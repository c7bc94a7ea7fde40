"""Sentences as token ids in two flat arrays, in memory or memory-mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.data.batches import Lengths

Ids = npt.NDArray[Any]
_ROWS = 1 << 14


class Tokens:
    """The sentences of one side: all their ids in a row, and where each sentence begins.

    Of a memory-mapped one only what is looked at is read from the disk.
    """

    def __init__(self, ids: Ids, offsets: npt.NDArray[np.int64], maps: Sequence[mmap.mmap] = ()):
        """`offsets` has one more entry than there are sentences: the end. `maps` is how both are mapped."""
        self.ids = ids
        self.offsets = offsets
        self._maps = maps

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Tokens:
        """Lists of ids."""
        lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        ids = np.fromiter(
            (i for sentence in sentences for i in sentence), dtype=np.int64, count=int(lengths.sum())
        )
        return cls(ids, offsets_of(lengths))

    @classmethod
    def mapped(cls, stem: Path, dtype: str) -> Tokens:
        """Those of ``STEM.tokens`` and ``STEM.offsets``."""
        ids, offsets = _map(Path(f"{stem}.tokens")), _map(Path(f"{stem}.offsets"))
        return cls(
            np.frombuffer(ids, dtype=dtype),
            np.frombuffer(offsets, dtype=np.int64),
            [found for found in (ids, offsets) if isinstance(found, mmap.mmap)],
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def lengths(self, rows: Lengths | None = None) -> Lengths:
        """Tokens of each sentence, or of those in `rows`."""
        if rows is None:
            return np.diff(self.offsets)
        lengths: Lengths = self.offsets[rows + 1] - self.offsets[rows]
        return lengths

    def take(self, rows: Lengths) -> tuple[Ids, Lengths]:
        """The ids of some sentences in a row, and their lengths."""
        starts = self.offsets[rows]
        lengths: Lengths = self.offsets[rows + 1] - starts
        # Of each id, how far it stands from the place it is taken from.
        moved = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return self.ids[moved + np.arange(len(moved))], lengths

    def copied(self, rows: Lengths) -> Tokens:
        """Some sentences in memory, best in ascending order.

        No more pages are mapped at a time than a few thousand sentences need: they count as memory of
        this process.
        """
        parts = [self.take(rows[:0])]
        for first in range(0, len(rows), _ROWS):
            parts.append(self.take(rows[first : first + _ROWS]))
            self.forget()
        return Tokens(
            np.concatenate([ids for ids, _ in parts]), offsets_of(np.concatenate([n for _, n in parts]))
        )

    def forget(self) -> None:
        """Give back the pages that were looked at; the system may still have them."""
        for mapped in self._maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """The sentences of all parts, one part after another."""
    lengths = np.concatenate([part.lengths() for part in parts])
    return Tokens(np.concatenate([part.ids for part in parts]), offsets_of(lengths))


def offsets_of(lengths: Lengths) -> npt.NDArray[np.int64]:
    """Where sentences of these lengths begin, and the end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _map(file: Path) -> mmap.mmap | bytes:
    with file.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:  # cannot be mapped
            return b""
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
