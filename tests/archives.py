"""Archives for tests, honest and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    """An archive of the kind that its name says, `members` in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as folder:
            for name, content in members.items():
                folder.writestr(name, content)
    elif path.name.endswith((".tar", ".tgz", ".tar.gz")):
        pack_tar(path, [(entry(name, len(content)), content) for name, content in members.items()])
    else:
        path.write_bytes(gzip.compress(b"".join(members.values())))
    return path


def pack_tar(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A tar of these entries, gzipped unless it is called ``.tar``."""
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, size: int = 0, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, type, link
    return info
