"""A corpus in blocks of lines as they lie on disk: cheap to read, cheap to hand to another process.

What `nmt.data.corpus.read_parallel` says of a pair of lines holds here too; the two are tested to agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from nmt.data.corpus import (
    BYTE_ORDER_MARK,
    Pairs,
    decode_line,
    find_side,
    is_tsv,
    reading,
    split_tsv,
    unequal_counts,
)
from nmt.errors import UserError, counted

LINES = 1 << 14  # of a block


@dataclass(frozen=True)
class Block:
    """Some neighbouring lines of one corpus, not decoded."""

    corpus: int  # which of the list
    first: int  # 1-based line in the corpus
    count: int
    source: bytes  # lines with a newline between them
    target: bytes  # empty where `source` holds lines of a .tsv
    source_file: str
    target_file: str
    links: bytes | None = None  # lines of word links, one a pair, where the corpus has them
    links_file: str = ""

    def sides(self) -> tuple[list[str], list[str]]:
        """The lines of both sides.

        Raises:
            UserError: they are not UTF-8, or a line of a ``.tsv`` has not exactly one tab.
        """
        try:
            if self.target_file:
                return self._decoded(self.source), self._decoded(self.target)
            columns = [line.split("\t") for line in self._decoded(self.source)]
            if set(map(len, columns)) == {2}:
                return [source for source, _ in columns], [target for _, target in columns]
        except UnicodeDecodeError:
            pass
        return self._decoded_carefully()

    def _decoded(self, raw: bytes) -> list[str]:
        text = raw.decode("utf-8")
        lines = text.split("\n")
        if "\r" in text:
            lines = [line.removesuffix("\r") for line in lines]
        if self.first == 1:
            lines[0] = lines[0].removeprefix("\ufeff")
        return lines

    def link_lines(self) -> list[str]:
        """A line of word links for each pair; UserError where they are not UTF-8."""
        raws = (self.links or b"").split(b"\n")
        return [decode_line(raw, file=self.links_file, line=self.first + n) for n, raw in enumerate(raws)]

    def _decoded_carefully(self) -> tuple[list[str], list[str]]:
        """Line by line, so that the first mistake is the one that is named."""
        pairs: Pairs = []
        targets = self.target.split(b"\n")
        for index, raw in enumerate(self.source.split(b"\n")):
            line = self.first + index
            source = decode_line(raw, file=self.source_file, line=line)
            if self.target_file:
                pairs.append((source, decode_line(targets[index], file=self.target_file, line=line)))
            else:
                pairs.append(split_tsv(source, file=self.source_file, line=line))
        return [source for source, _ in pairs], [target for _, target in pairs]


def read_blocks(
    prefixes: Sequence[str],
    source_language: str,
    target_language: str,
    *,
    lines: int = 0,
    skip: int = 0,
    links: Sequence[Path | None] = (),
) -> Iterator[Block]:
    """All lines of several corpora, in order, in blocks of `lines`, fewer at the end of a corpus.

    Args:
        prefixes: as `nmt.data.corpus.read_parallel` takes them.
        lines: 0 for `LINES`.
        skip: blocks that are left out at the beginning.
        links: a file of word links for each corpus, or none; nothing where no corpus has one.

    Raises:
        UserError: as `read_parallel` and, when asked for its lines, a `Block`.
    """

    lines = lines or LINES

    def blocks() -> Iterator[Block]:
        for corpus, prefix in enumerate(prefixes):
            if is_tsv(prefix):
                found = _read_tsv(Path(prefix), lines)
            else:
                found = _read_two(
                    find_side(prefix, source_language), find_side(prefix, target_language), lines
                )
            file = links[corpus] if links else None
            if file is not None:
                found = _with_links(found, file, prefix, lines)
            for block in found:
                yield replace(block, corpus=corpus)

    return islice(blocks(), skip, None)


def _with_links(blocks: Iterator[Block], file: Path, prefix: str, lines: int) -> Iterator[Block]:
    found = _read_raw(file, lines)
    totals = [0, 0]
    for block in blocks:
        raw, count = next(found, (b"", 0))
        totals = [totals[0] + block.count, totals[1] + count]
        if count != block.count:
            break
        yield replace(block, links=raw, links_file=str(file))
    totals[0] += sum(block.count for block in blocks)
    totals[1] += sum(count for _, count in found)
    if totals[0] != totals[1]:
        raise UserError(
            f"has {counted(totals[1], 'line')} of links, and {prefix} has "
            f"{counted(totals[0], 'pair')}; give the links of this text, line by line",
            file=file,
        )


def _read_two(source: Path, target: Path, lines: int) -> Iterator[Block]:
    sides = _read_raw(source, lines), _read_raw(target, lines)
    first = 1
    while True:
        (raw_source, count), (raw_target, target_count) = (next(side, (b"", 0)) for side in sides)
        if count == target_count == 0:
            break
        least = min(count, target_count)
        raw_source, raw_target = _first_lines(raw_source, least), _first_lines(raw_target, least)
        if least:
            yield Block(0, first, least, raw_source, raw_target, str(source), str(target))
        if count != target_count:
            totals = [
                first - 1 + read + sum(rest for _, rest in side)
                for read, side in zip((count, target_count), sides, strict=True)
            ]
            raise unequal_counts(source, totals[0], target, totals[1])
        first += count
    if first == 1:
        raise unequal_counts(source, 0, target, 0)


def _read_tsv(path: Path, lines: int) -> Iterator[Block]:
    first = 1
    for raw, count in _read_raw(path, lines):
        yield Block(0, first, count, raw, b"", str(path), "")
        first += count
    if first == 1:
        raise UserError("the file is empty; give a file with text", file=path)


def _read_raw(path: Path, lines: int) -> Iterator[tuple[bytes, int]]:
    """Blocks of so many lines, with newlines between lines, and how many lines they hold."""
    number = 0
    taken: list[bytes] = []
    with reading(path, lambda: number + len(taken)) as stream:
        while True:
            taken = []
            taken.extend(islice(stream, lines))  # what it holds where reading fails is counted
            if not taken or (not number and taken == [BYTE_ORDER_MARK]):
                return
            yield b"".join(taken).removesuffix(b"\n"), len(taken)
            number += len(taken)
            taken = []


def _first_lines(raw: bytes, count: int) -> bytes:
    parts = raw.split(b"\n", count)
    return b"\n".join(parts[:count])
