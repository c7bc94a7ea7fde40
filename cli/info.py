"""nmt info: what a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli import output as out


def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What a model is, what it was trained on, its parameters by part and its scores."""
    from nmt.checkpoint import load_model, model_hash
    from nmt.models import parameter_counts

    loaded = load_model(model)
    hash_ = model_hash(loaded.manifest)
    counts = parameter_counts(loaded.model)
    config, manifest = loaded.config, loaded.manifest
    if json:
        out.result_json(
            {
                "folder": str(loaded.folder),
                "model_sha256": hash_,
                "languages": loaded.languages,
                "parameters": counts,
                "vocabularies": [len(loaded.source_tokenizer), len(loaded.target_tokenizer)],
                "config": config.model_dump(),
                "manifest": manifest,
            }
        )
        return
    out.result(f"{loaded.folder}: {' to '.join(loaded.languages)}")
    model_keys = config.model.model_dump(exclude={"architecture"}, exclude_none=True)
    out.result(f"{config.model.architecture}: {', '.join(f'{k} {v}' for k, v in model_keys.items())}")
    source, target = len(loaded.source_tokenizer), len(loaded.target_tokenizer)
    kind = f"{source:,} shared" if config.tokenizer.shared else f"{source:,} source, {target:,} target"
    out.result(f"vocabulary: {kind}, {config.tokenizer.type}")
    rows = [[name, f"{count:,}"] for name, count in counts.items()]
    out.result(out.table(["parameters", ""], rows))
    averaged = manifest.get("averaged")
    steps = f"mean of steps {', '.join(map(str, averaged))}" if averaged else f"step {manifest['step']:,}"
    seconds = manifest.get("train_seconds")
    took = "" if seconds is None else f", {out.duration(seconds)} {'h' if seconds >= 3599.5 else 'min'}"
    out.result(f"trained: {steps}{took}")
    validation = manifest.get("validation")  # earlier versions did not say
    if validation is not None:
        files = ", ".join(entry["file"] for entry in manifest.get("validation_data", []))
        out.result(f"validated on {files}: {validation['lines']:,} lines")
    for name, score in manifest.get("scores", {}).items():
        measured = f" (beam {validation['beam_size']}, {validation['bleu']})" if validation else ""
        out.result(f"validation {name}: {score:.3f}{measured if name == 'bleu' else ''}")
    for entry in manifest.get("training_data", []):
        out.result(f"trained on {entry['file']} (sha256 {entry['sha256'][:12]}...)")
    out.result(f"signature of its scores ends in model:{hash_[:12]}")
