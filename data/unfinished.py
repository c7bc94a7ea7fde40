"""Work that survives a kill: files that grow, and a note of how far they may be trusted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from nmt.files import write_file

_SECONDS = 2.0  # between notes
_ABANDONED = 7 * 24 * 3600.0  # seconds


def is_abandoned(folder: Path) -> bool:
    """Whether nothing in an unfinished folder was touched for a week, so that nobody will go on with it."""
    try:
        touched = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
    except OSError:  # somebody is at it
        return False
    return time.time() - touched > _ABANDONED


class Growing:
    """Files of a folder that are only ever appended to, in steps.

    A step is some `write`s and a `done`. Opened again after a kill, the files are cut back to the last
    step noted, and `state` is what that step said.
    """

    def __init__(self, folder: Path, name: str, files: Sequence[str]):
        """`name` is that of the note, ``NAME.json``."""
        self._note = folder / f"{name}.json"
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            note = {"state": {}, "sizes": {}}
        self.state: dict[str, Any] = note["state"]
        self._files: dict[str, BinaryIO] = {}
        for file in files:
            (folder / file).touch()
            stream = (folder / file).open("r+b")
            stream.truncate(note["sizes"].get(file, 0))
            stream.seek(0, os.SEEK_END)
            self._files[file] = stream
        self._noted = time.monotonic()

    def write(self, file: str, content: bytes | memoryview) -> None:
        self._files[file].write(content)

    def done(self, state: dict[str, Any], *, last: bool = False) -> None:
        """End a step; every few seconds, and the last time, it is noted."""
        self.state = state
        if last or time.monotonic() - self._noted > _SECONDS:
            for stream in self._files.values():
                stream.flush()
                os.fsync(stream.fileno())
            sizes = {file: stream.tell() for file, stream in self._files.items()}
            write_file(self._note, json.dumps({"state": state, "sizes": sizes}))
            self._noted = time.monotonic()

    def __enter__(self) -> Growing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._files.values():
            stream.close()
