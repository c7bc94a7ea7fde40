"""Members of an archive as streams of bytes: what is asked for by name, and nothing else.

Nothing is written here, so no name in an archive decides where anything goes; a member that is not a plain
file, or that grows as no honest text does, is refused.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from nmt.errors import UserError

TAR_SUFFIXES = (".tgz", ".tar.gz", ".tar")
SUFFIXES = (*TAR_SUFFIXES, ".zip", ".gz")
CHUNK_BYTES = 1 << 18
# Text is packed 3 to 20 times; a bomb a thousand times.
MOST_RATIO = 200
SLACK_BYTES = 64 << 20

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, OSError)
_REFUSED = (NotImplementedError, RuntimeError)  # a way of packing that Python does not know; a password


class Source(Protocol):
    """Bytes, in pieces."""

    def read(self, size: int = ..., /) -> bytes: ...


class Reader:
    """The bytes of a member, as many as an honest one of its packed size has.

    Args:
        stream: the bytes.
        limit: of them.
        archive: named in errors.
    """

    def __init__(self, stream: Source, limit: int, archive: Path):
        self._stream = stream
        self._left = limit
        self._archive = archive

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """At most so many bytes; none at the end.

        Raises:
            UserError: the archive is damaged, or holds more than it may.
        """
        with _damage(self._archive):
            # Not more than a chunk, so that a size that an archive states costs no memory.
            chunk = self._stream.read(min(size, CHUNK_BYTES))
        self._left -= len(chunk)
        if self._left < 0:
            raise UserError(
                f"it unpacks to more than {MOST_RATIO} times its size, as no text does; "
                "do not use it, fetch it from a place you trust",
                file=self._archive,
            )
        return chunk


def read_members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, Reader]]:
    """The members of these names, in the archive's order, each to be read before the next is asked for.

    Args:
        archive: ``.tgz``, ``.tar.gz``, ``.tar``, ``.zip``, or ``.gz`` of one file.
        wanted: paths inside the archive. A member whose name ends in ``.gz`` is unpacked as well; of a
            ``.gz`` the only member has the archive's name without that.

    Raises:
        UserError: a member is missing, there twice, or no plain file; the archive is damaged, locked, or
            unpacks to more than text does.
    """
    missing = dict.fromkeys(wanted)
    for name, reader in _members(archive, missing):
        if name not in missing:
            raise UserError(f"it holds {name} twice; fetch it again", file=archive)
        del missing[name]
        yield name, reader
    if missing:
        raise UserError(
            f"it does not hold {', '.join(missing)}; is it the right archive? fetch it again", file=archive
        )


def _members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, Reader]]:
    names = frozenset(wanted)
    if archive.name.endswith(TAR_SUFFIXES):
        yield from _tar_members(archive, names)
    elif archive.name.endswith(".zip"):
        yield from _zip_members(archive, names)
    elif archive.name.endswith(".gz"):
        yield from _gzip_member(archive, names)
    else:
        raise UserError(f"its name ends in none of {', '.join(SUFFIXES)}; is it an archive?", file=archive)


def _tar_members(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, Reader]]:
    with _opened(archive) as packed:
        limit = _limit(archive.stat().st_size)
        unpacked: Source = packed if archive.name.endswith(".tar") else gzip.GzipFile(fileobj=packed)
        whole = Reader(unpacked, limit, archive)
        with _damage(archive):
            tar = tarfile.open(fileobj=whole, mode="r|")  # type: ignore[call-overload]  # noqa: SIM115
        with tar:
            while True:
                with _damage(archive):
                    entry = tar.next()
                if entry is None:
                    break
                tar.members.clear()  # it would remember each one
                name = _plain(entry.name)
                if name not in names:
                    continue
                # A sparse file states a size that it has no bytes for.
                if not entry.isreg() or entry.issparse():
                    raise _no_file(name, archive)
                stream = tar.extractfile(entry)
                assert stream is not None
                yield name, _inner(name, stream, entry.size, archive)
        while whole.read():  # to the end, where the checksum of gzip is
            pass


def _zip_members(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, Reader]]:
    with _opened(archive) as packed:
        with _damage(archive):
            folder = zipfile.ZipFile(packed)
        with folder:
            for entry in folder.infolist():
                name = _plain(entry.filename)
                if name not in names:
                    continue
                mode = entry.external_attr >> 16
                if entry.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                    raise _no_file(name, archive)
                with _damage(archive):
                    stream = folder.open(entry)
                with stream:
                    bounded = Reader(stream, _limit(entry.compress_size), archive)
                    yield name, _inner(name, bounded, entry.compress_size, archive)


def _gzip_member(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, Reader]]:
    name = archive.name.removesuffix(".gz")
    if name in names:
        if not archive.stat().st_size:  # to Python, gzip data of nothing
            raise UserError("the file is empty; fetch it again", file=archive)
        with _opened(archive) as packed:
            stream = gzip.GzipFile(fileobj=packed)
            yield name, Reader(stream, _limit(archive.stat().st_size), archive)


def _inner(name: str, stream: Source, size: int, archive: Path) -> Reader:
    """Of a member that is itself packed, what is in it."""
    if name.endswith(".gz"):
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[call-overload]
    elif isinstance(stream, Reader):
        return stream
    return Reader(stream, _limit(size), archive)


def _limit(packed: int) -> int:
    return MOST_RATIO * packed + SLACK_BYTES


def _plain(name: str) -> str:
    """``./training/x`` is ``training/x``. Others, such as ``../x`` and ``/x``, stay what nobody asks for."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _no_file(name: str, archive: Path) -> UserError:
    return UserError(f"{name} in it is a link, a folder or a device, no file; fetch it again", file=archive)


def _opened(archive: Path) -> IO[bytes]:
    with _damage(archive):
        return archive.open("rb")


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """What reading raises, as an error for users."""
    try:
        yield
    except (*_DAMAGE, *_REFUSED) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"it cannot be unpacked ({reason}); is it the right file? fetch it again", file=archive
        ) from None
