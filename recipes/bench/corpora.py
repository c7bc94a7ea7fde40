"""What is translated and trained on: Multi30k where it is fetched, else the offline corpus."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nmt.data.corpus import read_lines
from nmt.data.synthetic import write_corpus
from nmt.errors import UserError, counted

TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco", "test", "test-compositional")


@dataclass(frozen=True)
class Corpus:
    """Prefixes of files, English and German, and how many subwords suit it."""

    folder: Path
    train: Path
    validation: Path
    vocabulary: int

    @property
    def is_multi30k(self) -> bool:
        return self.folder.name == "multi30k"


@dataclass(frozen=True)
class TestSet:
    """Lines to translate; the first of them have references."""

    __test__ = False  # pytest: a name, no tests
    name: str
    sources: list[str]
    references: list[str]

    def part(self, count: int) -> TestSet:
        """So many lines from all over it, evenly spaced, without references."""
        if count >= len(self.sources):
            return self
        chosen = [self.sources[i * len(self.sources) // count] for i in range(count)]
        return TestSet(f"{count:,} of them", chosen, [])


class Corpora:
    """corpora/multi30k, or the offline corpus, written into `folder` when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def corpus(self) -> Corpus:
        multi30k = Path("corpora/multi30k")
        if (multi30k / "train.en.gz").exists():
            return Corpus(multi30k, multi30k / "train", multi30k / "val", 8000)
        offline = self.folder / "offline"
        write_corpus(offline)
        return Corpus(offline, offline / "train", offline / "validation", 2000)


def random_corpus(folder: Path, vocabulary: int, pairs: int = 60_000) -> Corpus:
    """Random words, as unequally frequent as real ones (Zipf), in lines as long as those of news: for the
    speed of training with more subwords than a small corpus has."""
    draw = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    count = 2 * vocabulary
    sizes = draw.integers(3, 9, count)
    words = np.array(["".join(draw.choice(letters, size)) for size in sizes])
    shares = 1 / (np.arange(count) + 10.0)
    shares /= shares.sum()
    folder.mkdir(parents=True)
    for name, lines in (("train", pairs), ("validation", 100)):
        for language in ("en", "de"):
            lengths = np.clip(draw.lognormal(2.9, 0.6, lines), 1, 80).astype(int)
            drawn = np.split(draw.choice(words, lengths.sum(), p=shares), np.cumsum(lengths)[:-1])
            text = "".join(" ".join(line) + "\n" for line in drawn)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return Corpus(folder, folder / "train", folder / "validation", vocabulary)


def test_set(corpus: Corpus, count: int) -> TestSet:
    """Its test sets, then source lines of its training set until there are `count`."""
    sources: list[str] = []
    references: list[str] = []
    for name in TESTS:
        files = [_file(corpus.folder / f"{name}.{language}") for language in ("en", "de")]
        if None not in files:
            pairs = zip(*(read_lines(file) for file in files if file), strict=True)
            for source, reference in pairs:
                if source.strip() and len(sources) < count:
                    sources.append(source)
                    references.append(reference)
    name = f"{len(sources):,} lines of {corpus.folder.name}'s test sets"
    train = _file(corpus.train.with_name(f"{corpus.train.name}.en"))
    assert train is not None
    more = list(itertools.islice((line for line in read_lines(train) if line.strip()), count - len(sources)))
    if more:
        name += f", {len(more):,} of its training set"
    return TestSet(name, sources + more, references)


def read_test_set(lines: Path, reference: Path | None, count: int) -> TestSet:
    """Of files; blank lines are left out.

    Raises:
        UserError: there is nothing to translate, or the files differ in length.
    """
    sources = list(read_lines(lines))
    references = [] if reference is None else list(read_lines(reference))
    if reference is not None and len(references) != len(sources):
        raise UserError(
            f"has {counted(len(references), 'line')}, not {len(sources):,} as {lines}", file=reference
        )
    kept = [i for i, line in enumerate(sources) if line.strip()][:count]
    if not kept:
        raise UserError("has no text; name a file of source lines", file=lines)
    return TestSet(
        f"{len(kept):,} lines of {lines.name}",
        [sources[i] for i in kept],
        [references[i] for i in kept] if references else [],
    )


def _file(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.exists()), None)
