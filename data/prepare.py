"""Corpora -> tokenizer and memory-mapped token files, cached by content.

The name of a prepared folder (`nmt.data.prepared`) is a hash of the training files' content and of all
settings that shape the result, so equal runs share it and changed ones do not. It is made in passes over
the text: `nmt.data.scan` says which pairs are kept, a tokenizer is trained on a sample of these,
`nmt.data.encode` writes their ids. No pass holds more than a few blocks of lines; the first and the last
use all cores; a preparation that was killed goes on from its unfinished folder, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from nmt.config import Config, DataConfig
from nmt.data.batches import seeded
from nmt.data.blocks import LINES, read_blocks
from nmt.data.corpus import Pairs, find_side, is_tsv, read_parallel, sha256_of
from nmt.data.encode import FILES, EncodedCorpora, Encoder, encode_corpora
from nmt.data.filter import Filter, HeldOut
from nmt.data.links import FILES as LINK_FILES
from nmt.data.links import find_links
from nmt.data.pool import cores
from nmt.data.prepared import (
    FORMAT,
    MANIFEST,
    TrainingData,
    describe,
    load_prepared,
    load_tokenizers,
    tokenizer_files,
)
from nmt.data.scan import KEPT, Scan, Scanner, scan
from nmt.data.sums import stamp_of, sums_of, writing
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.data.unfinished import is_abandoned
from nmt.errors import UserError
from nmt.files import lock, publish, remove_partial, write_file

_SUMS = "sums.json"
_UNFINISHED = ".unfinished"
_HELD_OUT = "held-out.json"
# Held-out lines whose source is in the training text too: fewer, or a smaller share, are not worth a warning.
_NOTABLE_LINES, _NOTABLE_SHARE = 5, 0.01
# Keys that change no token.
_SHAPELESS = {
    "train",
    "validation",
    "test",
    "weights",
    "temperature",
    "workers",
    "alignments",
    "alignment_words",
}


def prepare(
    config: Config,
    root: Path,
    tell: Callable[[str], None] = lambda _: None,
    *,
    warn: Callable[[str], None] = lambda _: None,
    check: Callable[[list[dict[str, str]]], None] = lambda _: None,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
) -> TrainingData:
    """The prepared training data of a configuration, made now unless `root` holds it.

    Args:
        root: the folder of prepared folders.
        tell: called with a line of text when something slow begins.
        warn: called with a line of text that is worth reading, when a corpus is prepared.
        check: called with "file" and "sha256" of the training files before anything slow begins; may raise.
        tokenizers: of source and target, to use in place of new ones.

    Raises:
        UserError: files are missing, misaligned, not UTF-8, or leave nothing to train on; a prepared folder
            is damaged.
    """
    files = training_files(config.data)
    stamps = [stamp_of(file) for file in files]
    sums = sums_of(files, root / _SUMS)
    check(_rows(sums))
    folder = root / _key(config, list(sums.values()), tokenizers)
    if tokenizers is not None:
        # Where new ones were trained, and are these, all that was made with them is the same.
        trained = root / _key(config, list(sums.values()), None)
        folder = trained if _holds(trained, tokenizers) else folder
    if (folder / MANIFEST).exists():
        return load_prepared(folder)
    root.mkdir(parents=True, exist_ok=True)
    with _turn(root, tell):  # two runs that begin together prepare once
        if not (folder / MANIFEST).exists():
            with writing(root / _SUMS):
                remove_partial(root)
            unfinished = root / f".{folder.name}{_UNFINISHED}"
            for other in root.glob(f".*{_UNFINISHED}"):
                if other != unfinished and is_abandoned(other):
                    shutil.rmtree(other, ignore_errors=True)
            # What a scan has found so far is about these held-out lines.
            held_out = json.dumps(_held_out_sums(config.data))
            note = unfinished / _HELD_OUT
            if unfinished.exists():
                if note.exists() and note.read_text(encoding="utf-8") == held_out:
                    tell("going on with a preparation that was interrupted")
                else:
                    shutil.rmtree(unfinished)
            unfinished.mkdir(exist_ok=True)
            write_file(note, held_out)
            try:
                if not (unfinished / MANIFEST).exists():
                    _build(config, sums, unfinished, tell, warn, tokenizers)
                if stamps != [stamp_of(file) for file in files]:
                    raise UserError(
                        "the corpus was changed while it was prepared; run the command again",
                        file=config.data.train_prefixes[0],
                    )
            except UserError:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            whole = json.loads((unfinished / MANIFEST).read_text(encoding="utf-8"))["files"]
            for file in unfinished.iterdir():
                if file.name not in whole and file.name != MANIFEST:
                    file.unlink()
            publish(unfinished, folder)
    return load_prepared(folder)


def _turn(root: Path, tell: Callable[[str], None]) -> IO[bytes]:
    """The lock of the prepared folders, which may take as long as another process prepares."""
    try:
        return lock(root, wait=False)
    except BlockingIOError:
        tell(f"waiting for another process that prepares a corpus in {root}")
        return lock(root, wait=True)


def corpus_files(data: DataConfig, prefixes: Sequence[str]) -> list[Path]:
    """The files of the prefixes, both sides; UserError where one is missing."""
    files = []
    for prefix in prefixes:
        if is_tsv(prefix):
            files.append(Path(prefix))
        else:
            files += [find_side(prefix, data.source_language), find_side(prefix, data.target_language)]
    return files


def training_files(data: DataConfig) -> list[Path]:
    """`corpus_files` of the training corpora, and their word links."""
    links = [file for file in link_files(data) if file is not None]
    return [*corpus_files(data, data.train_prefixes), *links]


def link_files(data: DataConfig) -> list[Path | None]:
    """Of each corpus the file of its word links, if it has one; nothing where no corpus has."""
    if not any(data.alignment_files):
        return []
    return [find_links(file) if file else None for file in data.alignment_files]


def read_held_out(data: DataConfig, prefix: str) -> Pairs:
    """All pairs of a validation or test set; UserError if there are none."""
    pairs = list(read_parallel(prefix, data.source_language, data.target_language))
    if not pairs:
        raise UserError("has no lines; name a validation or test set with text", file=prefix)
    return pairs


def _key(config: Config, sums: Sequence[str], tokenizers: tuple[Tokenizer, Tokenizer] | None) -> str:
    settings: dict[str, object] = {
        "format": FORMAT,
        "data": config.data.model_dump(exclude=_SHAPELESS),
        "corpora": len(config.data.train_prefixes),
        "tokenizer": config.tokenizer.model_dump(exclude={"sampling"}),
        "held out": _held_out_sums(config.data) if config.data.drop_overlap else [],
        "files": list(sums),
    }
    if any(config.data.alignment_files):
        settings["links"] = [config.data.alignment_words, [bool(f) for f in config.data.alignment_files]]
    if tokenizers is not None:
        settings["tokenizers"] = [hashlib.sha256(one.model).hexdigest() for one in tokenizers]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _holds(folder: Path, tokenizers: tuple[Tokenizer, Tokenizer]) -> bool:
    """Whether a prepared folder was made with these tokenizers."""
    try:
        return all((folder / n).read_bytes() == one for n, one in tokenizer_files(*tokenizers).items())
    except OSError:
        return False


def _held_out_sums(data: DataConfig) -> list[str]:
    return [sha256_of(file) for file in corpus_files(data, [data.validation, *data.test_prefixes])]


def _build(
    config: Config,
    sums: dict[str, str],
    folder: Path,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
) -> None:
    data = config.data
    languages = data.source_language, data.target_language
    workers = _workers(data, sums)
    links = link_files(data)
    tell("reading the training corpus")
    held_out = _held_out(data)
    scanner = _scanner(data, held_out)
    found = scan(data.train_prefixes, languages, scanner, folder, workers=workers, links=links)
    if overlap := _overlap_of(held_out.counts(found.overlap)):
        warn(overlap)
    kept, dropped = found.kept, found.drop_table()
    if not kept:
        reasons = ", ".join(f"{row.count:,} {row.reason}" for row in dropped)
        raise UserError(
            f"no training pair is left of {sum(found.lines):,} ({reasons or 'the files are empty'}); "
            "check the files with `nmt data check`",
            file=data.train_prefixes[0],
        )
    if tokenizers is None:
        source, target = _tokenizers(config, found, kept, tell)
    else:
        source, target = tokenizers
        for name, content in tokenizer_files(source, target).items():
            write_file(folder / name, content)
    tell("tokenizing")
    largest = max(len(source), len(target))
    dtype = "uint16" if largest <= 1 << 16 else "uint32"
    encoder = Encoder(
        source,
        target,
        by_words=config.tokenizer.type == "bpe",
        dtype=dtype,
        max_tokens=data.max_tokens,
        tags=data.tags or [""] * len(data.train_prefixes),
        link_words=data.alignment_words,
    )
    encoded = encode_corpora(data.train_prefixes, languages, found, encoder, workers=workers, links=links)
    if not sum(encoded.pairs):
        raise UserError(
            f"{encoded.places[0]}: this and every other training pair is longer than data.max_tokens = "
            f"{data.max_tokens}; raise it"
        )
    table = [
        {"reason": row.reason, "count": row.count, "share": row.share, "places": list(row.places)}
        for row in dropped
    ]
    manifest = _manifest(data, encoded, lines=sum(found.lines), dropped=table, sums=sums)
    if links and not encoded.links:
        raise UserError(
            "has no link of a pair that is kept; give alignments with links", file=data.alignment_files[0]
        )
    files = describe(folder, [*FILES, *(LINK_FILES if links else ()), *tokenizer_files(source, target)])
    manifest |= {"dtype": dtype, "files": files}
    if links:
        manifest |= {"links": encoded.links, "links_dtype": encoder.link_dtype.name}
    write_file(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _manifest(
    data: DataConfig,
    encoded: EncodedCorpora,
    *,
    lines: int,
    dropped: list[dict[str, object]],
    sums: dict[str, str],
) -> dict[str, object]:
    if encoded.too_long:
        count, places = encoded.too_long, list(encoded.places)
        dropped.append(
            {"reason": "too many tokens", "count": count, "share": count / lines, "places": places}
        )
    return {
        "format": FORMAT,
        "lines": lines,
        "kept": sum(encoded.pairs),
        "pairs": encoded.pairs,
        "tags": data.tags or [""] * len(encoded.pairs),
        "dropped": dropped,
        "source_tokens": encoded.source_tokens,
        "target_tokens": encoded.target_tokens,
        "training_data": _rows(sums),
    }


def _rows(sums: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"file": name, "sha256": value} for name, value in sums.items()]


def _workers(data: DataConfig, sums: Iterable[str]) -> int:
    """Processes beside this one: none where starting them would take longer than the work."""
    if data.workers != "auto":
        return data.workers
    small = sum(Path(file).stat().st_size for file in sums) < 64 * LINES * 8
    return 0 if small or cores() == 1 else cores()


def _held_out(data: DataConfig) -> HeldOut:
    """The validation set, then the test sets."""
    held_out = HeldOut()
    for prefix in [data.validation, *data.test_prefixes]:
        held_out.add(prefix, read_held_out(data, prefix))
    return held_out


def _overlap_of(counts: Sequence[tuple[str, int, int]]) -> str:
    """A warning of held-out sets whose sources are trained on; "" where these are few."""
    notable = [
        f"{found:,} of {lines:,} lines of {'data.test' if place else 'data.validation'} ({name})"
        for place, (name, found, lines) in enumerate(counts)
        if found >= _NOTABLE_LINES and found >= _NOTABLE_SHARE * lines
    ]
    if not notable:
        return ""
    return (
        f"{' and '.join(notable)} have their source in the training text too, and scores there are better "
        "than on new text; data.drop_overlap = true leaves such pairs out of training"
    )


def _scanner(data: DataConfig, held_out: HeldOut) -> Scanner:
    rules = Filter(
        max_words=data.max_words,
        max_characters=data.max_characters,
        max_ratio=data.max_ratio,
        drop_copies=data.drop_copies,
        drop_duplicates=data.drop_duplicates,
        drop_overlap=data.drop_overlap,
    )
    return Scanner(rules, held_out, data.alignment_words)


def _tokenizers(
    config: Config, found: Scan, kept: int, tell: Callable[[str], None]
) -> tuple[Tokenizer, Tokenizer]:
    """Those that were trained before a kill, or new ones."""
    data, settings = config.data, config.tokenizer
    trained = found.folder / "tokenizers.json"  # is there once they are whole
    if trained.exists():
        return load_tokenizers(found.folder)
    count = min(kept, settings.sample_pairs)
    share = "" if count == kept else f" of {kept:,}"
    tell(f"training a {settings.type} tokenizer on {count:,}{share} pairs")

    def learn(lines: Iterator[str], tags: Iterable[str]) -> Tokenizer:
        return train_tokenizer(
            lines,
            type=settings.type,
            vocabulary_size=settings.vocabulary_size,
            character_coverage=settings.character_coverage,
            tags=[tag for tag in dict.fromkeys(tags) if tag],
        )

    def pairs() -> Iterator[tuple[str, str]]:
        return _sampled_pairs(data, found, kept, count)

    if settings.shared:
        source = target = learn((side for pair in pairs() for side in pair), data.tags)
    else:
        source = learn((source for source, _ in pairs()), data.tags)
        target = learn((target for _, target in pairs()), ())
    for name, content in tokenizer_files(source, target).items():
        write_file(found.folder / name, content)
    write_file(trained, "{}")
    return source, target


def _sampled_pairs(data: DataConfig, found: Scan, kept: int, count: int) -> Iterator[tuple[str, str]]:
    """So many of the pairs that are kept, in order: one, by chance, of each `count`-th part of them."""
    edges = np.arange(count + 1) * kept // count
    chosen = seeded(0, "tokenizer sample").integers(edges[:-1], edges[1:])
    first = first_kept = 0
    for block in read_blocks(data.train_prefixes, data.source_language, data.target_language):
        lines = np.flatnonzero(found.verdicts(first, block.count) == KEPT)
        low, high = np.searchsorted(chosen, [first_kept, first_kept + len(lines)])
        first, first_kept = first + block.count, first_kept + len(lines)
        if low < high:
            sources, targets = block.sides()
            for line in lines[chosen[low:high] - (first_kept - len(lines))].tolist():
                yield sources[line], targets[line]
