"""A result that is written chunk by chunk and goes on where it was stopped, by SIGKILL or a power cut too.

While `FILE` is being written there are `FILE.partial`, the records so far, and `FILE.partial.json`, which
says how many of its bytes are whole, which input lines they are of (number and sha256), and the settings
that decided them. The bytes are on the disk before the JSON says so, and the JSON is replaced in one
moment; so whatever is beyond it was cut off, and is written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from nmt.errors import UserError, counted, writing_to
from nmt.files import sync_folder

Chunk = tuple[int, list[str]]  # number of the first line, from 1, and the lines

_FORMAT = 1


def partial_of(target: Path, part: int = 0, parts: int = 1) -> Path:
    """Where `target` is written to: `FILE.partial`, or the part's `FILE.partial-1-of-2`."""
    return target.with_name(f"{target.name}.partial" + (f"-{part}-of-{parts}" if part else ""))


def remove_parts(target: Path) -> None:
    """The partial files that several processes have left of `target`."""
    for path in _parts(partial_of(target)):
        path.unlink(missing_ok=True)


def _parts(whole: Path) -> list[Path]:
    """Partial files of several processes that are put together in `whole`, and what is beside them."""
    name = re.compile(re.escape(f"{whole.name}-") + r"\d+-of-\d+(\.json(\.new)?)?")
    return [path for path in whole.parent.iterdir() if name.fullmatch(path.name)]


def sidecar_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


class NotContinued(UserError):
    """What is there cannot be continued by this command."""


