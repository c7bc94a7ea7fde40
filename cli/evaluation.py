"""What `nmt evaluate` is asked for, checked, and the texts it reads."""

from __future__ import annotations

import unicodedata
from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.cli import output as out
from nmt.cli.reading import Reading
from nmt.cli.score import JSONL
from nmt.cli.search_options import search_options
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.gold import Gold

PAIRED = {
    "bootstrap": ("bootstrap",),
    "randomization": ("randomization",),
    "both": ("bootstrap", "randomization"),
    "none": (),
}


@dataclass(frozen=True)
class Options:
    """Of the command line. None is not given.

    Raises:
        UserError: they do not go together.
    """

    model: Path | None
    source: Path | None
    reference: tuple[Path, ...]
    system: tuple[str, ...]  # NAME=FILE
    name: str | None = None
    test_set: str | None = None
    output: Path | None = None
    ensemble: tuple[Path, ...] = ()
    ensemble_by: str | None = None
    tag: str | None = None
    beam_size: int | None = None
    length_penalty: float | None = None
    precision: str | None = None
    batch_tokens: str | None = None  # a number, or "auto"
    tokenize: str | None = None
    lowercase: bool = False
    chrf_lowercase: bool | None = None
    ter_case_sensitive: bool = False
    comet: str | None = None
    confidence: bool = True
    paired: str | None = None
    by_length: bool = False
    training: tuple[Path, ...] = ()
    sentences: Path | None = None
    gold_alignment: Path | None = None
    words: str = "blank"
    gold_base: int = 0
    layer: str | None = None
    head: str | None = None
    shift: bool | None = None
    results: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check_what_is_measured()
        chosen = self.settings_of_search()
        if self.system and (chosen or self.ensemble):
            raise UserError("--system is a translation; options of search and --ensemble go with MODEL")
        self._check_names()
        self._check_what_they_need()
        self._check_paired()
        self.reading()

    def _check_what_is_measured(self) -> None:
        if not self.reference:
            raise UserError("no reference given; add --reference FILE")
        if (self.model is None) == (not self.system):
            raise UserError("give either MODEL with --source, or --system NAME=FILE")
        if self.system and (self.output is not None or self.gold_alignment is not None):
            raise UserError("--output and --gold-alignment go with MODEL, not with --system")
        view = (self.layer, self.head, self.shift)
        if self.gold_alignment is None and view != (None, None, None):
            raise UserError(
                "--layer, --head and --shift choose the attention that --gold-alignment measures; add that"
            )

    def _check_names(self) -> None:
        if self.name is not None and self.model is None:
            raise UserError("--name is what to call MODEL; a system of --system NAME=FILE has its name there")
        systems = [("--system", one.partition("=")[0]) for one in self.system]
        for option, one in [("--name", self.name or ""), ("--test-set", self.test_set or ""), *systems]:
            if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in one):
                raise UserError(
                    f"{option} {one!r} holds a character that breaks lines of a table; leave it out"
                )

    def _check_what_they_need(self) -> None:
        if self.ensemble and self.gold_alignment is not None:
            raise UserError("--gold-alignment is about the attention of one model; leave out --ensemble")
        if self.model is not None and self.source is None:
            raise UserError("MODEL needs text to translate; add --source FILE")
        if self.source is None and (self.by_length or self.comet is not None):
            option = "--by-length" if self.by_length else "--comet"
            raise UserError(f"{option} looks at the source; add --source FILE")

    def _check_paired(self) -> None:
        if self.paired is not None and self.paired not in PAIRED:
            raise UserError(f"--paired {self.paired} is not known; use {', '.join(PAIRED)}")
        if self.paired not in (None, "none") and len(self.system) < 2:
            raise UserError("--paired compares systems; give two or more with --system NAME=FILE")

    def settings_of_search(self) -> dict[str, Any]:
        """Keys of the [search] section, and the values given."""
        names = ("beam_size", "length_penalty", "tag", "precision", "batch_tokens", "ensemble_by")
        return search_options({name: getattr(self, name) for name in names}, ensemble=bool(self.ensemble))

    def reading(self) -> Reading:
        """How links are read off attention."""
        return Reading(self.words, self.gold_alignment, self.gold_base, self.layer, self.head, self.shift)

    @property
    def tests(self) -> tuple[str, ...]:
        """By which systems are compared with the first."""
        default = "bootstrap" if len(self.system) > 1 and self.confidence else "none"
        return PAIRED[self.paired or default]

    @property
    def title(self) -> str:
        """Of the test set: test.en.gz is test."""
        name = (self.source or self.reference[0]).name
        return self.test_set or name.removesuffix(".gz").rpartition(".")[0] or name

    @property
    def files(self) -> list[Path]:
        """Those with the lines of the test set."""
        source = [] if self.source is None else [self.source]
        return [*self.reference, *source, *(Path(one.partition("=")[2]) for one in self.system)]


