"""Activation checkpointing (Chen et al. 2016): time for memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nmt.linear import product_type, products_of


def recompute_layers(model: Any) -> None:
    """Have a Transformer compute its layers again when it is trained."""
    model.recompute = True


def recomputed(layer: nn.Module, *arguments: Any) -> Tensor:
    """A layer's output. Its activations are not kept but computed again for the gradient, from the same
    random state and with products of the same type: the gradient is the same to the bit."""
    kind = product_type()
    output: Tensor = checkpoint(
        layer,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=True,
        # Autocast is restored by torch, this is ours.
        context_fn=lambda: (nullcontext(), products_of(kind)),
    )
    return output
