"""What all processes of a training must see, and each continuation: corpora and prepared data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from nmt.config import Config
from nmt.data.corpus import sha256_of
from nmt.data.prepare import corpus_files, link_files, training_files
from nmt.data.prepared import TrainingData, tokenizer_files
from nmt.ranks import digest

Row = dict[str, str]  # "file" and "sha256"


def corpora_of(config: Config, data: TrainingData) -> dict[str, list[Row]]:
    """The files that are trained on and held out, as manifests have them."""
    # What is prepared may have been prepared for another run, of the same files under other names.
    rows, names = data.manifest["training_data"], list(dict.fromkeys(training_files(config.data)))
    rows = [{"file": str(name), "sha256": row["sha256"]} for name, row in zip(names, rows, strict=True)]
    return {"training_data": rows, **held_out_of(config)}


def held_out_of(config: Config) -> dict[str, list[Row]]:
    """The files that are validated on, and where training pairs that overlap are dropped, those of tests."""
    data = config.data
    held_out = {"validation_data": rows_of(corpus_files(data, [data.validation]))}
    if data.drop_overlap:
        held_out["test_data"] = rows_of(corpus_files(data, data.test_prefixes))
    return held_out


def rows_of(files: Iterable[Path]) -> list[Row]:
    return [{"file": str(file), "sha256": sha256_of(file)} for file in files]


def files_of(config: Config) -> dict[str, str]:
    """Of each corpus file what is quickly seen: that it has the same size everywhere."""
    data = config.data
    prefixes = [*data.train_prefixes, data.validation, *data.test_prefixes]
    files = [*corpus_files(data, prefixes), *(file for file in link_files(data) if file is not None)]
    return {str(file): str(file.stat().st_size) for file in files}


def prepared_of(data: TrainingData) -> dict[str, str]:
    """What every process must see of the prepared folder, and of the files that it was made of."""
    rows = {row["file"]: row["sha256"] for row in data.manifest["training_data"]}
    rest = {name: value for name, value in data.manifest.items() if name != "training_data"}
    tokenizers = tokenizer_files(data.source_tokenizer, data.target_tokenizer)
    return {
        **rows,
        **{name: digest(content) for name, content in tokenizers.items()},
        "manifest.json": digest(json.dumps(rest, sort_keys=True).encode()),
    }


def changed_files(before: list[Row], now: list[Row]) -> list[str]:
    """The names of the files that are not what they were; they may have moved."""
    if [row["sha256"] for row in before] == [row["sha256"] for row in now]:
        return []
    known = {row["sha256"] for row in before}
    present = {row["sha256"] for row in now}
    changed = [row["file"] for row in now if row["sha256"] not in known]
    gone = [row["file"] for row in before if row["sha256"] not in present and row["file"] not in changed]
    return changed + gone or ["their order"]