@dataclass(frozen=True)
class Texts:
    """A test set, line by line."""

    references: list[list[str]]
    hypotheses: dict[str, list[str]]  # by the names of systems
    sources: list[str] | None
    tokenize: str | None  # for BLEU: as asked for, or as the model's language has it
    gold: list[Gold] | None


def read(options: Options) -> Texts:
    """All lines that are compared; warns of byte order marks.

    Raises:
        UserError: a file cannot be read, is empty or has other lines than the first reference.
    """
    from nmt.data.corpus import read_lines
    from nmt.evaluation import check
    from nmt.metric_set import default_tokenizer

    references = _read_references(options)
    first = (options.reference[0], references[0])
    hypotheses = _read_systems(options, first)
    sources = None
    if options.source is not None:
        sources = _parallel(options.source, list(read_lines(options.source)), first)
    tokenize = options.tokenize
    if options.model is not None and tokenize is None:
        tokenize = default_tokenizer(_target_language(options.model))
    names = [str(path) for path in options.reference]
    check(len(references[0]), references, tokenize=tokenize, names=names)
    for file in dict.fromkeys(options.files):
        _warn_of_mark(file)
    gold = None if sources is None else options.reading().gold_of(sources, references[0])
    return Texts(references, hypotheses, sources, tokenize, gold)


def _read_references(options: Options) -> list[list[str]]:
    from nmt.data.corpus import read_lines
    from nmt.hypotheses import is_record

    found = [list(read_lines(path)) for path in options.reference]
    files = list(zip(options.reference, found, strict=True))
    for file, lines in files:
        if lines and is_record(lines[0]):
            raise UserError("has JSON lines, as translations may; give references as plain text", file=file)
    if not found[0]:
        raise UserError(
            "there are no lines to evaluate; give a reference with text", file=options.reference[0]
        )
    for file, lines in files[1:]:
        _parallel(file, lines, files[0])
    return found


def _read_systems(options: Options, first: tuple[Path, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for given in options.system:
        name, equals, path = given.partition("=")
        if not (equals and path and name.strip()):
            raise UserError(f"--system {given} is not of the form NAME=FILE")
        if name in found:
            raise UserError(f"--system {given}: there are two systems of that name; call one otherwise")
        found[name] = _parallel(path, _read_translation(path), first)
    return found


def _read_translation(path: str) -> list[str]:
    from nmt.data.corpus import read_lines
    from nmt.hypotheses import first_texts, is_record

    lines = list(read_lines(path))
    if path.endswith(JSONL) or (lines and is_record(lines[0])):
        lines = first_texts(lines, file=path)
        out.note(f"{path}: JSON lines; the first translation of each is scored")
    return lines


def _parallel(path: str | Path, lines: list[str], first: tuple[Path, list[str]]) -> list[str]:
    """The lines, if they are as many as those of the first reference."""
    from nmt.evaluation import unequal_lengths

    error = unequal_lengths(str(path), lines, str(first[0]), first[1])
    if error is not None:
        raise error
    return lines


def _target_language(model: Path) -> str:
    from nmt.checkpoint import CONFIG, find_model
    from nmt.config_file import load_config

    return load_config(find_model(model) / CONFIG).data.target_language


def _warn_of_mark(path: Path) -> None:
    """Under one and the same signature sacreBLEU's command line gives another number."""
    from nmt.data.corpus import open_bytes

    if not path.is_file():  # a pipe is read once
        return
    with open_bytes(path) as file:
        if file.read(len(BOM_UTF8)) == BOM_UTF8:
            out.warn(
                f"{path}: begins with a byte order mark, which is no text here; the command sacrebleu takes "
                "it for part of the first line"
            )
