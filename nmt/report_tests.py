"""The test set of a report: what all its runs can be compared on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.data.corpus import Pairs, sha256_of
from nmt.data.prepare import corpus_files, read_held_out
from nmt.errors import UserError
from nmt.report_runs import ReportedRun


@dataclass(frozen=True)
class TestSet:
    """A test or validation set as one run names it."""

    __test__ = False  # no test of pytest's

    prefix: str
    files: list[Path]
    pairs: Pairs

    @property
    def name(self) -> str:
        return Path(self.prefix).name

    def rows(self) -> list[dict[str, str]]:
        return [{"file": str(file), "sha256": sha256_of(file)} for file in self.files]


@dataclass(frozen=True)
class Comparable:
    """Of each run its test set, and the places in it of the pairs that all runs have, in one order."""

    sets: list[TestSet]
    places: list[list[int]]
    notes: list[str]  # what the reader must know of the choice

    @property
    def is_whole(self) -> bool:
        return all(len(test.pairs) == len(at) for test, at in zip(self.sets, self.places, strict=True))


def choose_test_set(runs: Sequence[ReportedRun], given: str | None) -> Comparable:
    """The set given; else the first that the runs' data.test names, or their validation set.

    Of runs that name different ones, the first test set of the first run that all name; where there is
    none, the sentence pairs that their first ones share.

    Raises:
        UserError: a set cannot be read, or the runs share nothing.
    """
    first = [_read(run, given or _candidates(run)[0]) for run in runs]
    if all(test.pairs == first[0].pairs for test in first):
        notes = []
        if given is None and not all(run.config.data.test_prefixes for run in runs):
            notes = [
                "The validation set, by which the best checkpoints were chosen: scores flatter a little."
            ]
        return Comparable(first, [list(range(len(test.pairs))) for test in first], notes)
    named = ", ".join(
        f"{run.name} {test.prefix} ({len(test.pairs):,} lines)" for run, test in zip(runs, first, strict=True)
    )
    common = None if given is not None else _common(runs)
    if common is not None:
        note = f"The runs name different sets first ({named}); compared on {common[0].name}, which all name."
        return Comparable(common, [list(range(len(test.pairs))) for test in common], [note])
    places = _shared(first)
    if not places[0]:
        raise UserError(
            f"the runs have no test sentence in common ({named}); name a test set for all with --test"
        )
    note = f"The runs have different test sets ({named}); compared on the {len(places[0]):,} pairs all have."
    return Comparable(first, places, [note])


def _candidates(run: ReportedRun) -> tuple[str, ...]:
    return run.config.data.test_prefixes or (run.config.data.validation,)


def _read(run: ReportedRun, prefix: str) -> TestSet:
    data = run.config.data
    try:
        return TestSet(prefix, corpus_files(data, [prefix]), read_held_out(data, prefix))
    except UserError as error:
        raise UserError(
            f"{error.message} (run {run.name}: name a test set with --test, or run the command in the folder "
            "where it was trained)",
            file=error.file,
            line=error.line,
        ) from None


def _common(runs: Sequence[ReportedRun]) -> list[TestSet] | None:
    """The first set of the first run that the others name too, whatever its path there."""
    known: list[list[TestSet]] = []
    for run in runs:
        readable = []
        for prefix in _candidates(run):
            try:
                readable.append(_read(run, prefix))
            except UserError:  # it is not asked for
                continue
        known.append(readable)
    for test in known[0]:
        same = [next((t for t in others if t.pairs == test.pairs), None) for others in known[1:]]
        if None not in same:
            return [test, *(t for t in same if t is not None)]
    return None


def _shared(sets: Sequence[TestSet]) -> list[list[int]]:
    """Of each set the places of the pairs that all have, in the order of the first set."""
    numbered = []
    for test in sets:
        seen: Counter[tuple[str, str]] = Counter()
        places = {}
        for place, pair in enumerate(test.pairs):
            places[pair, seen[pair]] = place
            seen[pair] += 1
        numbered.append(places)
    shared = [key for key in numbered[0] if all(key in places for places in numbered)]
    return [[places[key] for key in shared] for places in numbered]
