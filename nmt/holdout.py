"""From two aligned files to the three parts of a corpus: train, validation and test.

No line of a held-out pair, neither source nor target, stays in training, and the two held-out sets
share none. Lines are equal if they are so without the blanks at their ends.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nmt.data.batches import seeded
from nmt.data.corpus import STANDARD_INPUT, find_side, is_tsv, read_parallel_files
from nmt.data.filter import Filter, reason_to_drop
from nmt.errors import UserError
from nmt.files import new_folder, written_after

Pairs = list[tuple[str, str]]

HELD_OUT = ("validation", "test")
SHARE = 0.05  # of the usable pairs, for each held-out set
FEWEST, MOST = 50, 2000  # pairs of a held-out set
FEWEST_PAIRS = 200  # usable ones, below which there is nothing to learn from
# Of the usable pairs: how many may go because they repeat a held-out line.
MOST_REMOVED = 0.1

_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_@-]{0,31}")
_PART = re.compile(rf"(train|{'|'.join(HELD_OUT)})\.{_LANGUAGE.pattern}")
_NOT_LANGUAGES = (
    "gz",
    "txt",
    "text",
    "tsv",
    "csv",
    "raw",
    "tok",
    "snt",
    "sent",
    "lines",
    "clean",
    "lc",
    "out",
)


@dataclass(frozen=True)
class Corpus:
    """Two aligned files, and what their languages are called."""

    source: Path
    target: Path
    source_language: str
    target_language: str
    pairs: Pairs

    @property
    def languages(self) -> tuple[str, str]:
        return self.source_language, self.target_language


@dataclass(frozen=True)
class Split:
    """The parts of a corpus: `train` and what was held out keep the order of the lines."""

    train: Pairs
    held_out: dict[str, Pairs]  # of "validation" and "test" those that were not given
    removed: int  # pairs in none, for they repeat a line of a validation or test set


def read_corpus(source: Path, target: Path, languages: tuple[str, str]) -> Corpus:
    """Read two aligned files whole.

    Raises:
        UserError: the files are one, cannot be read, are empty, misaligned or not UTF-8.
    """
    if _same(source, target):
        raise UserError("given as source and as target; give two files, one a language", file=source)
    return Corpus(source, target, *languages, list(read_parallel_files(source, target)))


def languages_of(
    source: Path, target: Path, source_language: str | None, target_language: str | None
) -> tuple[str, str]:
    """Language codes: as given, else the suffixes, else "source" and "target".

    ``a.en`` is en and so are ``a.en.gz`` and ``a.en.txt``; equal suffixes tell nothing.
    """
    for option, given in (("--source-language", source_language), ("--target-language", target_language)):
        if given is not None and not _LANGUAGE.fullmatch(given):
            raise UserError(f"{option} {given!r} is not a code such as en, pt-BR or zh_Hans; it names files")
    found_source, found_target = _suffix(source), _suffix(target)
    if found_source == found_target:
        found_source = found_target = None
    languages = (source_language or found_source or "source", target_language or found_target or "target")
    if languages[0] == languages[1]:
        raise UserError(
            f"both languages are called {languages[0]}; name them apart with --source-language and "
            "--target-language"
        )
    return languages


def _suffix(path: Path) -> str | None:
    name = path.name
    while "." in name.lstrip("."):
        name, _, suffix = name.rpartition(".")
        if suffix.lower() not in _NOT_LANGUAGES:
            return suffix if _LANGUAGE.fullmatch(suffix) else None
    return None


@dataclass(frozen=True)
class Layout:
    """Where the parts of a corpus are, or will be."""

    train: str
    validation: str
    test: str
    languages: tuple[str, str]
    written: dict[str, Pairs]  # parts to write into `folder`; none where the user's files serve in place
    folder: Path
    held_out: dict[str, int]  # pairs of each set that was split off
    overlap: int  # pairs of `train` in place that repeat a line of a given set


def prefix_of(corpus: Corpus) -> str | None:
    """The PREFIX under which the toolkit finds exactly the two files of a corpus, if there is one."""
    prefixes = set()
    for path, language in zip((corpus.source, corpus.target), corpus.languages, strict=True):
        name = str(path).removesuffix(".gz")
        if not name.endswith(f".{language}"):
            return None
        prefixes.add(name.removesuffix(f".{language}"))
    prefix = prefixes.pop()
    if prefixes or not prefix or prefix.endswith(os.sep) or is_tsv(prefix):
        return None
    # Where PREFIX.en lies beside PREFIX.en.gz, the plain one is found.
    found = [find_side(prefix, language) for language in corpus.languages]
    return prefix if found == [corpus.source, corpus.target] else None


def given_files(prefixes: Iterable[str], languages: tuple[str, str]) -> list[Path]:
    """The files of validation and test sets; UserError where one is missing."""
    return [
        Path(prefix) if is_tsv(prefix) else find_side(prefix, language)
        for prefix in prefixes
        for language in languages
    ]


def held_out_size(usable: int) -> int:
    """Pairs of each held-out set for so many usable pairs."""
    return min(MOST, max(FEWEST, round(SHARE * usable)))


def split_corpus(corpus: Corpus, given: Mapping[str, Pairs], *, seed: int = 1) -> Split:
    """Hold out what is not given; a function of the lines and the seed.

    Only pairs that preparation keeps are held out. Those with lines that occur once go first, so that
    as few pairs as can be are lost to training.

    Args:
        given: "validation" and "test", where the user has them. They stay as they are; training pairs
            that repeat a line of theirs are removed.

    Raises:
        UserError: fewer than `FEWEST_PAIRS` usable pairs, or too many that repeat each other.
    """
    pairs, rules = corpus.pairs, Filter()
    usable = [i for i, (s, t) in enumerate(pairs) if reason_to_drop(s, t, rules) is None]
    if len(usable) < FEWEST_PAIRS:
        raise UserError(
            f"{len(usable):,} usable sentence pairs of {len(pairs):,}; a model needs {FEWEST_PAIRS} at the "
            "very least, and thousands to be of use",
            file=corpus.source,
        )
    lines = _Lines()
    for held in given.values():
        lines.add(held)
    wanted = [name for name in HELD_OUT if name not in given]
    chosen = _choose(corpus, usable, wanted, lines, seed)
    taken = {index for indices in chosen.values() for index in indices}
    train = [pair for i, pair in enumerate(pairs) if i not in taken and not lines.hold(pair)]
    if sum(reason_to_drop(s, t, rules) is None for s, t in train) < FEWEST_PAIRS // 2:
        raise UserError(
            f"hardly a pair is left to train on: {len(pairs) - len(train) - len(taken):,} of {len(pairs):,} "
            "repeat a line of the validation or test set; give sets that are not part of the training text",
            file=corpus.source,
        )
    held_out = {name: [pairs[i] for i in sorted(indices)] for name, indices in chosen.items()}
    return Split(train, held_out, len(pairs) - len(train) - len(taken))


def _choose(
    corpus: Corpus, usable: list[int], wanted: list[str], lines: _Lines, seed: int
) -> dict[str, list[int]]:
    """Indices of the pairs of each set; their lines are added to `lines`."""
    chosen: dict[str, list[int]] = {name: [] for name in wanted}
    if not wanted:
        return chosen
    pairs, size = corpus.pairs, held_out_size(len(usable))
    sources = Counter(source.strip() for source, _ in pairs)
    targets = Counter(target.strip() for _, target in pairs)

    def repeats(index: int) -> int:
        source, target = pairs[index]
        return sources[source.strip()] + targets[target.strip()] - 2

    order = [usable[i] for i in seeded(seed, "held out").permutation(len(usable))]
    order.sort(key=repeats)  # stable: chance decides among equals
    budget = MOST_REMOVED * len(usable)
    for index in order:
        if lines.hold(pairs[index]):
            continue
        budget -= repeats(index)
        name = min(wanted, key=lambda name: len(chosen[name]))
        if budget < 0 or len(chosen[name]) == size:
            break
        chosen[name].append(index)
        lines.add([pairs[index]])
    fewest = min(map(len, chosen.values()))
    if fewest < FEWEST // 2:
        raise UserError(
            f"the lines repeat each other so much that only {fewest} pairs could be held out; give "
            f"{' and '.join(f'--{name} PREFIX' for name in wanted)}, of other text",
            file=corpus.source,
        )
    return chosen


class _Lines:
    """The lines of validation and test sets."""

    def __init__(self) -> None:
        self._sources: set[str] = set()
        self._targets: set[str] = set()

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        # A blank line repeats nothing.
        for source, target in pairs:
            self._sources.update(filter(None, [source.strip()]))
            self._targets.update(filter(None, [target.strip()]))

    def hold(self, pair: tuple[str, str]) -> bool:
        return pair[0].strip() in self._sources or pair[1].strip() in self._targets


def share_lines(left: Pairs, right: Pairs) -> int:
    """How many pairs of `right` repeat a source or target line of `left`."""
    lines = _Lines()
    lines.add(left)
    return sum(map(lines.hold, right))


def data_folder(config: Path) -> Path:
    """Where the parts of a corpus are written: my.toml -> my-data."""
    return config.with_name(f"{config.stem}-data")


def check_place(config: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """See to it that nothing of the user's is overwritten.

    Raises:
        UserError: CONFIG or its data folder exists, without `force`; even with it, if that would
            remove an input or files that are not ours. Or CONFIG cannot be written there.
    """
    folder = data_folder(config)
    if config.is_dir():
        raise UserError("is a folder; name the configuration file to write", file=config)
    for path in inputs:
        if str(path) == STANDARD_INPUT:
            continue
        if _same(path, config):
            raise UserError("is the configuration to write and an input as well; name another", file=path)
        if folder.exists() and folder.resolve() in path.resolve().parents:
            raise UserError(
                f"lies in {folder}, which would be replaced; move it, or name another configuration",
                file=path,
            )
    for path in (config, folder):
        if (path.exists() or path.is_symlink()) and not force:
            raise UserError("exists already; name another configuration, or add --force", file=path)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError("is not a folder of ours; move it, or name another configuration", file=folder)
    if folder.is_dir():
        foreign = sorted(entry.name for entry in folder.iterdir() if not _PART.fullmatch(entry.name))
        if foreign:
            raise UserError(
                f"holds what --force would remove ({', '.join(foreign[:3])}); move it, or name another "
                "configuration",
                file=folder,
            )
    nearest = config.absolute().parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError("is not a folder; name another place for the configuration", file=nearest)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError("may not be written into; name another place for the configuration", file=nearest)


def _same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def lay_out(config: Path, corpus: Corpus, given: Mapping[str, str], split: Split) -> Layout:
    """Decide what is written where: nothing, if both sets were given and the corpus has a PREFIX.

    Args:
        given: the PREFIX of "validation" and "test", where the user has them.
    """
    folder = data_folder(config)
    in_place = None if split.held_out else prefix_of(corpus)
    return Layout(
        in_place or str(folder / "train"),
        given.get("validation") or str(folder / "validation"),
        given.get("test") or str(folder / "test"),
        corpus.languages,
        {} if in_place else {"train": split.train, **split.held_out},
        folder,
        {name: len(pairs) for name, pairs in split.held_out.items()},
        split.removed if in_place else 0,
    )


def write_all(config: Path, text: str, layout: Layout) -> None:
    """Write the parts, then the configuration: where that exists, all it names exists, and an earlier one
    keeps its own if these cannot be written.

    Raises:
        UserError: something cannot be written.
    """
    try:
        with written_after(config, text):
            if layout.written:
                with new_folder(layout.folder) as partial:
                    _write_parts(partial, layout)
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror}); name another place for the configuration",
            file=error.filename or config,
        ) from None


def _write_parts(folder: Path, layout: Layout) -> None:
    for part, pairs in layout.written.items():
        for side, language in enumerate(layout.languages):
            with (folder / f"{part}.{language}").open("wb") as file:
                for number, pair in enumerate(pairs):
                    file.write(_as_line(pair[side], first=number == 0))


def _as_line(text: str, *, first: bool) -> bytes:
    """The bytes that reading turns into `text`: it takes off one carriage return, and one byte order mark."""
    mark = "\ufeff" if first and text.startswith("\ufeff") else ""
    return f"{mark}{text}{chr(13) if text.endswith(chr(13)) else ''}\n".encode()
