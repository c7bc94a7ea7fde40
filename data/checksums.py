"""Checksums of what the registry does not pin: recorded the first time, and held to from then on.

They stand in ``checksums.toml`` in the corpus's folder. A sha256 in the registry counts more.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from nmt.data.registry import SHA256
from nmt.errors import UserError
from nmt.files import write_file

NAME = "checksums.toml"
_HEAD = """\
# SHA-256 of what `nmt data get` found the first time, to which it holds every later copy. A sha256 in the
# registry counts more. Where another version of a file is wanted, take its line out.
"""


@dataclass
class Checksums:
    """What is recorded of a folder.

    Attributes:
        files: name of a file that was fetched -> its sha256.
        texts: name of a text out of an archive -> its sha256, and what it was made from.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Checksums:
        """What is recorded, nothing at first.

        Raises:
            UserError: it is not what `write` wrote.
        """
        path = folder / NAME
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            files = dict(document.get("files", {}))
            texts = {name: (one["sha256"], one["from"]) for name, one in document.get("texts", {}).items()}
            sums = [*files.values(), *(sha256 for sha256, _ in texts.values())]
            if not all(isinstance(one, str) and SHA256.fullmatch(one) for one in sums):
                raise ValueError("a checksum is not 64 lower-case hex digits")
        except FileNotFoundError:
            return cls(folder)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"it is not as it was written ({error}); move it away", file=path) from None
        return cls(folder, files, texts)

    def write(self) -> None:
        """Replace the file."""
        lines = [_HEAD, "[files]"]
        lines += [f"{json.dumps(name)} = {json.dumps(one)}" for name, one in sorted(self.files.items())]
        for name, (sha256, made_from) in sorted(self.texts.items()):
            lines += [f"\n[texts.{json.dumps(name)}]", f"sha256 = {json.dumps(sha256)}"]
            lines += [f"from = {json.dumps(made_from)}"]
        write_file(self.folder / NAME, "\n".join(lines) + "\n")
