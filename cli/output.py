"""What every command prints with: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.errors import UserError, writing_to
from nmt.files import sync_folder

if TYPE_CHECKING:
    from rich.console import Console

_STANDARD = Path("-")  # standard output, where a file may be named


def result(text: str) -> None:
    sys.stdout.write(text + "\n")


def result_json(document: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """A line on stderr. That its reader has left, as under `2>&1 | head`, must not stop the work."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the rest of the process


def warn(text: str) -> None:
    note(f"nmt: warning: {text}")


class Repeated:
    """Warnings of single lines of a text: the first ones are said, of the others their number at the end."""

    _SAID = 10

    def __init__(self, name: str, kind: str = ""):
        """`name` is that of the text; `kind` says what they are about where there are several."""
        self._name = name
        self._these = f"these ({kind})" if kind else "these"
        self._count = 0

    def warn(self, line: int, text: str) -> None:
        self._count += 1
        if self._count <= self._SAID:
            warn(f"{self._name}:{line}: {text}")
        elif self._count == self._SAID + 1:
            warn(f"{self._name}: more lines are like {self._these}; they are counted, and not named")

    def end(self) -> None:
        more = self._count - self._SAID
        if more > 0:
            were = "line was" if more == 1 else "lines were"
            warn(f"{self._name}: {more:,} more {were} like {self._these}")
        self._count = 0


def is_terminal() -> bool:
    """Whether a progress bar on stderr is seen by a person."""
    return sys.stderr.isatty()


def console(*, stderr: bool = True) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def table(header: list[str], rows: list[list[str]], *, left: int = 1) -> str:
    """Aligned columns of plain text: the first `left` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"; 65 -> "1:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def status(text: str) -> None:
    """Replace the terminal's last line; nothing elsewhere."""
    if is_terminal():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def file_of(output: Path | None) -> Path | None:
    """Of an option without which a command writes to standard output: "-" is that too."""
    return None if output == _STANDARD else output


def refuse_standard_output(path: Path, option: str = "--output") -> None:
    """UserError for "-", which would be a file of that name."""
    if path == _STANDARD:
        raise UserError(f"{option} - cannot be standard output here; name what to write")


def check_output(output: Path, *inputs: str | Path) -> None:
    """UserError where the output cannot be written or is an input."""
    refuse_standard_output(output)
    with writing_to(output):
        if output.is_dir():
            raise UserError("is a folder; name a file with --output", file=output)
        if not output.resolve().parent.is_dir():
            raise UserError("its folder does not exist; create it first", file=output)
        if output.exists() and any(str(path) != "-" and output.samefile(path) for path in inputs):
            raise UserError("is the input too; choose another --output", file=output)
    check_writable(output)


def check_writable(path: Path, option: str = "--output") -> None:
    """UserError where nothing can be written under that name, whose folder is there."""
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe or a device is written to, not replaced
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        # A file is written beside and renamed.
        descriptor, beside = tempfile.mkstemp(prefix=f".{target.name[:32]}.partial-", dir=target.parent)
        os.close(descriptor)
        Path(beside).unlink()
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror}); choose another {option}", file=path) from None


@contextlib.contextmanager
def writing(output: Path | None) -> Iterator[Any]:
    """A binary stream to `output`, packed where that is named .gz; standard output without it.

    The file is written beside and renamed at the end. If the body raises, what was written stays, named
    .unfinished.
    """
    if output is None:
        yield sys.stdout.buffer
        return
    target = output.resolve()  # a link stays a link
    if target.exists() and not target.is_file():  # a pipe or a device is written to, not replaced
        with target.open("wb") as stream:
            yield stream
        return
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            if output.suffix == ".gz":
                with gzip.GzipFile(output.name.removesuffix(".gz"), "wb", fileobj=stream, mtime=0) as packed:
                    yield packed
            else:
                yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        if partial.exists() and partial.stat().st_size:
            kept = target.with_name(f"{target.name}.unfinished")
            partial.replace(kept)
            note(f"what was written so far is in {kept}")
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)
    sync_folder(target.parent)
