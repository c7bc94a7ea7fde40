"""The public corpora that `nmt data get` knows: one TOML file each, beside this module or your own.

Keys of such a file: ``name``, ``description``, ``homepage``, ``licence``, ``languages``, ``base_url`` and
one ``[[files]]`` table a file with ``name``, ``split``, ``language``, ``sha256`` and, where wanted,
``bytes`` and a ``url`` of its own in place of ``base_url`` + ``name``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from nmt.errors import UserError

# A name is one plain path component: nothing in a registry writes outside its folder.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CorpusFile:
    """One file to fetch. `bytes` is its size, if stated."""

    name: str
    url: str
    sha256: str
    split: str
    language: str
    bytes: int | None = None


@dataclass(frozen=True)
class Corpus:
    """A public corpus."""

    name: str
    description: str
    homepage: str
    licence: str
    languages: tuple[str, ...]
    files: tuple[CorpusFile, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, in the order of the files."""
        return tuple(dict.fromkeys(file.split for file in self.files))


def corpus_names() -> list[str]:
    """The names of the corpora that come with nmt, sorted."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml")
    )


def load_corpus(name: str | Path) -> Corpus:
    """The corpus of this name, or the one described by a TOML file.

    Args:
        name: one of `corpus_names`, or the path of a file ending in ``.toml``.

    Raises:
        UserError: no such corpus, or its description is wrong.
    """
    if str(name).endswith(".toml"):
        path = Path(name)
        try:
            return parse_corpus(path.read_text(encoding="utf-8"), file=path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"it cannot be read ({error}); check the path", file=path) from None
    known = corpus_names()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`nmt data list` shows them"
        raise UserError(f"no corpus is called {name} (known: {', '.join(known)}); {hint}")
    text = (_folder() / f"{name}.toml").read_text(encoding="utf-8")
    return parse_corpus(text, file=f"{name}.toml")


def load_corpora() -> list[Corpus]:
    """Every corpus that comes with nmt, by name."""
    return [load_corpus(name) for name in corpus_names()]


def parse_corpus(text: str, *, file: str | Path) -> Corpus:
    """The corpus that a TOML text describes.

    Args:
        text: the TOML.
        file: named in errors.

    Raises:
        UserError: not TOML, a key missing, unknown or of the wrong type, or a value that cannot be.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not valid TOML: {error}; correct it", file=file) from None
    table = _Table(document, "the corpus", file)
    name = table.take("name", str)
    table.must(bool(PLAIN_NAME.fullmatch(name)), f"name {name!r} is not a plain name")
    languages = table.take("languages", list)
    table.must(
        bool(languages) and all(isinstance(language, str) and language for language in languages),
        "languages must be a list of codes",
    )
    base_url = table.take("base_url", str, default="")
    files = []
    for number, entry in enumerate(table.take("files", list), start=1):
        table.must(isinstance(entry, dict), "files must be [[files]] tables")
        files.append(_parse_file(_Table(entry, f"file {number}", file), base_url, languages))
    table.must(bool(files), "there are no [[files]]")
    names = [entry.name for entry in files]
    table.must(len(set(names)) == len(names), "two [[files]] have the same name")
    corpus = Corpus(
        name=name,
        description=table.take("description", str),
        homepage=table.take("homepage", str),
        licence=table.take("licence", str),
        languages=tuple(languages),
        files=tuple(files),
    )
    table.finish()
    return corpus


def _parse_file(table: _Table, base_url: str, languages: list[str]) -> CorpusFile:
    name = table.take("name", str)
    table.must(bool(PLAIN_NAME.fullmatch(name)), f"name {name!r} is not a plain file name")
    url = table.take("url", str, default="") or urljoin(base_url, name)
    table.must(url.startswith(("https://", "http://")), f"{name} has no url and the corpus no base_url")
    sha256 = table.take("sha256", str)
    table.must(bool(SHA256.fullmatch(sha256)), f"the sha256 of {name} is not 64 lower-case hex digits")
    language = table.take("language", str)
    table.must(
        language in languages, f"the language {language} of {name} is not among the corpus's languages"
    )
    size = table.take("bytes", int, default=None)
    parsed = CorpusFile(name, url, sha256, table.take("split", str), language, size)
    table.finish()
    return parsed


class _Table:
    """A TOML table whose keys are taken out one by one, so that what is left over is unknown."""

    def __init__(self, entries: Mapping[str, Any], what: str, file: str | Path):
        self._left = dict(entries)
        self._what = what
        self._file = file

    def take(self, key: str, kind: type, **default: Any) -> Any:
        if key not in self._left:
            self.must("default" in default, f"{key} is missing")
            return default["default"]
        value = self._left.pop(key)
        # TOML's true is an int to Python.
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        self.must(fits, f"{key} is not of type {kind.__name__}")
        return value

    def must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise UserError(f"{self._what}: {otherwise}; correct the description", file=self._file)

    def finish(self) -> None:
        self.must(not self._left, f"unknown key {', '.join(self._left)}")


def _folder() -> Any:
    return resources.files("nmt.data") / "corpora"
