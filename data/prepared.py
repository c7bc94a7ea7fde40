"""A prepared folder: tokenizers, token files and what preparation says of them; checked when opened.

It holds `tokenizer.model` (or `tokenizer.source.model` and `tokenizer.target.model`), for each side
`train.SIDE.tokens` (ids, one after another) and `train.SIDE.offsets` (where each sentence begins, and the
end), and `manifest.json` with the size and fingerprint of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nmt.data.sums import fingerprint
from nmt.data.tokenizer import Tokenizer
from nmt.data.tokens import Ids, Tokens
from nmt.errors import UserError

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class TrainingData:
    """What preparation gives to training. Token ids are without beginning and end of sentence."""

    folder: Path
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source: Tokens
    target: Tokens
    manifest: dict[str, Any]  # lines read and kept, the table of what was dropped, sha256 of the files
    sizes: tuple[int, ...]  # pairs of each corpus; their rows follow one another
    tags: tuple[int | None, ...]  # the id that begins each source sentence of a corpus, if one does
    # Where the corpora have word links, those of tokens: source, target, source, ..., of each pair.
    links: Tokens | None = None

    @cached_property
    def longest_source(self) -> int:
        """Tokens of the longest source sentence."""
        return int(self.source.lengths().max(initial=0))


def load_prepared(folder: Path) -> TrainingData:
    """Open a prepared folder. Its token files are mapped, not read.

    Raises:
        UserError: a file is missing, cut short, of another preparation, or not what was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, sizes, tags = manifest["files"], manifest["pairs"], manifest["tags"]
        for name, entry in files.items():
            _check(folder / name, **entry)
        source, target = load_tokenizers(folder)
        data = TrainingData(
            folder,
            source,
            target,
            Tokens.mapped(folder / "train.source", manifest["dtype"]),
            Tokens.mapped(folder / "train.target", manifest["dtype"]),
            manifest,
            tuple(sizes),
            tuple(source.id_of(tag) if tag else None for tag in tags),
            Tokens.mapped(folder / "train.links", manifest["links_dtype"]) if "links" in manifest else None,
        )
        if data.links is not None and len(data.links) != len(data.source):
            raise _damaged("its links are not of one length with its text", folder)
        if not len(data.source) == len(data.target) == sum(sizes) == manifest["kept"]:
            raise _damaged("its two sides are not of one length", folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(f"{MANIFEST} is damaged", folder) from None
    except OSError as error:
        raise _damaged(
            f"{Path(error.filename or MANIFEST).name} cannot be read ({error.strerror})", folder
        ) from None
    return data


def check_ids(folder: Path, side: str, ids: Ids, tokenizer: Tokenizer) -> None:
    """UserError where ids are beyond the vocabulary: damage that size and fingerprint need not tell."""
    if ids.size and ids.max() >= len(tokenizer):
        raise _damaged(
            f"train.{side}.tokens has id {ids.max():,}, and the vocabulary {len(tokenizer):,} entries", folder
        )


def load_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Source and target tokenizer of a prepared folder or a model folder; the same object if shared."""
    if (folder / "tokenizer.model").exists():
        shared = Tokenizer.load(folder / "tokenizer.model")
        return shared, shared
    return (
        Tokenizer.load(folder / "tokenizer.source.model"),
        Tokenizer.load(folder / "tokenizer.target.model"),
    )


def tokenizer_files(source: Tokenizer, target: Tokenizer) -> dict[str, bytes]:
    """File names and contents under which `load_tokenizers` finds these tokenizers."""
    if source is target:
        return {"tokenizer.model": source.model}
    return {"tokenizer.source.model": source.model, "tokenizer.target.model": target.model}


def describe(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the manifest says of files, for `load_prepared` to check."""
    return {
        name: {"size": (folder / name).stat().st_size, "fingerprint": fingerprint(folder / name)}
        for name in sorted(names)
    }


def _check(file: Path, *, size: int, fingerprint: str) -> None:
    found = file.stat().st_size
    if found != size:
        raise _damaged(f"{file.name} has {found:,} bytes where {size:,} were written", file.parent)
    if _fingerprint(file) != fingerprint:
        what = (
            "tokenizer is not the one it was prepared with" if "tokenizer" in file.name else "content changed"
        )
        raise _damaged(f"{file.name}: the {what}", file.parent)


_fingerprint = fingerprint


def _damaged(what: str, folder: Path) -> UserError:
    return UserError(
        f"the prepared corpus is damaged: {what}; delete this folder, it is made again", file=folder
    )
