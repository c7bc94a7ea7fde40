"""Rows of a batch: sentences that join it in the places of others, hypotheses that live."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


def put_rows(x: Tensor, rows_R: Tensor, other: Tensor, *, dim: int) -> Tensor:
    """x with the rows of `other`, in order, in the places `rows_R`.

    The two may differ in axis `dim`, which is padded with zeros; x itself is written to unless it is
    the narrower one.
    """
    width, missing = other.size(dim), other.size(dim) - x.size(dim)
    if missing > 0:
        x = F.pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, missing])
    x.narrow(dim, 0, width).index_copy_(0, rows_R, other)
    x.narrow(dim, width, x.size(dim) - width).index_fill_(0, rows_R, 0)
    return x


@dataclass(frozen=True)
class Live:
    """Those of the B x K hypotheses that are computed, by flat index b * K + k; None: all."""

    sentences: int
    hypotheses: int
    index_N: Tensor | None = None

    @classmethod
    def among(cls, token_BK: Tensor, index_N: Tensor | None) -> Live:
        return cls(token_BK.size(0), token_BK.size(1), index_N)

    def rows(self, x_BKD: Tensor) -> Tensor:
        """(B, K, D) -> (N, D); the argument itself where all live."""
        return x_BKD if self.index_N is None else x_BKD.flatten(0, 1).index_select(0, self.index_N)

    def all(self, x_ND: Tensor) -> Tensor:
        """(N, D) -> (B, K, D); rows of what does not live are 0."""
        if self.index_N is not None:
            every = x_ND.new_zeros((self.sentences * self.hypotheses, x_ND.size(-1)))
            x_ND = every.index_copy_(0, self.index_N, x_ND)
        return x_ND.view(self.sentences, self.hypotheses, -1)
