"""Further models of an ensemble, which commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.cli import output as out

if TYPE_CHECKING:
    from nmt.checkpoint import LoadedModel


def load_ensemble(folders: Sequence[Path], first: LoadedModel, device: str) -> list[LoadedModel]:
    """The models beside the first. One that translates other languages is warned of: one tokenizer for both
    languages lets it write the first one's tokens, and it may well be a mistake.

    Raises:
        UserError: a folder holds no model, or the device is not there.
    """
    from nmt.checkpoint import load_model
    from nmt.device import choose_device

    found = [load_model(folder, choose_device(device)) for folder in folders]
    for model in found:
        if model.languages != first.languages:
            ours, theirs = (" to ".join(one.languages) for one in (first, model))
            out.warn(
                f"{model.folder} translates {theirs}, and {first.folder} {ours}; "
                "see that --ensemble is the model you mean"
            )
    return found