class PartialFile:
    """A `FILE.partial` that this process alone may write."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        packed: bool = False,
        restart: bool = False,
        patience: float = 0.0,
    ):
        """Continue what is there, or begin.

        Args:
            path: of the partial file; `FILE.partial.json` is beside it.
            settings: what decides the records, as JSON has it; must be what it was when they were begun.
            packed: each chunk is a gzip member of its own, so that the file can be cut between two.
            restart: begin anew.
            patience: seconds to wait for another process that holds the file.

        Raises:
            UserError: another process is writing it; it is something else, or was begun with other
                settings, which are named.
        """
        self.path = path
        self.packed = packed
        self._sidecar = sidecar_of(path)
        self._settings = json.loads(json.dumps(dict(settings)))
        self.lines = 0  # done
        self._bytes = 0
        self.run = ""  # of several processes: which start of theirs wrote this
        self.source = hashlib.sha256()  # of the lines done
        is_new = not path.exists()
        self._file = _lock(path, patience)
        try:
            record = None if restart or is_new else self._read()
            self.is_new = record is None
            if record is not None:
                self.lines, self._bytes, self._expected = record["lines"], record["bytes"], record["source"]
            self._file.truncate(self._bytes)
            self._file.seek(self._bytes)
            if record is None:
                self._record()
        except BaseException:
            self._file.close()
            raise

    def rest(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """What is left of the input when the lines done are taken off.

        Raises:
            UserError: they are not the lines they were.
        """
        left = self.lines
        for first, lines in chunks:
            if left:
                old = lines[:left]
                self._add(old)
                left -= len(old)
                if not left:
                    self._check_source()
                if len(old) < len(lines):
                    yield first + len(old), lines[len(old) :]
            else:
                yield first, lines
        if left:
            self._refuse(f"holds {counted(self.lines, 'line')}, and the input has {self.lines - left:,}")

    def append(self, records: bytes, lines: Sequence[str]) -> None:
        """The records of the next lines; when this returns they are safe."""
        data = gzip.compress(records, compresslevel=6, mtime=0) if self.packed else records
        with writing_to(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._add(lines)
            self.lines += len(lines)
            self._bytes += len(data)
            self._record()

    def clear(self, run: str) -> None:
        """Begin anew, with a name for this run."""
        self.lines, self._bytes, self.source = 0, 0, hashlib.sha256()
        self.run = run
        self._record()
        self._file.truncate(0)
        self._file.seek(0)

    def complete(self, run: str = "") -> None:
        """Say that nothing is to come, and in which run that was found."""
        self.run = run
        self._record(complete=True)

    def close(self, *, keep: bool | None = None) -> None:
        """Leave it to be continued; if there is nothing in it, leave nothing, unless told to `keep` it."""
        if not (self.lines if keep is None else keep):
            self._sidecar.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._file.close()

    def finish(self, target: Path, parts: Iterable[Path] = ()) -> None:
        """Give the file its name; `parts` are partial files that are then no longer needed."""
        if self.packed and not self._bytes:
            self.append(b"", [])  # no bytes at all are no gzip file
        os.fsync(self._file.fileno())
        self.path.replace(target)
        sync_folder(target.parent)
        for path in (*parts, self.path):
            path.unlink(missing_ok=True)
            sidecar_of(path).unlink(missing_ok=True)
        self._file.close()

    def _read(self) -> dict[str, Any] | None:
        """What the sidecar says; None if there is nothing to continue."""
        size = os.fstat(self._file.fileno()).st_size
        record = read_record(self.path)
        if record is None:
            if size:
                self._refuse(f"is not an unfinished translation, or {self._sidecar.name} is lost")
            return None
        if not record["lines"] and not record["run"]:
            return None
        if size < record["bytes"]:
            self._refuse(f"has {size:,} of the {record['bytes']:,} bytes that were written")
        old, new = record["settings"], self._settings
        if old.get("processes") != new.get("processes"):  # then what else is recorded differs too
            old, new = ({"processes": settings.get("processes")} for settings in (old, new))
        changed = differences(old, new)
        if changed:
            records = [record, *map(read_record, _parts(self.path))]
            if not any(found["lines"] for found in records if found):
                return None  # nothing is lost
            self._refuse(f"was begun with {changed}", "use the same settings to go on")
        return record

    def _check_source(self) -> None:
        if self.source.hexdigest() != self._expected:
            self._refuse(f"was made of other lines: the first {self.lines:,} of the input have changed")

    def _refuse(self, message: str, advice: str = "") -> None:
        advice = f"{advice}, or " if advice else ""
        raise NotContinued(
            f"{message}; {advice}delete {self.path.name}, or use --restart, to begin anew", file=self.path
        )

    def _add(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.source.update(line.encode() + b"\n")

    def _record(self, *, complete: bool = False) -> None:
        record = {
            "format": _FORMAT,
            "settings": self._settings,
            "lines": self.lines,
            "bytes": self._bytes,
            "source": self.source.hexdigest(),
            "complete": complete,
            "run": self.run,
        }
        # The lock is held, so the name needs no process id: what a killed process leaves is replaced.
        new = self._sidecar.with_name(f"{self._sidecar.name}.new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._sidecar)


def read_record(partial: Path) -> dict[str, Any] | None:
    """What `FILE.partial.json` says; None where there is none, or not one of ours."""
    try:
        record = json.loads(sidecar_of(partial).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT or not isinstance(record["settings"], dict):
            return None
        kinds = {"lines": int, "bytes": int, "source": str, "complete": bool, "run": str}
        return record if all(type(record[key]) is kind for key, kind in kinds.items()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """ "beam size 5, not 4": the settings that differ, the first three of them; empty where none do."""
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    shown = [f"{key} {_shown(old.get(key))}, not {_shown(new.get(key))}" for key in changed[:3]]
    return ", ".join(shown) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 30 else f"{text[:12]}..."


def _lock(path: Path, patience: float) -> IO[bytes]:
    """`path`, created if need be, open for this process alone."""
    until = time.monotonic() + patience
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if time.monotonic() >= until:
                raise UserError(
                    "another process is writing it; wait for that, or choose another --output", file=path
                ) from None
            time.sleep(0.05)
            continue
        except BaseException:
            file.close()
            raise
        # Whoever held it may have renamed or removed it: then this is no longer the file of that name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
