"""Standard streams as all commands find them: UTF-8, and there even where whoever started them closed one."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from nmt.errors import UserError


def settle_streams() -> None:
    """Before anything is written. A closed standard output refuses what is written there, a closed standard
    error loses it; standard input is left as it is, None where it is closed."""
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would be standard output
            nothing = os.open(os.devnull, os.O_WRONLY)
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        # Text is UTF-8 whatever the locale; "\n" ends a line on every system. A closed stream is None.
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the whole process
    if sys.stdout is None:
        sys.stdout = _Closed()


class _Refusing(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(data):
            raise UserError("standard output is closed; open it, or name a file to write to")
        return 0


class _Closed(io.TextIOBase):
    buffer: Any

    def __init__(self) -> None:
        super().__init__()
        self.buffer = _Refusing()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return int(self.buffer.write(text.encode()))
