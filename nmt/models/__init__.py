"""The architectures. Configuration stops here: modules take plain keyword arguments."""

from __future__ import annotations

from torch import nn

from nmt.model_config import ModelConfig
from nmt.models.recurrent import Bahdanau, Luong, Recurrent
from nmt.models.seam import Memory, Model, SearchModel, State
from nmt.models.transformer import Transformer

__all__ = ["Memory", "Model", "SearchModel", "State", "build_model", "parameter_counts"]

_CLASSES: dict[str, type[Model]] = {
    "transformer": Transformer,
    "recurrent": Recurrent,
    "bahdanau": Bahdanau,
    "luong": Luong,
}


def build_model(config: ModelConfig, source_vocabulary: int, target_vocabulary: int) -> Model:
    """The model of a configuration, freshly initialised from torch's global generator."""
    sizes = config.model_dump(exclude={"architecture", "preset"})
    return _CLASSES[config.architecture](
        source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, **sizes
    )


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Trainable parameters by part, shared ones once; the key "total" is their sum."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return {name: count for name, count in counts.items() if count} | {
        "total": sum(p.numel() for p in model.parameters())
    }
