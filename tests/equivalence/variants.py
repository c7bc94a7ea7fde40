"""A small Transformer of each kind, for the tests of its options."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nmt.models.transformer import Transformer

CLOSE = dict(rtol=1e-5, atol=1e-5)


def small(**options: Any) -> Transformer:
    """Two layers of two heads; the sizes differ wherever a mix-up could hide."""
    sizes: dict[str, Any] = dict(
        source_vocabulary=23,
        target_vocabulary=19,
        encoder_layers=2,
        decoder_layers=2,
        width=16,
        feed_forward_width=24,
        decoder_feed_forward_width=20,
        heads=2,
        dropout=0.0,
        relative_distance=3,
        max_positions=128,
        tie_embeddings="none",
    )
    return Transformer(**(sizes | options))


def randomize(module: nn.Module, seed: int) -> None:
    """No parameter keeps a value, such as 0 or 1, that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
