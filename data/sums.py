"""What a corpus is known by: the SHA-256 of its files, not computed again for files that did not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from nmt.data.corpus import sha256_of
from nmt.files import lock, write_file

_SETTLED = 2.0  # seconds; a file written to later than this before it is read may yet change unnoticed
_WHOLE = 64 << 20  # bytes
_PIECES, _PIECE = 1024, 64 << 10


def sums_of(files: Sequence[Path], cache: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its name.

    `cache` holds those computed before. A sum is taken from it if the file's size, times of change (one of
    which no program can set), inode and device are the same and were settled when it was computed.

    Raises:
        UserError: a file cannot be read.
    """
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = {}
    if not isinstance(known, dict):
        known = {}
    sums, learnt = {}, False
    for file in files:
        name = str(file.absolute())
        stamp = stamp_of(file)
        entry = known.get(name)
        if isinstance(entry, dict) and entry.get("stamp") == stamp and isinstance(entry.get("sha256"), str):
            sums[str(file)] = entry["sha256"]
            continue
        began = time.time()
        sums[str(file)] = sha256_of(file)
        if stamp and stamp == stamp_of(file) and max(stamp[1:3]) < (began - _SETTLED) * 1e9:
            known[name] = {"stamp": stamp, "sha256": sums[str(file)]}
            learnt = True
    if learnt:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with writing(cache):
            write_file(cache, json.dumps(known, indent=1))
    return sums


def writing(cache: Path) -> IO[bytes]:
    """Meanwhile no other process writes `cache`, which is beside folders that are tidied up."""
    return lock(cache.parent, wait=True, name=f".{cache.name}.lock")


def stamp_of(file: Path) -> list[int]:
    """What changes when a file does: its size, times, inode and device. Of a file that is gone, nothing."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def fingerprint(file: Path) -> str:
    """A SHA-256 over the size and content of a file; of one above 64 MiB over 1,024 pieces spread over it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        if size <= _WHOLE:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        else:
            for place in range(_PIECES):
                stream.seek(place * (size - _PIECE) // (_PIECES - 1))
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()
