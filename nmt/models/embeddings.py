"""Token embeddings and the output layer, with every way of sharing them.

D width, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn


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
        if tie != "none" and output_width not in (None, width):
            raise ValueError(f"a tied output matrix reads vectors of {width}, not of {output_width}")
        self.target = nn.Embedding(target_vocabulary, width)
        self.source = self.target if tie == "all" else nn.Embedding(source_vocabulary, width)
        self.output = nn.Linear(output_width or width, target_vocabulary, bias=output_bias)
        if tie != "none":
            self.output.weight = self.target.weight

    def project(self, hidden: Tensor) -> Tensor:
        """Logits: (..., D) -> (..., V)."""
        logits: Tensor = self.output(hidden)
        return logits
