"""Training that begins with the weights of another model (`training.initialize_from`), and parameters that
stay as they are (`training.freeze`).

A model to begin with matters before the first step only: a run that has a checkpoint goes on without it.
"""

from __future__ import annotations

import difflib
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import nn

from nmt.checkpoint import CONFIG, WEIGHTS, Weights, find_model, load_model, read_manifest, weights_of
from nmt.config import Config
from nmt.config_file import load_config
from nmt.continuation import newest_whole
from nmt.data.prepared import load_tokenizers, tokenizer_files
from nmt.data.tokenizer import UNK, Tokenizer
from nmt.errors import UserError
from nmt.model_config import LuongConfig, ModelConfig, TransformerConfig
from nmt.run import list_checkpoints

# Keys of [tokenizer] that say how it was trained; sampling may be another.
_TRAINED = ("type", "vocabulary_size", "shared", "character_coverage", "sample_pairs")


def resolved(config: Config, run: Path, *, restart: bool = False) -> Config:
    """The configuration with the [tokenizer] of the model that training begins with, if there is one.

    Args:
        run: the run folder, which may not be there yet.
        restart: it will be moved aside.

    Raises:
        UserError: there is no such model, its [model] is another, or [tokenizer] contradicts it.
    """
    name = config.training.initialize_from
    if name is None:
        return config
    if not restart and (run / CONFIG).exists() and list_checkpoints(run):
        # A key that is given and differs is reported with all that has changed.
        return _with_tokenizer(config, load_config(run / CONFIG), given_counts=True)
    folder = find_model(Path(name))
    if restart and folder.resolve().is_relative_to(run.resolve()):
        raise UserError(
            "training.initialize_from names this run, which --restart moves aside; choose another --run",
            file=run,
        )
    read_manifest(folder)
    base = load_config(folder / CONFIG)
    key = _first_difference(config.model, base.model)
    if key:
        mine, theirs = (repr(getattr(model, key, None)) for model in (config.model, base.model))
        raise UserError(
            f"model.{key} = {mine}, and the model of training.initialize_from has {theirs} ({folder}); its "
            f"weights fit no other: copy [model] of its {CONFIG}, or remove training.initialize_from"
        )
    for key in _TRAINED[:-1]:
        mine, theirs = (getattr(section, key) for section in (config.tokenizer, base.tokenizer))
        if key in config.tokenizer.model_fields_set and mine != theirs:
            raise UserError(
                f"tokenizer.{key} = {mine!r}, and the model of training.initialize_from has {theirs!r} "
                f"({folder}); its vocabulary is used: remove the key"
            )
    return _with_tokenizer(config, base, given_counts=False)


def _with_tokenizer(config: Config, base: Config, *, given_counts: bool) -> Config:
    given = config.tokenizer.model_fields_set if given_counts else set()
    update = {key: getattr(base.tokenizer, key) for key in _TRAINED if key not in given}
    return config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update=update)})


def _first_difference(mine: ModelConfig, theirs: ModelConfig) -> str | None:
    """The first key that makes weights of the one no weights of the other: of size, or of meaning."""
    if mine.architecture != theirs.architecture:
        return "architecture"
    for key in type(mine).model_fields:
        a, b = getattr(mine, key), getattr(theirs, key)
        if isinstance(mine, TransformerConfig) and key == "decoder_feed_forward_width":
            a, b = (side or model.feed_forward_width for side, model in ((a, mine), (b, theirs)))  # type: ignore[union-attr]
        if a != b and not (key == "preset" or key.endswith("dropout") or _begins_only(key, mine)):
            return key
    return None


def _begins_only(key: str, model: ModelConfig) -> bool:
    """Whether a key matters to first weights alone; Luong's also says how much of the input is fed back."""
    return key == "initialization" and not (isinstance(model, LuongConfig) and model.input_feeding)


def tokenizers_of(config: Config, run: Path) -> dict[str, bytes] | None:
    """The tokenizer files to prepare data with: of the run's own checkpoint, so that it goes on as it began
    though what was prepared is gone; else of the model to begin with; None where a new one is to be trained.

    Raises:
        UserError: it lacks a tag of `data.tags`.
    """
    own, name = newest_whole(run), config.training.initialize_from
    if own is not None:
        return tokenizer_files(*load_tokenizers(own.folder))
    if name is None:
        return None
    folder = find_model(Path(name))
    source, target = load_tokenizers(folder)
    for tag in config.data.tags:
        if tag and source.id_of(tag) == UNK:
            raise UserError(
                f'data.tags: "{tag}" is not in the vocabulary of {folder}, which training.initialize_from '
                "names; remove it"
            )
    return tokenizer_files(source, target)


def tokenizers_from(files: dict[str, bytes] | None) -> tuple[Tokenizer, Tokenizer] | None:
    if files is None:
        return None
    made = [Tokenizer(content) for content in files.values()]  # one that is shared, or source and target
    return made[0], made[-1]


def weights_to_begin_with(config: Config) -> tuple[Weights, dict[str, Any]]:
    """Of the model to begin with, and what manifests say of it; UserError if it is no model or damaged."""
    loaded = load_model(Path(str(config.training.initialize_from)))
    manifest = loaded.manifest
    origin = {
        "model": str(loaded.folder),
        "step": manifest.get("step"),
        "sha256": manifest["files"][WEIGHTS],
    }
    return weights_of(loaded.model), origin


def freeze(model: nn.Module, names: tuple[str, ...]) -> None:
    """Leave parameters out of training, by name or its beginning up to a dot.

    Raises:
        UserError: a name is of no parameter, or none is left to train.
    """
    # A matrix that is shared has several names.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = {part for name in parameters for part in accumulate(name.split("."), "{}.{}".format)}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            parts = sorted(part for part in known if "." not in part)
            hint = (
                f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(parts)}, and inside them"
            )
            raise UserError(f'training.freeze: "{name}" is the name of no parameter; {hint}')
        for full, parameter in parameters.items():
            if f"{full}.".startswith(f"{name}."):
                parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise UserError("training.freeze leaves no parameter to train; remove a name")
