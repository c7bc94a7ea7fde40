"""Aligned lines of text: plain, gzip or tab-separated.

A line ends at the byte ``\\n`` and nowhere else: U+2028, U+0085, form feeds and the other characters
at which `str.splitlines` cuts are ordinary text here, so N lines stay N lines whatever they hold.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from nmt.errors import UserError, counted

Pairs = list[tuple[str, str]]  # of lines, source and target

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
STANDARD_INPUT = "-"
TSV_SUFFIXES = (".tsv", ".tsv.gz")


def decode_line(raw: bytes, *, file: str | Path, line: int) -> str:
    """The text of one line.

    Args:
        raw: the bytes of the line without its newline. One trailing carriage return is taken off, and
            on line 1 a byte order mark.
        file: named in the error.
        line: 1-based.

    Raises:
        UserError: the bytes are not UTF-8; names the first bad byte, counted from 1 in the line.
    """
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if line == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            message = "this is UTF-16, not UTF-8; convert it with `iconv -f UTF-16 -t UTF-8`"
        elif line == 1 and raw.startswith(GZIP_MAGIC):
            message = "this is gzip data, not text; unpack it first, for example with `gzip -dc`"
        else:
            message = (
                f"byte {error.start + 1} is not valid UTF-8; "
                "re-save the file as UTF-8 or convert it with iconv"
            )
        raise UserError(message, file=file, line=line) from None
    return text[1:] if line == 1 and text.startswith("\ufeff") else text


def display_name(path: str | Path) -> str:
    """How errors name `path`: itself, or `<stdin>` for ``-``."""
    return "<stdin>" if str(path) == STANDARD_INPUT else str(path)


def open_bytes(path: str | Path) -> BinaryIO:
    """Open `path` for reading, unpacking gzip.

    What a file is, its first bytes decide; named ``.gz`` without being gzip, it is refused. ``-`` is
    standard input, read as it is: leave that one open.

    Raises:
        UserError: missing, a folder, not permitted, or named ``.gz`` but not gzip.
    """
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise UserError("standard input is closed; name a file")
        return sys.stdin.buffer
    path = Path(path)
    try:
        stream = path.open("rb")
    except (OSError, ValueError) as error:
        _refuse(path, error)
    try:
        # A peek, so that pipes such as <(gzip -dc ...) lose nothing.
        packed = stream.peek(2)[:2] == GZIP_MAGIC
    except OSError as error:
        stream.close()
        _refuse(path, error)
    if packed:
        return cast(BinaryIO, _GzipStream(stream))
    if path.suffix == ".gz":
        stream.close()
        raise UserError("named .gz but not gzip data; fetch it again, or rename it without .gz", file=path)
    return stream


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a file, lazily and without their line ends; ``-`` reads standard input.

    An empty file has no lines. The last line may lack its newline.

    Raises:
        UserError: the file cannot be read, is a damaged gzip file, or is not UTF-8.
    """
    name = display_name(path)
    for number, raw in enumerate(read_raw_lines(path), start=1):
        yield decode_line(raw, file=name, line=number)


