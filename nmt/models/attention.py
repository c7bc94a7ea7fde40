"""Attention, in historical order: additive (Bahdanau 2014), then multi-head (Vaswani 2017).

B sentences, Q queries, S source positions (or any keys), D width, H heads, N width of a head.
Masks are True where attention may look. Every function returns its weights from the code that
computes its result, so what is looked at is what was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdditiveAttention(nn.Module):
    """e_ij = v' tanh(W s_{i-1} + U h_j) (Bahdanau et al. 2014, appendix A.1.2).

    The keys U h_j do not depend on the query: project them once a sentence with `project_keys`.
    """

    def __init__(self, query_width: int, key_width: int, attention_width: int):
        super().__init__()
        self.query = nn.Linear(query_width, attention_width, bias=False)
        self.key = nn.Linear(key_width, attention_width, bias=False)
        self.energy = nn.Linear(attention_width, 1, bias=False)

    def project_keys(self, hidden_BSD: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, attention_width)."""
        projected: Tensor = self.key(hidden_BSD)
        return projected

    def forward(
        self, query_BQD: Tensor, keys_BSA: Tensor, values_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Context (B, Q, D) and weights (B, Q, S); padding gets exactly 0."""
        query_BQA = self.query(query_BQD)
        features_BQSA = torch.tanh(query_BQA[:, :, None] + keys_BSA[:, None])
        energy_BQS = self.energy(features_BQSA).squeeze(-1)
        energy_BQS = energy_BQS.masked_fill(~mask_BS[:, None], -math.inf)
        weights_BQS = energy_BQS.softmax(dim=-1)
        return weights_BQS @ values_BSD, weights_BQS


class MultiHeadProjections(nn.Module):
    """The four matrices of multi-head attention (Vaswani et al. 2017, sec. 3.2.2), keys and values in one.

    Self-attention calls `query_key_value`, which is one product; attention over a memory calls
    `query` for each target position and `key_value` once a sentence.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def query_key_value(self, x_BQD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors (B, H, Q, N)."""
        query, key, value = self.input(x_BQD).chunk(3, dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def query(self, x_BQD: Tensor) -> Tensor:
        """(B, H, Q, N)."""
        width = x_BQD.size(-1)
        return self._split(F.linear(x_BQD, self.input.weight[:width], self.input.bias[:width]))

    def key_value(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors (B, H, S, N), contiguous: every step of a search reads them."""
        width = memory_BSD.size(-1)
        both = F.linear(memory_BSD, self.input.weight[width:], self.input.bias[width:])
        key, value = both.chunk(2, dim=-1)
        return self._split(key).contiguous(), self._split(value).contiguous()

    def merge(self, context_BHQN: Tensor) -> Tensor:
        """Concatenate the heads and apply the output matrix: (B, Q, D)."""
        merged: Tensor = self.output(context_BHQN.transpose(1, 2).flatten(2))
        return merged

    def _split(self, x_BQD: Tensor) -> Tensor:
        sentences, queries, width = x_BQD.shape
        return x_BQD.view(sentences, queries, self.heads, width // self.heads).transpose(1, 2)


# Above this many query-key pairs the fused kernel is faster on a CPU, and it holds no scores.
_FUSED_FROM = 64 * 96


def scaled_dot_product(
    query_BHQN: Tensor,
    key_BHSN: Tensor,
    value_BHSN: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    record: list[Tensor] | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(N)) v (Vaswani et al. 2017, eq. 1).

    Args:
        bias: added to the scores: 0 where attention may look, -inf elsewhere (`additive_mask`);
            broadcasts to (B, H, Q, S).
        dropout: rate on the weights.
        record: if given, the weights (B, H, Q, S) are appended.

    Returns:
        Context (B, H, Q, N).
    """
    pairs = query_BHQN.size(2) * key_BHSN.size(2)
    if record is None and (query_BHQN.is_cuda or pairs > _FUSED_FROM):
        return F.scaled_dot_product_attention(
            query_BHQN, key_BHSN, value_BHSN, attn_mask=bias, dropout_p=dropout
        )
    scores = (query_BHQN * query_BHQN.size(-1) ** -0.5) @ key_BHSN.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(dim=-1)
    if record is not None:
        record.append(weights)
    return F.dropout(weights, dropout) @ value_BHSN if dropout else weights @ value_BHSN


def additive_mask(mask: Tensor, like: Tensor) -> Tensor:
    """0 where the mask is True, -inf elsewhere, so that masked weights are exactly 0."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, -math.inf)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive mask (T, T): position t looks at 0..t."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    return additive_mask(allowed, like)
