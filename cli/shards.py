"""Translation of one file by several processes: who does what, and how their work is put together.

The input is cut into blocks of lines, and block i belongs to process i mod N. Each process writes the
records of its blocks into a partial file of its own, to be continued like any other; when all are complete
one process puts the records into the order of the input, checking that they are of its lines.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.cli.lines import CHUNK_LINES, Lines, chunk_sizes
from nmt.cli.translation import Options, Translating
from nmt.errors import UserError
from nmt.partial import Chunk, NotContinued, PartialFile, partial_of, read_record, sidecar_of

# A process that was just killed may hold its file for a moment.
_PATIENCE = 3.0


@dataclass(frozen=True)
class Shards:
    """How a file's lines are dealt out to `count` processes, numbered from 1."""

    source: str
    target: Path
    count: int
    lines: int

    @classmethod
    def of(cls, options: Options, count: int) -> Shards:
        """UserError where the options do not allow several processes, or a line is not UTF-8."""
        if options.output is None:
            raise UserError("several processes need a file to write; add --output")
        lines = Lines(options.source)
        if not lines.is_file:
            raise UserError(
                f"several processes need a file to read, and {lines.name} is none; write it to one first"
            )
        target = options.output.resolve()
        if target.exists() and not target.is_file():
            raise UserError(
                "is no ordinary file, and several processes need one; choose another --output",
                file=options.output,
            )
        total = sum(len(chunk) for _, chunk in lines.chunks())
        return cls(options.source, target, count, total)

    @property
    def block(self) -> int:
        """Lines in a block: as many as are translated together, or fewer, so that all have the same work."""
        rounds = -(-self.lines // (self.count * CHUNK_LINES))
        return max(1, -(-self.lines // (self.count * max(1, rounds))))

    def blocks(self) -> Iterator[Chunk]:
        return Lines(self.source).chunks(self.block)

    @property
    def everywhere(self) -> Path:
        """How messages name the partial files of all processes."""
        return partial_of(self.target).with_name(f"{partial_of(self.target).name}-*")

    def path(self, process: int) -> Path:
        return partial_of(self.target, process, self.count)

    def whole(self, *, restart: bool) -> PartialFile:
        """What the records are put together in; held by one process from beginning to end."""
        settings = {"processes": self.count, "input lines": self.lines}
        packed = self.target.suffix == ".gz"
        whole = PartialFile(
            partial_of(self.target), settings, packed=packed, restart=restart, patience=_PATIENCE
        )
        whole.clear(run=secrets.token_hex(8))
        return whole

    def work(self, process: int, options: Options, device: str) -> PartialFile:
        """One process's share, complete."""
        translating = Translating(options, device, self.source)
        settings = {"processes": self.count, "input lines": self.lines, **translating.settings()}
        partial = PartialFile(self.path(process), settings, restart=options.restart, patience=_PATIENCE)
        try:
            blocks = (chunk for i, chunk in enumerate(self.blocks()) if i % self.count == process - 1)
            with closing(translating.translate(partial.rest(blocks))) as translated:
                for (_, sources), records in translated:
                    partial.append(records, sources)
            partial.complete()
        except BaseException:
            partial.close()
            raise
        return partial

    def done(self) -> int:
        """Lines that all processes together have translated."""
        return sum(record["lines"] for record in self._records() if record)

    def complete_in(self, run: str) -> bool:
        """Whether every process has said in this run that its share is complete."""
        return all(record and record["complete"] and record["run"] == run for record in self._records())

    def leave(self, whole: PartialFile) -> int:
        """Close the whole, to be continued, and say how many lines are done; of none, leave nothing."""
        lines = self.done()
        if not lines:
            for path in self._paths():
                path.unlink(missing_ok=True)
                sidecar_of(path).unlink(missing_ok=True)
        whole.close(keep=lines > 0)
        return lines

    def _paths(self) -> list[Path]:
        return [self.path(process) for process in range(1, self.count + 1)]

    def _records(self) -> list[dict[str, Any] | None]:
        return [read_record(path) for path in self._paths()]

    def join(self, whole: PartialFile) -> None:
        """Put the records in order and give the file its name.

        Raises:
            UserError: they are not of the input's lines, which have changed.
        """
        paths = self._paths()
        sums = [hashlib.sha256() for _ in paths]
        records: list[bytes] = []
        waiting: list[str] = []
        sizes = chunk_sizes()  # as of one process: the same file, packed too
        size = next(sizes)
        streams = [path.open("rb") for path in paths]
        try:
            for index, (_, lines) in enumerate(self.blocks()):
                turn = index % self.count
                for line in lines:
                    sums[turn].update(line.encode() + b"\n")
                    records.append(streams[turn].readline())
                    waiting.append(line)
                    if len(waiting) == size:
                        whole.append(b"".join(records), waiting)
                        records, waiting, size = [], [], next(sizes)
            if waiting:
                whole.append(b"".join(records), waiting)
            for path, stream, found in zip(paths, streams, sums, strict=True):
                record = read_record(path)
                if record is None or record["source"] != found.hexdigest() or stream.read(1):
                    raise NotContinued(
                        "was made of other lines: the input has changed; use --restart to begin anew",
                        file=path,
                    )
        finally:
            for stream in streams:
                stream.close()
        whole.finish(self.target, paths)


def torchrun_rank() -> tuple[int, int, int] | None:
    """RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; None without, or with one process.

    Raises:
        UserError: they are no numbers that belong together.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = [os.environ.get(name, "") for name in names]
    if not all(values):
        return None
    if not all(value.isascii() and value.isdigit() for value in values) or int(values[0]) >= int(values[1]):
        shown = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UserError(f"{shown} in the environment is not what torchrun sets; unset them")
    rank, size, local = map(int, values)
    return None if size == 1 else (rank, size, local)


def device_of(name: str, local_rank: int) -> str:
    """A GPU for each process of a machine, where there are GPUs and none is named."""
    import torch

    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{local_rank}"
    return name