def read_raw_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file as bytes, without the newline but with any carriage return.

    Raises:
        UserError: the file cannot be read or is a damaged gzip file.
    """
    number = 0
    with reading(path, lambda: number) as stream:
        for raw in stream:
            number += 1
            if number == 1 and raw == BYTE_ORDER_MARK:
                return  # nothing but a byte order mark: an empty file
            yield raw[:-1] if raw.endswith(b"\n") else raw


@contextlib.contextmanager
def reading(path: str | Path, lines_read: Callable[[], int]) -> Iterator[BinaryIO]:
    """`open_bytes` for the body, whose errors in reading become those of users.

    `lines_read` says how far it is.

    Raises:
        UserError: the file cannot be read or is a damaged gzip file.
    """
    stream = open_bytes(path)
    try:
        yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(
            f"the gzip data is cut short or damaged after line {lines_read()}; "
            "fetch or compress the file again",
            file=display_name(path),
        ) from None
    except OSError as error:
        _refuse(display_name(path), error)
    finally:
        if str(path) != STANDARD_INPUT:
            stream.close()


def is_tsv(prefix: str | Path) -> bool:
    """Whether `prefix` names one tab-separated file in place of two sides."""
    return str(prefix).endswith(TSV_SUFFIXES)


def find_side(prefix: str | Path, language: str) -> Path:
    """The file of one side of a corpus: ``PREFIX.language``, else ``PREFIX.language.gz``.

    Raises:
        UserError: neither exists; lists what exists under that prefix with another suffix.
    """
    plain = Path(f"{prefix}.{language}")
    packed = Path(f"{prefix}.{language}.gz")
    for candidate in (plain, packed):
        if _exists(candidate):
            return candidate
    stem = Path(prefix)
    try:
        entries = sorted(entry.name for entry in stem.parent.iterdir())
    except OSError:
        raise UserError(
            f"neither {plain.name} nor {packed.name}: there is no readable folder {stem.parent}; "
            "check the path",
            file=prefix,
        ) from None
    others = [name for name in entries if name.startswith(f"{stem.name}.")]
    message = f"neither {plain.name} nor {packed.name} exists in {stem.parent}; "
    if stem.name in entries and (stem.suffix == f".{language}" or not others):
        message += "a prefix is wanted: the path without the dot and the language"
    elif any(name.endswith(TSV_SUFFIXES) for name in others):
        message += f"found {_listing(others)}: name a .tsv file in full"
    elif others:
        message += f"found {_listing(others)}: check the language codes"
    else:
        message += "check the path"
    raise UserError(message, file=prefix)


def read_parallel(
    prefix: str | Path, source_language: str, target_language: str
) -> Iterator[tuple[str, str]]:
    """Pairs of lines of a corpus, lazily.

    Args:
        prefix: ``PREFIX.source_language`` and ``PREFIX.target_language`` are read, plain or ``.gz``; or
            a ``.tsv`` or ``.tsv.gz`` file whose lines are source, one tab, target.
        source_language: suffix of the source side.
        target_language: suffix of the target side.

    Raises:
        UserError: as `read_lines`; an empty file; a line of a ``.tsv`` without exactly one tab; sides of
            unequal length, found when the shorter one ends, so use no pair before the last one came.
    """
    if is_tsv(prefix):
        return _read_tsv(Path(prefix))
    return read_parallel_files(find_side(prefix, source_language), find_side(prefix, target_language))


def read_parallel_files(source: str | Path, target: str | Path) -> Iterator[tuple[str, str]]:
    """Pairs of lines of two files, lazily.

    Raises:
        UserError: as `read_parallel`.
    """
    if str(source) == str(target) == STANDARD_INPUT:
        raise UserError("source and target cannot both be standard input; give a file for one of them")
    return _zip_lines(source, target)


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's bytes as they lie on disk, in lower-case hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        _refuse(path, error)


def unequal_counts(source: str | Path, source_count: int, target: str | Path, target_count: int) -> UserError:
    """The error for two sides of unequal length, with the place where they part if it can be told."""
    if source_count == 0 or target_count == 0:
        empty, other = (source, target) if source_count == 0 else (target, source)
        count = max(source_count, target_count)
        beside = f" beside {counted(count, 'line')} in {display_name(other)}" if count else ""
        return UserError(f"the file is empty{beside}; give a file with text", file=display_name(empty))
    place = first_shifted_line(source, target)
    where = "" if place is None else f", and the texts look shifted from about line {place} on"
    return UserError(
        f"{counted(source_count, 'line')}, but {display_name(target)} has {target_count}{where}; "
        "put the missing line back or remove the extra one",
        file=display_name(source),
        line=place,
    )


def first_shifted_line(source: str | Path, target: str | Path) -> int | None:
    """The first line from which two files fit better shifted against each other than as they stand, from 1;
    None where nothing looks shifted, nothing can be told, or they are no regular files.

    See `nmt.data.shifted`.
    """
    from nmt.data.shifted import first_shifted

    if not (_is_regular(source) and _is_regular(target)):
        return None
    return first_shifted(read_raw_lines(source), read_raw_lines(target))


class _GzipStream(gzip.GzipFile):
    """A GzipFile that closes the file beneath it."""

    def __init__(self, beneath: BinaryIO):
        self._beneath = beneath
        super().__init__(fileobj=beneath, mode="rb")

    def close(self) -> None:
        super().close()
        self._beneath.close()


def _zip_lines(source: str | Path, target: str | Path) -> Iterator[tuple[str, str]]:
    source_lines, target_lines = read_lines(source), read_lines(target)
    count = 0
    for source_line in source_lines:
        target_line = next(target_lines, None)
        if target_line is None:
            raise unequal_counts(source, count + 1 + sum(1 for _ in source_lines), target, count)
        count += 1
        yield source_line, target_line
    target_count = count + sum(1 for _ in target_lines)
    if count == 0 or target_count != count:
        raise unequal_counts(source, count, target, target_count)


def _read_tsv(path: Path) -> Iterator[tuple[str, str]]:
    number = 0
    for number, line in enumerate(read_lines(path), start=1):
        yield split_tsv(line, file=path, line=number)
    if number == 0:
        raise UserError("the file is empty; give a file with text", file=path)


def split_tsv(text: str, *, file: str | Path, line: int) -> tuple[str, str]:
    """Source and target of a line of a ``.tsv`` file.

    Raises:
        UserError: not exactly one tab.
    """
    tabs = text.count("\t")
    if tabs != 1:
        raise UserError(
            f"{tabs} tabs where one parts source from target; keep two columns, and no tab within a text",
            file=file,
            line=line,
        )
    source, _, target = text.partition("\t")
    return source, target


def _refuse(path: str | Path, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        message = "no such file; check the path"
    elif isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and Path(path).is_dir()):
        message = "this is a folder, not a file; give the file itself"
    elif isinstance(error, PermissionError):
        message = "reading it is not permitted; check the file's permissions"
    else:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"it cannot be read ({reason}); check the path and the disk"
    raise UserError(message, file=path) from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_regular(path: str | Path) -> bool:
    try:
        return str(path) != STANDARD_INPUT and Path(path).is_file()
    except (OSError, ValueError):
        return False


def _listing(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
