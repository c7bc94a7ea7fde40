"""The options of `nmt translate` that say what a translation must be like: files of wishes, beam options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.cli.lines import Lines
from nmt.errors import UserError, counted

if TYPE_CHECKING:
    from nmt.constraints import Wish
    from nmt.data.tokenizer import Tokenizer
    from nmt.partial import Chunk

_LENGTHS = ("min_length", "max_length", "min_length_factor", "max_length_factor")
_BEAM = ("normalization", "coverage_penalty", "no_repeat_ngram", "beam_groups", "diversity")


@dataclass(frozen=True)
class Guiding:
    """Of the command line; None is not given.

    The files have a line for each line of the input, which may be blank.

    Raises:
        UserError: they are no files.
    """

    prefix: Path | None = None  # texts that translations begin with
    constraints: Path | None = None  # required phrases, tabs between them
    forbid: Path | None = None  # forbidden phrases, tabs between them
    forbid_everywhere: tuple[str, ...] = ()
    min_length: int | None = None  # tokens, the end not counted
    max_length: int | None = None
    min_length_factor: float | None = None  # times the tokens of the source
    max_length_factor: float | None = None
    normalization: str | None = None
    coverage_penalty: float | None = None
    no_repeat_ngram: int | None = None
    beam_groups: int | None = None
    diversity: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_length", "max_length"):
            if None not in (getattr(self, name), getattr(self, f"{name}_factor")):
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} is in place of {option}-factor; leave one out")
        for name, path in self.files.items():
            if str(path) == "-":
                raise UserError(f"--{name} needs a file, not standard input; write it to one first")
            if path.is_fifo():
                raise UserError(f"--{name} needs a file, not a pipe; write it to one first", file=path)
        if any(not phrase.strip() for phrase in self.forbid_everywhere):
            raise UserError("--forbid-everywhere is empty; name a phrase, or leave it out")
        if None not in (self.min_length, self.max_length) and self.min_length > self.max_length:  # type: ignore[operator]
            raise UserError(
                f"--min-length {self.min_length} is above --max-length {self.max_length}; lower it"
            )

    @property
    def files(self) -> dict[str, Path]:
        """By the name of the option."""
        files = {name: getattr(self, name) for name in ("prefix", "constraints", "forbid")}
        return {name: path for name, path in files.items() if path is not None}

    @property
    def wishes(self) -> bool:
        """Whether anything is wanted of particular words."""
        return bool(self.files or self.forbid_everywhere)

    def check(self, *, drawn: bool, engine: str, replace_unknown: bool) -> None:
        """UserError where the other options do not allow them."""
        given = [f.name for f in fields(self) if getattr(self, f.name) not in (None, ())]
        option = f"--{given[0].replace('_', '-')}" if given else ""
        if engine != "nmt" and given:
            raise UserError(f"{option} is not for --engine {engine}; leave one out")
        for_beams = [name for name in given if name not in _LENGTHS]
        if drawn and for_beams:
            raise UserError(
                f"--{for_beams[0].replace('_', '-')} is for beam search, which --sample and --mbr are not; "
                "leave one out"
            )
        if replace_unknown and (self.forbid is not None or self.forbid_everywhere):
            raise UserError("--replace-unknown may write what is forbidden; leave it or the other out")

    def settings_of_search(self) -> dict[str, Any]:
        """Keys of the [search] section, and the values given."""
        given = {name: getattr(self, name) for name in (*_BEAM, "min_length_factor", "max_length_factor")}
        if self.min_length is not None:
            given |= {"min_length_factor": 0.0, "min_length_offset": self.min_length + 1}
        if self.max_length is not None:
            given |= {"max_length_factor": 0.0, "max_length_offset": self.max_length + 1}
        return {name: value for name, value in given.items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """What decides the translations beside the [search] section, by name."""
        from nmt.data.corpus import sha256_of

        sums = {name: sha256_of(path) for name, path in self.files.items()}
        return {**dict.fromkeys(("prefix", "constraints", "forbid")), **sums} | {
            "forbid everywhere": list(self.forbid_everywhere)
        }

    def lines(self, source: str, *, count: bool = False) -> Lines:
        """The input, held to have as many lines as the files: at once if it is a file, else at its end."""
        lines = _HeldLines(source, count=count or bool(self.files), guiding=self)
        if lines.total is not None:
            self.check_count(lines.total)
        return lines

    def check_count(self, total: int) -> None:
        """UserError where the input has so many lines, and a file has not."""
        from nmt.data.corpus import read_raw_lines

        for path in self.files.values():
            found = sum(1 for _ in read_raw_lines(path))
            if found != total:
                raise UserError(
                    f"has {counted(found, 'line')}, and the input has {total:,}; give one for each, "
                    "blank where nothing is asked",
                    file=path,
                )

    def read(self, tokenizer: Tokenizer) -> Wishes:
        """What is wanted; UserError where a file cannot be read, or no translation could be like that."""
        return Wishes(self, tokenizer)


class Wishes:
    """What the files say, line by line."""

    def __init__(self, guiding: Guiding, tokenizer: Tokenizer):
        from nmt.data.corpus import read_lines

        self._guiding = guiding
        self._read = {name: list(read_lines(path)) for name, path in guiding.files.items()}
        for line in range(max(map(len, self._read.values()), default=0)):
            self._wish(line).check(tokenizer)

    def of(self, chunk: Chunk) -> list[Wish]:
        """Of the lines of a chunk; UserError where a file has fewer."""
        first, lines = chunk
        for name, found in self._read.items():
            if len(found) < first - 1 + len(lines):
                raise UserError(
                    f"has {counted(len(found), 'line')}, and the input has more; give one for each, "
                    "blank where nothing is asked",
                    file=self._guiding.files[name],
                )
        return [self._wish(place) for place in range(first - 1, first - 1 + len(lines))]

    def _wish(self, place: int) -> Wish:
        from nmt.constraints import Wish

        line = {name: found[place] for name, found in self._read.items() if place < len(found)}
        files = self._guiding.files
        everywhere = tuple(phrase.strip() for phrase in self._guiding.forbid_everywhere)
        return Wish(
            line.get("prefix", ""),
            _phrases(line.get("constraints", "")),
            (*_phrases(line.get("forbid", "")), *everywhere),
            place + 1,
            {
                "prefix": files.get("prefix"),
                "required": files.get("constraints"),
                "forbidden": files.get("forbid"),
            },
        )


class _HeldLines(Lines):
    def __init__(self, source: str, *, count: bool, guiding: Guiding):
        super().__init__(source, count=count)
        self._guiding = guiding

    def chunks(self, size: int | None = None, most: int | None = None) -> Iterator[Chunk]:
        done = 0
        for chunk in super().chunks(size, most):
            done += len(chunk[1])
            yield chunk
        self._guiding.check_count(done)


def _phrases(line: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in line.split("\t") if phrase.strip())
