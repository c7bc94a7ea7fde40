"""Text files out of a fetched archive: each member's lines, plain or gzipped, as many in all of a split."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from nmt.data.corpus import reading, sha256_of
from nmt.data.markup import Text
from nmt.data.registry import CorpusFile, Member
from nmt.data.unpack import Reader, read_members
from nmt.errors import UserError, counted

SHOW_LINES = 1 << 16

# Called with a file's name and the bytes of text written so far.
Progress = Callable[[str, int], None]


def made_from(member: Member, archive_sha256: str) -> str:
    """All that a text file depends on."""
    return f"{archive_sha256} {member.format} {member.path}"


def extract(
    archive: Path,
    texts: Sequence[CorpusFile],
    folder: Path,
    *,
    beside: Sequence[CorpusFile] = (),
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Write texts of one archive into a folder, all of them or none.

    Args:
        archive: where it lies.
        texts: its members that are wanted; those of one split have as many lines.
        folder: where the files go, under their names.
        beside: texts that are there already, other sides of the same splits.
        progress: see `Progress`.
        note: called with what is worth telling.

    Returns:
        The sha256 of each file by its name.

    Raises:
        UserError: the archive or a member is not as it should be; sides of a split differ in length.
    """
    by_path = {text.member.path: text for text in texts if text.member is not None}
    counts: dict[str, int] = {}
    parts = {text.name: folder / f"{text.name}.part" for text in texts}
    try:
        for path, reader in read_members(archive, by_path):
            counts[by_path[path].name] = _write(
                by_path[path], reader, archive, parts[by_path[path].name], progress, note
            )
        counts |= count_lines(beside, folder)
        check_counts([*beside, *texts], counts, archive)
        for text in texts:
            parts[text.name].replace(folder / text.name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return {text.name: sha256_of(folder / text.name) for text in texts}


def check_counts(texts: Sequence[CorpusFile], counts: dict[str, int], place: Path) -> None:
    """Sides of a split have as many lines, and some.

    Raises:
        UserError: they have not.
    """
    first: dict[str, CorpusFile] = {}
    for text in texts:
        other = first.setdefault(text.split, text)
        if not counts[text.name]:
            raise UserError(f"{_shown(text)} has no lines; fetch it again", file=place)
        if counts[text.name] != counts[other.name]:
            raise UserError(
                f"{_shown(text)} has {counted(counts[text.name], 'line')} and "
                f"{_shown(other)} {counts[other.name]:,}, "
                "though they are translations line by line; fetch it again, or from another place",
                file=place,
            )


def check_plain(texts: Sequence[CorpusFile], folder: Path) -> None:
    """The same of files that are text as they were fetched.

    Raises:
        UserError: a file is no text, or sides of a split differ in length.
    """
    check_counts(texts, count_lines(texts, folder), folder)


def count_lines(texts: Sequence[CorpusFile], folder: Path) -> dict[str, int]:
    """The number of lines of each text in a folder, by its name.

    Raises:
        UserError: a file is no text.
    """
    counts = {}
    for text in texts:
        with reading(folder / text.name, lambda: 0) as stream:
            counts[text.name] = sum(1 for _ in Text(stream, "plain", str(folder / text.name)))
    return counts


def _shown(text: CorpusFile) -> str:
    return text.name if text.member is None else text.member.path


def _write(
    text: CorpusFile,
    reader: Reader,
    archive: Path,
    part: Path,
    progress: Progress | None,
    note: Callable[[str], None] | None,
) -> int:
    """Write one text; the number of its lines."""
    assert text.member is not None
    lines = Text(reader, text.member.format, f"{archive}/{text.member.path}")
    count = size = 0
    with ExitStack() as stack:
        sink: IO[bytes] = stack.enter_context(part.open("wb"))
        out = sink
        if text.name.endswith(".gz"):
            # No name and no time inside: the same text is the same file.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=6, mtime=0)
            out = stack.enter_context(cast("IO[bytes]", packed))
        for line in lines:
            size += out.write(f"{line}\n".encode())
            count += 1
            if progress is not None and not count % SHOW_LINES:
                progress(text.name, size)
        if out is not sink:
            out.close()
        sink.flush()
        os.fsync(sink.fileno())
    if progress is not None:
        progress(text.name, size)
    if lines.repaired and note is not None:
        note(f"{text.name}: {lines.repaired:,} of {count:,} lines had bytes that are not UTF-8, now U+FFFD")
    return count
