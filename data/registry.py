"""The public corpora that `nmt data get` knows: one TOML file each, beside this module or your own.

Keys of such a file: ``name``, ``description``, ``homepage``, ``licence``, ``languages``, ``base_url`` and
one ``[[files]]`` table a file with ``name``, ``split``, ``language``, ``sha256`` and, where wanted,
``bytes`` and a ``url`` of its own in place of ``base_url`` + ``name``. A ``sha256`` that is not known yet may
be left out (`nmt.data.checksums`). Text inside an archive has ``archive``, ``member`` and ``format``
(`nmt.data.markup`) in place of ``sha256``, ``bytes`` and ``url``, which stand in an ``[[archives]]`` table
with the archive's ``name``; such text is written gzipped if its own ``name`` ends in ``.gz``. ``folder``,
where wanted, is where a mirror of several corpora has this one's files (`nmt.data.mirror`).
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

from nmt.data.markup import FORMATS
from nmt.data.unpack import SUFFIXES
from nmt.errors import UserError

# A name is one plain path component: nothing in a registry writes outside its folder.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """Where in an archive a text is, and which of `nmt.data.markup.FORMATS` it has."""

    archive: str
    path: str
    format: str


@dataclass(frozen=True)
class CorpusFile:
    """One file to fetch, or to make of a member of an archive.

    `sha256` is None where it is not known yet, `bytes` its size, if stated. An archive has no split and no
    language, the text in it no url.
    """

    name: str
    url: str
    sha256: str | None
    split: str
    language: str
    bytes: int | None = None
    folder: str | None = None  # of a mirror
    member: Member | None = None


@dataclass(frozen=True)
class Corpus:
    """A public corpus."""

    name: str
    description: str
    homepage: str
    licence: str
    languages: tuple[str, ...]
    files: tuple[CorpusFile, ...]
    archives: tuple[CorpusFile, ...] = ()

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
    folder = table.take("folder", str, default=None)
    table.must(folder is None or bool(PLAIN_NAME.fullmatch(folder)), f"folder {folder!r} is not a plain name")
    archives = []
    for number, entry in enumerate(table.take("archives", list, default=[]), start=1):
        table.must(isinstance(entry, dict), "archives must be [[archives]] tables")
        archives.append(_parse_archive(_Table(entry, f"archive {number}", file), base_url, folder))
    known = [archive.name for archive in archives]
    files = []
    for number, entry in enumerate(table.take("files", list), start=1):
        table.must(isinstance(entry, dict), "files must be [[files]] tables")
        entry_table = _Table(entry, f"file {number}", file)
        if "archive" in entry:
            files.append(_parse_text(entry_table, known, languages))
        else:
            files.append(_parse_file(entry_table, base_url, folder, languages))
    table.must(bool(files), "there are no [[files]]")
    names = [entry.name for entry in (*files, *archives)]
    table.must(len(set(names)) == len(names), "two [[files]] have the same name")
    members = [entry.member for entry in files if entry.member is not None]
    places = {(member.archive, member.path) for member in members}
    table.must(len(places) == len(members), "two [[files]] are the same member")
    unused = set(known) - {member.archive for member in members}
    table.must(not unused, f"no text is taken from {', '.join(sorted(unused))}")
    corpus = Corpus(
        name=name,
        description=table.take("description", str),
        homepage=table.take("homepage", str),
        licence=table.take("licence", str),
        languages=tuple(languages),
        files=tuple(files),
        archives=tuple(archives),
    )
    table.finish()
    return corpus


def _parse_file(table: _Table, base_url: str, folder: str | None, languages: list[str]) -> CorpusFile:
    name = _parse_name(table)
    url, sha256, size = _parse_place(table, name, base_url)
    language = _parse_language(table, name, languages)
    parsed = CorpusFile(name, url, sha256, table.take("split", str), language, size, folder)
    table.finish()
    return parsed


def _parse_archive(table: _Table, base_url: str, folder: str | None) -> CorpusFile:
    name = _parse_name(table)
    table.must(name.endswith(SUFFIXES), f"the name {name} ends in none of {', '.join(SUFFIXES)}")
    url, sha256, size = _parse_place(table, name, base_url)
    table.finish()
    return CorpusFile(name, url, sha256, "", "", size, folder)


def _parse_text(table: _Table, archives: list[str], languages: list[str]) -> CorpusFile:
    name = _parse_name(table)
    archive, path = table.take("archive", str), table.take("member", str)
    table.must(archive in archives, f"{name} is in {archive}, which is none of the [[archives]]")
    plain = not path.startswith("/") and all(part not in ("", ".", "..") for part in path.split("/"))
    table.must(plain, f"the member {path!r} is not a path inside an archive")
    format = table.take("format", str)
    table.must(format in FORMATS, f"the format of {name} is none of {', '.join(FORMATS)}")
    language = _parse_language(table, name, languages)
    member = Member(archive, path, format)
    parsed = CorpusFile(name, "", None, table.take("split", str), language, member=member)
    table.finish()
    return parsed


def _parse_name(table: _Table) -> str:
    name: str = table.take("name", str)
    table.must(bool(PLAIN_NAME.fullmatch(name)), f"name {name!r} is not a plain file name")
    table.must(name != "checksums.toml", "checksums.toml has a use of its own")
    return name


def _parse_place(table: _Table, name: str, base_url: str) -> tuple[str, str | None, int | None]:
    url = table.take("url", str, default="") or urljoin(base_url, name)
    table.must(url.startswith(("https://", "http://")), f"{name} has no url and the corpus no base_url")
    sha256 = table.take("sha256", str, default=None)
    known = sha256 is None or bool(SHA256.fullmatch(sha256))
    table.must(known, f"the sha256 of {name} is not 64 lower-case hex digits")
    return url, sha256, table.take("bytes", int, default=None)


def _parse_language(table: _Table, name: str, languages: list[str]) -> str:
    language: str = table.take("language", str)
    table.must(
        language in languages, f"the language {language} of {name} is not among the corpus's languages"
    )
    return language


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
