"""The file of metrics, which loses no line: what the disk does not take now is written later."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import IO, Any


class MetricsFile:
    """Objects, one a line. What is written are whole lines; others wait until `write` succeeds."""

    def __init__(self, path: Path):
        self._path = path
        self._stream: IO[bytes] | None = None
        self._size = 0  # of the whole lines in the file
        self._waiting = b""

    def cut(self, size: int) -> None:
        """Forget what was logged after `size` bytes."""
        self.close()
        with self._path.open("ab") as stream:
            stream.truncate(min(size, stream.tell()))

    def add(self, event: dict[str, Any]) -> None:
        """To be written by the next `write`."""
        self._waiting += (json.dumps(event) + "\n").encode()

    def write(self, *, sync: bool = False) -> int:
        """Write what waits; returns the size of the file in bytes.

        Args:
            sync: until it is on the disk.

        Raises:
            OSError: it cannot be written, and goes on waiting.
        """
        try:
            stream = self._opened()
            end = len(self._waiting)
            written = 0
            while written < end:
                written += stream.write(self._waiting[written:])
            if sync:
                os.fsync(stream.fileno())
        except OSError:
            if self._stream is not None:  # no half lines
                with contextlib.suppress(OSError):
                    self._stream.truncate(self._size)
            self.close()
            raise
        self._size += end
        self._waiting = b""
        return self._size

    def _opened(self) -> IO[bytes]:
        """The file, opened again if it was moved or removed under our feet."""
        if self._stream is not None:
            try:
                same = os.path.samestat(self._path.stat(), os.fstat(self._stream.fileno()))
            except FileNotFoundError:
                same = False
            if not same:
                self.close()
        if self._stream is None:
            self._stream = self._path.open("ab", buffering=0)
            self._size = self._stream.tell()
        return self._stream

    def close(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None
