"""Corpora -> tokenizer and memory-mapped token files, cached by content.

A prepared folder holds `tokenizer.model` (or `tokenizer.source.model` and `tokenizer.target.model`),
for each side `train.SIDE.tokens` (ids, one after another) and `train.SIDE.offsets` (where each
sentence begins, and the end), and `manifest.json`. Its name is a hash of the training files' content
and of all settings that shape the result, so equal runs share it and changed ones do not.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.config import Config, DataConfig
from nmt.data.batches import Lengths, seeded
from nmt.data.corpus import find_side, is_tsv, read_parallel, sha256_of
from nmt.data.filter import Dropper, Filter, HeldOut
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import UserError
from nmt.files import lock, new_folder, remove_partial

FORMAT = 1
_CHUNK = 20_000  # lines tokenized at a time
_MOST_PLACES = 5  # lines named for each reason to drop

Pairs = list[tuple[str, str]]


class TokenFile:
    """The sentences of one side, memory-mapped."""

    def __init__(self, stem: Path, dtype: str):
        self._offsets = np.fromfile(f"{stem}.offsets", dtype=np.int64)
        # An empty file cannot be mapped.
        self._tokens: npt.NDArray[Any] = (
            np.memmap(f"{stem}.tokens", dtype=dtype, mode="r")
            if self._offsets[-1]
            else np.empty(0, dtype=dtype)
        )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        return self._tokens[self._offsets[index] : self._offsets[index + 1]]

    @property
    def lengths(self) -> Lengths:
        return np.diff(self._offsets)


@dataclass(frozen=True)
class TrainingData:
    """What preparation gives to training. Token ids are without beginning and end of sentence."""

    folder: Path
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source: TokenFile
    target: TokenFile
    manifest: dict[str, Any]  # lines read and kept, the table of what was dropped, sha256 of the files

    def sampled(
        self, rate: float, seed: int, epoch: int, *, max_tokens: int
    ) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]:
        """All sentences segmented anew, a function of (seed, epoch). Ids give the text: decoding is exact.

        A segmentation of more than `max_tokens` tokens, which the model may have no positions for, is not
        taken: that sentence keeps its own.
        """

        def sample(side: TokenFile, tokenizer: Tokenizer, name: str) -> list[list[int]]:
            lines = [tokenizer.decode(side[i].tolist()) for i in range(len(side))]
            found = tokenizer.sample_all(
                lines, rate, int(seeded(seed, "sampling", name, epoch).integers(2**32))
            )
            return [ids if len(ids) <= max_tokens else side[i].tolist() for i, ids in enumerate(found)]

        return (
            sample(self.source, self.source_tokenizer, "source"),
            sample(self.target, self.target_tokenizer, "target"),
        )


def prepare(config: Config, root: Path, tell: Callable[[str], None] = lambda _: None) -> TrainingData:
    """The prepared training data of a configuration, made now unless `root` holds it.

    Args:
        root: the folder of prepared folders.
        tell: called with a line of text when something slow begins.

    Raises:
        UserError: files are missing, misaligned, not UTF-8, or leave nothing to train on.
    """
    files = corpus_files(config.data, config.data.train_prefixes)
    sums = {str(file): sha256_of(file) for file in files}
    folder = root / _key(config, list(sums.values()))
    if (folder / "manifest.json").exists():
        return load_prepared(folder)
    root.mkdir(parents=True, exist_ok=True)
    with lock(root, wait=True):  # two runs that begin together prepare once
        if not (folder / "manifest.json").exists():
            remove_partial(root)
            with new_folder(folder) as partial:
                _build(config, sums, partial, tell)
    return load_prepared(folder)


def load_prepared(folder: Path) -> TrainingData:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    source, target = load_tokenizers(folder)
    return TrainingData(
        folder,
        source,
        target,
        TokenFile(folder / "train.source", manifest["dtype"]),
        TokenFile(folder / "train.target", manifest["dtype"]),
        manifest,
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


def corpus_files(data: DataConfig, prefixes: Sequence[str]) -> list[Path]:
    """The files of the prefixes, both sides; UserError where one is missing."""
    files = []
    for prefix in prefixes:
        if is_tsv(prefix):
            files.append(Path(prefix))
        else:
            files += [find_side(prefix, data.source_language), find_side(prefix, data.target_language)]
    return files


def read_held_out(data: DataConfig, prefix: str) -> Pairs:
    """All pairs of a validation or test set; UserError if there are none."""
    pairs = list(read_parallel(prefix, data.source_language, data.target_language))
    if not pairs:
        raise UserError("has no lines; name a validation or test set with text", file=prefix)
    return pairs


def _key(config: Config, sums: Sequence[str]) -> str:
    settings = {
        "format": FORMAT,
        "data": config.data.model_dump(exclude={"train", "validation", "test"}),
        "tokenizer": config.tokenizer.model_dump(exclude={"sampling"}),
        "held out": _held_out_sums(config.data) if config.data.drop_overlap else [],
        "files": list(sums),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _held_out_sums(data: DataConfig) -> list[str]:
    return [sha256_of(file) for file in corpus_files(data, [data.validation, *data.test_prefixes])]


def _build(config: Config, sums: dict[str, str], folder: Path, tell: Callable[[str], None]) -> None:
    data, settings = config.data, config.tokenizer
    tell("reading the training corpus")
    pairs, places, dropper = _read_kept(data)
    if not pairs:
        reasons = ", ".join(f"{row.count:,} {row.reason}" for row in dropper.drop_table())
        raise UserError(
            f"no training pair is left of {dropper.seen:,} ({reasons or 'the files are empty'}); "
            "check the files with `nmt data check`",
            file=data.train_prefixes[0],
        )
    tell(f"training a {settings.type} tokenizer on {len(pairs):,} pairs")

    def learn(lines: Iterator[str]) -> Tokenizer:
        return train_tokenizer(
            lines,
            type=settings.type,
            vocabulary_size=settings.vocabulary_size,
            character_coverage=settings.character_coverage,
        )

    if settings.shared:
        source_tokenizer = target_tokenizer = learn(side for pair in pairs for side in pair)
    else:
        source_tokenizer = learn(source for source, _ in pairs)
        target_tokenizer = learn(target for _, target in pairs)
    for name, content in tokenizer_files(source_tokenizer, target_tokenizer).items():
        (folder / name).write_bytes(content)

    tell("tokenizing")
    largest = max(len(source_tokenizer), len(target_tokenizer))
    dtype = "uint16" if largest <= 1 << 16 else "uint32"
    kept = 0
    too_long: list[int] = []
    with _Writer(folder / "train.source", dtype) as source, _Writer(folder / "train.target", dtype) as target:
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs[start : start + _CHUNK]
            source_ids = source_tokenizer.encode_all([s for s, _ in chunk])
            target_ids = target_tokenizer.encode_all([t for _, t in chunk])
            for index, (s, t) in enumerate(zip(source_ids, target_ids, strict=True), start=start):
                if max(len(s), len(t)) <= data.max_tokens:
                    source.add(s)
                    target.add(t)
                    kept += 1
                elif len(too_long) < _MOST_PLACES:
                    too_long.append(index)
    if not kept:
        raise UserError(
            f"{places.of(0)}: this and every other training pair is longer than data.max_tokens = "
            f"{data.max_tokens}; raise it"
        )

    dropped = [
        {"reason": row.reason, "count": row.count, "share": row.share, "places": list(row.places)}
        for row in dropper.drop_table()
    ]
    if kept < len(pairs):
        long = len(pairs) - kept
        dropped.append(
            {
                "reason": "too many tokens",
                "count": long,
                "share": long / dropper.seen,
                "places": [places.of(index) for index in too_long],
            }
        )
    manifest = {
        "format": FORMAT,
        "dtype": dtype,
        "lines": dropper.seen,
        "kept": kept,
        "dropped": dropped,
        "source_tokens": source.tokens,
        "target_tokens": target.tokens,
        "training_data": [{"file": name, "sha256": value} for name, value in sums.items()],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


class _Places:
    """Where each kept pair stands, in 8 bytes a pair."""

    def __init__(self) -> None:
        self._lines = array("Q")
        self._files: list[tuple[int, str]] = []  # first pair, name

    def begin(self, file: str) -> None:
        self._files.append((len(self._lines), file))

    def add(self, line: int) -> None:
        self._lines.append(line)

    def of(self, index: int) -> str:
        """``file:line``."""
        name = next(name for first, name in reversed(self._files) if first <= index)
        return f"{name}:{self._lines[index]}"


def _read_kept(data: DataConfig) -> tuple[Pairs, _Places, Dropper]:
    rules = Filter(
        max_words=data.max_words,
        max_characters=data.max_characters,
        max_ratio=data.max_ratio,
        drop_copies=data.drop_copies,
        drop_duplicates=data.drop_duplicates,
        drop_overlap=data.drop_overlap,
    )
    held_out = None
    if data.drop_overlap:
        held_out = HeldOut()
        for prefix in [data.validation, *data.test_prefixes]:
            held_out.add(prefix, read_held_out(data, prefix))
    dropper = Dropper(rules, held_out, most_places=_MOST_PLACES)
    pairs, places = [], _Places()
    for prefix in data.train_prefixes:
        name = Path(prefix).name
        places.begin(name)
        lines = read_parallel(prefix, data.source_language, data.target_language)
        for number, (source, target) in enumerate(lines, start=1):
            if dropper.reason(source, target, file=name, line=number) is None:
                pairs.append((source, target))
                places.add(number)
    return pairs, places, dropper


class _Writer:
    """Writes the two files of a TokenFile."""

    def __init__(self, stem: Path, dtype: str):
        self._stem = stem
        self._dtype = dtype
        self._offsets = [0]
        self._file = open(f"{stem}.tokens", "wb")  # noqa: SIM115, PTH123 - closed by __exit__

    @property
    def tokens(self) -> int:
        return self._offsets[-1]

    def add(self, ids: Sequence[int]) -> None:
        self._file.write(np.asarray(ids, dtype=self._dtype).tobytes())
        self._offsets.append(self._offsets[-1] + len(ids))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.asarray(self._offsets, dtype=np.int64).tofile(f"{self._stem}.offsets")
