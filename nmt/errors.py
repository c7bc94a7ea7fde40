"""Errors that the command line turns into one line and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something in the user's input, configuration or data is wrong.

    The command line prints it as one line, ``nmt: FILE:LINE: what is wrong; what to do``, and exits
    with 2. `message` says what is wrong and, after a semicolon, what to do about it.

    Args:
        message: what is wrong; what to do. One line, no final full stop.
        file: the file it is about, if any.
        line: 1-based line in `file`, if known.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None):
        self.message = " ".join(message.split())
        self.file = None if file is None else str(file)
        self.line = line
        super().__init__(str(self))

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


class SentenceError(UserError):
    """About one of several sentences; `place` says which, from 0."""

    def __init__(self, message: str, place: int):
        super().__init__(message)
        self.place = place


class DamagedModel(UserError):
    """Its scores are not numbers."""


@contextmanager
def writing_to(file: str | Path) -> Iterator[None]:
    """What the system says of a file that cannot be written is a UserError, but that its reader has left."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror or error}); make room for it, or write elsewhere", file=file
        ) from error


def counted(count: int, noun: str) -> str:
    """A number of things, for a message: "1 line", "2,000 lines"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def install(extra: str) -> str:
    """How to install what only some need. Not by name: on PyPI `nmt` is another project."""
    return f"in the folder of nmt's source run pip install -e '.[{extra}]'"


class InterruptedRun(Exception):
    """Training was told to stop, and saved.

    Args:
        message: where it stands and how to go on.
        signal_number: which signal told it; the exit code is 128 plus this.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number
