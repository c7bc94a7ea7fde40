"""The corpus doctor: what is wrong with two aligned texts, where, and what preparation will drop.

The rules for dropping are those of `nmt.data.filter`, which preparation uses too, so what the doctor
announces is what happens. Nothing here prints: reports are plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nmt.data.corpus import (
    BYTE_ORDER_MARK,
    STANDARD_INPUT,
    decode_line,
    find_side,
    first_shifted_line,
    is_tsv,
    open_bytes,
    read_raw_lines,
    split_tsv,
    unequal_counts,
)
from nmt.data.filter import Dropper, DropRow, Filter, HashSet, HeldOut, length_ratio, pair_hash, too_long
from nmt.errors import UserError, counted

# What each finding means and what to do about it, the ones that stop preparation first.
ERRORS = {
    "unreadable": "reading stopped here; fetch or compress the file again",
    "unequal line counts": "put the missing lines back or remove the extra ones",
    "empty": "give files with text",
    "invalid UTF-8": "re-save the file as UTF-8 or convert it with iconv",
    "not two columns": "keep exactly one tab a line, between source and target",
}
WARNINGS = {
    "shifted": "the texts fit better one line further on; compare the lines around this place",
    "blank source": "dropped; look whether text is missing",
    "blank target": "dropped; look whether text is missing",
    "blank on both sides": "dropped",
    "too long": "dropped; split into sentences, or raise the limit",
    "length ratio": "dropped; source and target differ in length more than translations do",
    "copy": "source and target are equal; often text that was never translated",
    "duplicate": "the pair came before; harmless unless there are many",
    "overlap": "the source line is in the validation or test set too; scores on it flatter",
    "Windows line end": "the carriage return is ignored",
    "byte order mark": "ignored at the start of a file; within text, files were joined: remove it",
    "line separator": "U+0085, U+2028 or U+2029; kept as text, other tools may split lines there",
    "control character": "kept as text; remove it unless it is meant",
    "tab": "kept as text; other tools take it for a column",
    "replacement character": "U+FFFD: an earlier conversion lost letters; go back to the original",
    "doubly encoded": "looks like UTF-8 read as Latin-1; go back to the original",
    "blanks at the ends": "harmless, but often a trace of careless joining",
}
SUSPECT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd]|Ã[\x80-\xbf]|â€")
SEPARATORS = "\x85\u2028\u2029"


@dataclass(frozen=True)
class Place:
    """Where something was found; `line` 0 is the file as a whole."""

    file: str
    line: int
    detail: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place} ({self.detail})" if self.detail else place


@dataclass
class Finding:
    """One kind of trouble: how often, the first few places, and what it means."""

    kind: str
    count: int = 0
    places: list[Place] = field(default_factory=list)

    @property
    def is_error(self) -> bool:
        """Whether preparation would stop at it."""
        return self.kind in ERRORS

    @property
    def advice(self) -> str:
        return ERRORS.get(self.kind) or WARNINGS.get(self.kind, "")


class Findings:
    """Counts by kind, keeping the first few places of each."""

    def __init__(self, most_places: int = 5):
        self._most = most_places
        self._by_kind: dict[str, Finding] = {}

    def note(self, kind: str, file: str | Path, line: int, detail: str = "") -> None:
        found = self._by_kind.setdefault(kind, Finding(kind))
        found.count += 1
        if len(found.places) < self._most:
            found.places.append(Place(str(file), line, detail))

    def listed(self, order: Iterable[str]) -> tuple[Finding, ...]:
        """The findings there are, in this order."""
        return tuple(self._by_kind[kind] for kind in order if kind in self._by_kind)


@dataclass(frozen=True)
class Report:
    """What the doctor found in one corpus."""

    source: str
    target: str
    source_lines: int
    target_lines: int
    source_words: int
    target_words: int
    pairs_kept: int
    findings: tuple[Finding, ...]
    dropped: tuple[DropRow, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings at which preparation would stop."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def rows(self) -> list[tuple[str, str, int, str, str]]:
        """A table: "error" or "warning", kind, count, first places, what to do."""
        return [
            (
                "error" if finding.is_error else "warning",
                finding.kind,
                finding.count,
                ", ".join(map(str, finding.places)),
                finding.advice,
            )
            for finding in self.findings
        ]

    def to_json(self) -> dict[str, Any]:
        """The same as plain dictionaries, lists, strings and numbers."""
        document = asdict(self)
        for entry, finding in zip(document["findings"], self.findings, strict=True):
            entry["severity"] = "error" if finding.is_error else "warning"
            entry["advice"] = finding.advice
        return document


def examine(
    prefix: str | Path,
    source_language: str,
    target_language: str,
    *,
    rules: Filter | None = None,
    held_out: HeldOut | None = None,
    most_places: int = 5,
) -> Report:
    """Look through a corpus as `nmt.data.corpus.read_parallel` names it, from end to end.

    Args:
        prefix: path without the language, or a ``.tsv`` or ``.tsv.gz`` file.
        source_language: suffix of the source side.
        target_language: suffix of the target side.
        rules: what preparation will drop; the defaults if not given.
        held_out: validation and test sets to look for in this corpus.
        most_places: how many places of each finding to keep.

    Raises:
        UserError: a file is missing or may not be read. All else is a finding.
    """
    if is_tsv(prefix):
        return _Examination(Path(prefix), Path(prefix), rules, held_out, most_places).run()
    source, target = find_side(prefix, source_language), find_side(prefix, target_language)
    return examine_files(source, target, rules=rules, held_out=held_out, most_places=most_places)


def examine_files(
    source: str | Path,
    target: str | Path,
    *,
    rules: Filter | None = None,
    held_out: HeldOut | None = None,
    most_places: int = 5,
) -> Report:
    """As `examine`, for two files."""
    return _Examination(source, target, rules, held_out, most_places).run()


class _Examination:
    """One pass over a corpus."""

    def __init__(
        self,
        source: str | Path,
        target: str | Path,
        rules: Filter | None,
        held_out: HeldOut | None,
        most_places: int,
    ):
        self.source, self.target = str(source), str(target)
        self.rules = rules or Filter()
        self.held_out = held_out or HeldOut()
        self.findings = Findings(most_places)
        self.dropper = Dropper(self.rules, self.held_out, most_places=most_places)
        self.pairs = HashSet()
        self.lines = [0, 0]
        self.words = [0, 0]
        self.broken = False

    def run(self) -> Report:
        for path in (self.source, self.target):
            if path == STANDARD_INPUT:
                raise UserError("the doctor reads a corpus more than once; give files, not standard input")
            if Path(path).exists() and not Path(path).is_file():
                raise UserError(
                    "is no regular file, and the doctor reads a corpus more than once; give it as a file",
                    file=path,
                )
            open_bytes(path).close()
        if is_tsv(self.source) and self.source == self.target:
            self._read_columns()
        else:
            self._read_sides()
        order = (*ERRORS, *WARNINGS)
        return Report(
            source=self.source,
            target=self.target,
            source_lines=self.lines[0],
            target_lines=self.lines[1],
            source_words=self.words[0],
            target_words=self.words[1],
            pairs_kept=self.dropper.kept,
            findings=self.findings.listed(order),
            dropped=self.dropper.drop_table(),
        )

    def _read_columns(self) -> None:
        for number, raw in enumerate(self._raw(self.source), start=1):
            self.lines = [number, number]
            text = self._line(raw, self.source, number, tab_expected=True)
            if text is None:
                continue
            try:
                source, target = split_tsv(text, file=self.source, line=number)
            except UserError:
                self.findings.note("not two columns", self.source, number, f"{text.count(chr(9))} tabs")
            else:
                for side, column in enumerate((source, target)):
                    self.words[side] += len(column.split())
                self._pair(source, target, number)
        if not any(self.lines) and not self.broken:
            self.findings.note("empty", self.source, 0)

    def _read_sides(self) -> None:
        raw_pairs = zip_longest(self._raw(self.source), self._raw(self.target))
        for number, (raw_source, raw_target) in enumerate(raw_pairs, start=1):
            source = target = None
            if raw_source is not None:
                self.lines[0] = number
                source = self._line(raw_source, self.source, number)
            if raw_target is not None:
                self.lines[1] = number
                target = self._line(raw_target, self.target, number)
            for side, text in enumerate((source, target)):
                self.words[side] += len(text.split()) if text else 0
            if source is not None and target is not None:
                self._pair(source, target, number)
        if self.broken:
            return  # the counts say nothing about files read in part
        for path, count in zip((self.source, self.target), self.lines, strict=True):
            if count == 0:
                self.findings.note("empty", path, 0)
        if self.lines[0] != self.lines[1] and all(self.lines):
            error = unequal_counts(self.source, self.lines[0], self.target, self.lines[1])
            detail = f"{counted(self.lines[0], 'line')}, but {self.lines[1]} in {self.target}"
            if error.line is not None:
                detail += f"; they look shifted from about line {error.line} on"
            self.findings.note("unequal line counts", self.source, error.line or 0, detail)
        elif all(self.lines):
            place = first_shifted_line(self.source, self.target)
            if place is not None:
                self.findings.note("shifted", self.source, place)

    def _raw(self, path: str) -> Iterator[bytes]:
        number = 0
        try:
            for raw in read_raw_lines(path):
                number += 1
                yield raw
        except UserError as error:
            self.broken = True
            self.findings.note("unreadable", path, number + 1, error.message.partition(";")[0])

    def _line(self, raw: bytes, path: str, number: int, tab_expected: bool = False) -> str | None:
        """Note what is odd in one line; its text, or None if it has none."""
        if raw.endswith(b"\r"):
            self.findings.note("Windows line end", path, number)
        if number == 1 and raw.startswith(BYTE_ORDER_MARK):
            self.findings.note("byte order mark", path, number)
        try:
            text = decode_line(raw, file=path, line=number)
        except UserError as error:
            self.findings.note("invalid UTF-8", path, number, error.message.partition(";")[0])
            return None
        if SUSPECT.search(text):
            self._suspect(text, path, number, tab_expected)
        if text != text.strip() and text.strip() and not tab_expected:
            self.findings.note("blanks at the ends", path, number)
        return text

    def _suspect(self, text: str, path: str, number: int, tab_expected: bool) -> None:
        first: dict[str, str] = {}
        for match in SUSPECT.finditer(text):
            found = match.group()
            if len(found) > 1:
                kind = "doubly encoded"
            elif found in SEPARATORS:
                kind = "line separator"
            elif found == "\t":
                kind = "tab"
            else:
                kind = {"\ufeff": "byte order mark", "\ufffd": "replacement character"}.get(
                    found, "control character"
                )
            detail = f"“{found}”" if len(found) > 1 else f"U+{ord(found):04X}"
            first.setdefault(kind, f"{detail} at character {match.start() + 1}")
        if tab_expected:
            first.pop("tab", None)
        for kind, detail in first.items():
            self.findings.note(kind, path, number, detail)

    def _pair(self, source: str, target: str, number: int) -> None:
        self.dropper.reason(source, target, file=self.source, line=number)
        source, target = source.strip(), target.strip()
        source_words, target_words = len(source.split()), len(target.split())
        if not source or not target:
            kind = "blank source" if target else "blank target" if source else "blank on both sides"
            self.findings.note(kind, self.target if source else self.source, number)
            return
        if too_long(source, self.rules):
            self.findings.note(
                "too long", self.source, number, f"{source_words} words, {len(source)} letters"
            )
        if too_long(target, self.rules):
            self.findings.note(
                "too long", self.target, number, f"{target_words} words, {len(target)} letters"
            )
        if length_ratio(source, target) > self.rules.max_ratio:
            detail = f"{len(source)} to {len(target)} characters"
            self.findings.note("length ratio", self.source, number, detail)
        if source == target:
            self.findings.note("copy", self.source, number)
        if not self.pairs.add(pair_hash(source, target)):
            self.findings.note("duplicate", self.source, number)
        elsewhere = self.held_out.find(source)
        if elsewhere:
            self.findings.note("overlap", self.source, number, f"as {elsewhere}")
