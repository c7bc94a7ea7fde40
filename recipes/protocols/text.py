"""Text as papers prepared it: Moses tokens, lower case, pairs of fitting length, validation held out."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nmt.data.corpus import find_side, read_lines, read_parallel
from nmt.errors import UserError

from .moses import tokenise


@dataclass(frozen=True)
class Cleaning:
    """What Moses's clean-corpus-n.perl keeps, in tokens, and what is done to it.

    Attributes:
        most: tokens a side, at least one; 0: any number of tokens, blank lines too.
        ratio: tokens of the longer side over those of the shorter; 0: any.
    """

    lowercase: bool = False
    straight: bool = False  # typographic apostrophes become straight ones, before anything else
    most: int = 0
    ratio: float = 0.0

    def keeps(self, source: str, target: str) -> bool:
        if not self.most:
            return True
        lengths = sorted((len(source.split()), len(target.split())))
        if not 0 < lengths[0] <= lengths[1] <= self.most:
            return False
        return not self.ratio or lengths[1] <= self.ratio * lengths[0]

    def shown(self, line: str) -> str:
        line = " ".join(line.split()) if self.most else line
        return line.lower() if self.lowercase else line


def prepare(
    prefixes: list[str],
    languages: tuple[str, str],
    output: Path,
    cleaning: Cleaning,
    *,
    every: int = 0,
    held_out: Path | None = None,
) -> tuple[int, int]:
    """Write the pairs of several corpora, in order, as tokens.

    Args:
        prefixes: as `nmt train` takes them.
        languages: source and target.
        output: prefix of the files to write, gzipped where it says so by a final ``.gz`` (``train.gz`` gives
            ``train.en.gz``).
        every: each so many-th pair that is kept goes to `held_out`; 0: none.

    Returns:
        How many pairs were kept and how many there were.

    Raises:
        UserError: a corpus cannot be read, its sides differ in length, or nothing is kept.
    """
    kept = seen = 0
    with ExitStack() as stack:
        written = stack.enter_context(_Pair(output, languages))
        aside = stack.enter_context(_Pair(held_out, languages)) if held_out is not None else None
        for prefix in prefixes:
            for source, target in _tokenised(prefix, languages, straight=cleaning.straight):
                seen += 1
                if not cleaning.keeps(source, target):
                    continue
                kept += 1
                to = aside if aside is not None and every and not kept % every else written
                to.write(cleaning.shown(source), cleaning.shown(target))
        if not kept:
            raise UserError(f"no pair of {', '.join(prefixes)} is kept; is it the right text?")
    return kept, seen


def join(prefixes: list[str], language: str, output: Path, *, lowercase: bool = False) -> int:
    """Write several texts of one language as one, as they are; the number of lines."""
    lines = (line for prefix in prefixes for line in read_lines(find_side(prefix, language)))
    count = 0
    with _opened(output) as sink:
        for line in lines:
            sink.write(f"{line.lower() if lowercase else line}\n".encode())
            count += 1
    _publish(output)
    return count


def _tokenised(prefix: str, languages: tuple[str, str], *, straight: bool) -> Iterator[tuple[str, str]]:
    """Pairs as tokens, of sides that are known to be aligned before hours of work."""
    for _ in read_parallel(prefix, *languages):
        pass
    sides = []
    for language in languages:
        lines: Iterable[str] = read_lines(find_side(prefix, language))
        if straight:
            lines = (line.replace("’", "'") for line in lines)
        sides.append(tokenise(lines, language))
    return zip(*sides, strict=True)


class _Pair:
    """Two files that appear when both are whole."""

    def __init__(self, prefix: Path, languages: tuple[str, str]):
        packed = prefix.name.endswith(".gz")
        stem = str(prefix).removesuffix(".gz")
        self._paths = [Path(f"{stem}.{language}{'.gz' if packed else ''}") for language in languages]
        self._sinks: list[IO[bytes]] = []

    def __enter__(self) -> _Pair:
        self._sinks = [_opened(path) for path in self._paths]
        return self

    def write(self, *lines: str) -> None:
        for sink, line in zip(self._sinks, lines, strict=True):
            sink.write(f"{line}\n".encode())

    def __exit__(self, kind: object, *_: object) -> None:
        for sink in self._sinks:
            sink.close()
        for path in self._paths:
            if kind is None:
                _publish(path)
            else:
                _part(path).unlink()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        return gzip.open(_part(path), "wb", compresslevel=6)  # type: ignore[return-value]
    return _part(path).open("wb")


def _publish(path: Path) -> None:
    with _part(path).open("rb") as done:
        os.fsync(done.fileno())
    _part(path).replace(path)
