"""Token embeddings, positions and the output layer, with every way of sharing them.

B sentences, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nmt.models.dropout import dropout


class Embeddings(nn.Module):
    """Source and target embeddings and the output matrix.

    Args:
        source_vocabulary, target_vocabulary: sizes; equal where `tie` is "all".
        width: of an embedding.
        output_width: of what is projected to logits; equal to `width` unless `tie` is "none".
        tie: "none"; "target", two-way: output = target embedding (Press and Wolf 2017);
            "all", three-way: source embedding = target embedding = output.
        output_bias: whether logits get a bias.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        width: int,
        *,
        tie: str,
        output_width: int | None = None,
        output_bias: bool = False,
    ):
        super().__init__()
        if tie == "all" and source_vocabulary != target_vocabulary:
            raise ValueError("tying all embeddings needs one vocabulary")
        self.target = nn.Embedding(target_vocabulary, width)
        self.source = self.target if tie == "all" else nn.Embedding(source_vocabulary, width)
        self.output = nn.Linear(output_width or width, target_vocabulary, bias=output_bias)
        if tie != "none":
            self.output.weight = self.target.weight

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        logits: Tensor = self.output(hidden)
        return logits


def sinusoidal_positions(first: int, count: int, width: int, like: Tensor) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos(same) (Vaswani et al. 2017, sec. 3.5).

    Returns:
        (count, D) for positions first .. first + count - 1, on the device and of the type of `like`.
    """
    position = torch.arange(first, first + count, device=like.device, dtype=torch.float64)
    exponent = torch.arange(0, width, 2, device=like.device, dtype=torch.float64) / width
    angle = position[:, None] * torch.exp(exponent * -math.log(10_000.0))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(like.dtype)


class PositionalEmbedding(nn.Module):
    """Token embedding times sqrt(D), plus position, with dropout (Vaswani et al. 2017, sec. 3.4 and 3.5)."""

    def __init__(self, width: int, *, learned: bool, max_positions: int, dropout: float):
        super().__init__()
        self.scale = math.sqrt(width)
        self.dropout = dropout
        self.table = nn.Embedding(max_positions, width) if learned else None

    def forward(self, embedded_BTD: Tensor, first: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D); position 0 of the argument is position `first` of the sentence."""
        count, width = embedded_BTD.shape[-2:]
        if self.table is None:
            position_TD = sinusoidal_positions(first, count, width, embedded_BTD)
        else:
            if first + count > self.table.num_embeddings:
                raise ValueError(
                    f"a sentence of {first + count} tokens is longer than model.max_positions = "
                    f"{self.table.num_embeddings}"
                )
            position_TD = self.table.weight[first : first + count]
        return dropout(embedded_BTD * self.scale + position_TD, self.dropout, self.training)
