"""Where a mirror may have a file of a corpus, and text that it has packed.

A mirror is a folder or an http or https URL. It may hold the files of several corpora, each in the folder
that the registry names (`folder`), or those of one without folders; a folder may also have it one level
below, as in multi30k/raw; and plain text as NAME.gz. What is checked is always the file as the registry
has it.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from nmt.data.registry import CorpusFile
from nmt.errors import UserError

CHUNK_BYTES = 1 << 16
GZIP_SUFFIX = ".gz"


def places(file: CorpusFile, mirror: str | Path) -> list[str | Path]:
    """Paths or URLs at which a mirror may have a file, the likeliest first.

    Raises:
        UserError: the mirror is no folder, or a URL of another kind.
    """
    names = [file.name] if file.name.endswith(GZIP_SUFFIX) else [file.name, file.name + GZIP_SUFFIX]
    if "://" not in str(mirror):
        folder = Path(mirror)
        if not folder.is_dir():
            raise UserError("the mirror is no folder; give a folder or an http or https URL", file=folder)
        return [place / name for place in _folders(folder, file.folder) for name in names]
    if not str(mirror).startswith(("http://", "https://")):
        raise UserError(f"the mirror {mirror} is neither http nor https; give such a URL or a folder")
    root = str(mirror).rstrip("/")
    folders = [f"{root}/{file.folder}", root] if file.folder else [root]
    return [f"{folder}/{name}" for folder in folders for name in names]


def _folders(mirror: Path, own: str | None) -> list[Path]:
    if own is None:
        return [mirror]
    if (mirror / own).is_dir():
        return [mirror / own]
    return [mirror, *sorted(path for path in mirror.glob(f"*/{own}") if path.is_dir())]


def is_packed(place: str | Path, file: CorpusFile) -> bool:
    """Whether a place has the file as NAME.gz."""
    return str(place).endswith(file.name + GZIP_SUFFIX)


def gunzip(packed: Path, sink: BinaryIO, *, limit: int | None, origin: str | Path) -> None:
    """Write what gzip data holds.

    Args:
        limit: the most bytes that may come out; no limit if None.
        origin: named in errors.

    Raises:
        UserError: it is not gzip data, is damaged, or holds more than `limit`.
    """
    written = 0
    try:
        with gzip.open(packed, "rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                written += len(chunk)
                if limit is not None and written > limit:
                    raise UserError(
                        f"holds more than the {limit:,} bytes expected; get the file again", file=origin
                    )
                sink.write(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"is no whole gzip file ({error}); get the file again", file=origin) from None
