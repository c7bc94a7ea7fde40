"""The coverage penalty: translations that leave source words out score lower (Wu et al. 2016, eq. 14).

B sentences, K hypotheses, H heads, S source length with the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt.models.rows import put_rows

# Less attention than this counts as this: a word outside a window would make a score of -inf.
_LEAST = 1e-6


def mean_attention(records: Sequence[Sequence[Tensor]]) -> Tensor:
    """The mean (B, K, S) of the layers and heads, each (B, H, K, S), of models: of theirs the mean."""
    models = [torch.stack([layer.mean(dim=1) for layer in layers]).mean(dim=0) for layers in records]
    return models[0] if len(models) == 1 else torch.stack(models).mean(dim=0)


def coverage_penalty(attended_BKS: Tensor, mask_BS: Tensor) -> Tensor:
    """sum over source tokens j of log(min(sum over target tokens i of p_ij, 1)), (B, K); at most 0.

    Args:
        attended_BKS: the attention p that each source token, the end counted, has had from all target tokens
            and the end.
        mask_BS: True at source tokens.
    """
    log_BKS = attended_BKS.double().clamp(_LEAST, 1.0).log()
    return log_BKS.masked_fill(~mask_BS[:, None], 0.0).sum(dim=-1)


@dataclass(frozen=True)
class Attended:
    """The attention that each source token has had from each hypothesis; a `nmt.search.SearchState`."""

    sum_BKS: Tensor
    mask_BS: Tensor  # True at source tokens that count

    @classmethod
    def nothing(cls, mask_BS: Tensor, *, tagged: bool = False) -> Attended:
        """Before the first token, one hypothesis a sentence; `tagged`: the first column is of no word."""
        if tagged:
            mask_BS = mask_BS.index_fill(1, torch.zeros(1, dtype=torch.long, device=mask_BS.device), False)
        return cls(torch.zeros_like(mask_BS, dtype=torch.float64)[:, None], mask_BS)

    def add(self, records: Sequence[Sequence[Tensor]]) -> Attended:
        """With the attention of one more token; see `mean_attention`.

        A model may have fewer columns, or more, where there is nothing but padding.
        """
        width = self.sum_BKS.size(2)
        fitting = [
            [F.pad(layer, (0, max(0, width - layer.size(3))))[..., :width] for layer in layers]
            for layers in records
        ]
        return replace(self, sum_BKS=self.sum_BKS + mean_attention(fitting))

    def select(self, beam_BK: Tensor) -> Attended:
        index_BKS = beam_BK[:, :, None].expand(-1, -1, self.sum_BKS.size(2))
        return replace(self, sum_BKS=self.sum_BKS.gather(1, index_BKS))

    def keep(self, sentences_B: Tensor) -> Attended:
        return Attended(self.sum_BKS[sentences_B], self.mask_BS[sentences_B])

    def put(self, sentences_R: Tensor, other: Attended) -> Attended:
        return Attended(
            put_rows(self.sum_BKS, sentences_R, other.sum_BKS, dim=2),
            put_rows(self.mask_BS, sentences_R, other.mask_BS, dim=1),
        )


class Coverage:
    """What one search knows of coverage: the bonus, 0 or less, of the hypotheses that end in this step."""

    def __init__(self, beta: float):
        self.beta = beta
        self._bonus_BK: Tensor | None = None

    def see(self, attended: Attended) -> None:
        """After the step function, with its state."""
        self._bonus_BK = self.beta * coverage_penalty(attended.sum_BKS, attended.mask_BS)

    def bonus(self) -> Tensor:
        """(B, K)."""
        assert self._bonus_BK is not None
        return self._bonus_BK
