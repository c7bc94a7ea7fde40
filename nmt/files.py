"""Writing that cannot lose: beside, flushed, then renamed. A file or folder exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK = ".lock"  # in a folder that a process holds
_PARTIAL = ".partial-"


def write_file(path: Path, content: bytes | str) -> None:
    """Replace a file in one moment."""
    with written_after(path, content):
        pass


@contextlib.contextmanager
def written_after(path: Path, content: bytes | str) -> Iterator[None]:
    """As `write_file`: the content is on the disk before the body, and takes the name after it.

    If the body raises, or the content cannot be written, what was there stays.
    """
    data = content.encode() if isinstance(content, str) else content
    path = path.resolve()  # a link stays a link
    if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        yield
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder under a temporary name to write into; at the end its files are flushed and it is renamed.

    An existing folder of that name is replaced. If the body raises, nothing is left behind.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        publish(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish(partial: Path, path: Path) -> None:
    """Flush the files of a folder beside `path` and give it that name; a folder of that name is replaced."""
    for file in partial.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    for inner in [*(p for p in partial.rglob("*") if p.is_dir()), partial]:
        sync_folder(inner)
    # Between the two renames there is neither; the new one is complete before the old one goes.
    doomed = _set_aside(path) if path.exists() else None
    partial.rename(path)
    sync_folder(path.parent)
    if doomed:
        shutil.rmtree(doomed)


def lock(folder: Path, *, wait: bool, name: str = LOCK) -> IO[bytes]:
    """Hold `folder` for this process until the file returned is closed, or the process ends.

    Args:
        name: of the file that says so; another one for less than the folder.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
    """
    file = (folder / name).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never seen half removed."""
    shutil.rmtree(_set_aside(path))


def _set_aside(path: Path) -> Path:
    doomed = path.with_name(f".{path.name}{_PARTIAL}{os.getpid()}-removed")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    return doomed


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half written in `folder`."""
    for leftover in folder.glob(f".*{_PARTIAL}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an earlier one in one moment."""
    partial = link.with_name(f".{link.name}{_PARTIAL}{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)
    sync_folder(link.parent)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
