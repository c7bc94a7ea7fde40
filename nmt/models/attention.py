"""Attention, in historical order: additive (Bahdanau 2014), global and local (Luong 2015), multi-head
(Vaswani 2017).

B sentences, Q queries, S source positions (or any keys), D width, A attention width, H heads,
N width of a head. Masks are True where attention may look. Every function returns its weights from
the code that computes its result, so what is looked at is what was trained.

The recurrent kinds have one interface: `project_keys` once a sentence, then `forward` for each query.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import kernels, short_attention
from nmt.linear import Linear
from nmt.models.dropout import dropout as drop
from nmt.models.packed import linear_part
from nmt.models.parts import parts
from nmt.models.positions import RelativePositions, rotate
from nmt.models.rows import Live

# --- Bahdanau, Cho and Bengio 2014 ----------------------------------------------------------------------


class AdditiveAttention(nn.Module):
    """e_ij = v' tanh(W s_{i-1} + U h_j) (Bahdanau et al. 2014, appendix A.1.2).

    Args:
        dropout: rate on the weights.
    """

    def __init__(self, query_width: int, key_width: int, attention_width: int, dropout: float = 0.0):
        super().__init__()
        self.query = Linear(query_width, attention_width, bias=False)
        self.key = Linear(key_width, attention_width, bias=False)
        self.energy = Linear(attention_width, 1, bias=False)
        self.dropout = dropout

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        """U h_j, which no query changes: (B, S, D) -> (B, S, A)."""
        projected: Tensor = self.key(values_BSD)
        return projected

    def forward(
        self, query_BQD: Tensor, keys_BSA: Tensor, values_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Context (B, Q, D) and weights (B, Q, S); padding, which comes last, gets exactly 0."""
        query_BQA = self.query(query_BQD)
        inference = not torch.is_grad_enabled() and not (self.training and self.dropout)
        if inference and all(map(kernels.usable, (query_BQA, keys_BSA, values_BSD))):
            count_B, energy_A = mask_BS.sum(dim=1), self.energy.weight[0]
            return kernels.attend_additively(query_BQA, count_B, keys_BSA, values_BSD, energy_A)
        scores_BQS = _additive_scores(query_BQA, keys_BSA, self.energy)
        weights_BQS = _masked_softmax(scores_BQS, mask_BS[:, None])
        return drop(weights_BQS, self.dropout, self.training) @ values_BSD, weights_BQS


def _additive_scores(query_BQA: Tensor, keys_BSA: Tensor, energy: nn.Linear) -> Tensor:
    """v' tanh(q + k) of every query and key: (B, Q, S)."""
    features_BQSA = torch.tanh(query_BQA[:, :, None] + keys_BSA[:, None])
    scores_BQS: Tensor = energy(features_BQSA).squeeze(-1)
    return scores_BQS


# --- Luong, Pham and Manning 2015 -----------------------------------------------------------------------
#
# score(h_t, h_s) of eq. 7 and 8. What depends on h_s alone is its key, computed once a sentence.


class DotScore(nn.Module):
    """h_t' h_s."""

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        return values_BSD

    def forward(self, query_BQD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, Q, S)."""
        return query_BQD @ keys_BSD.transpose(1, 2)


class GeneralScore(nn.Module):
    """h_t' W_a h_s; the keys are W_a h_s."""

    def __init__(self, width: int):
        super().__init__()
        self.key = Linear(width, width, bias=False)

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        projected: Tensor = self.key(values_BSD)
        return projected

    def forward(self, query_BQD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, Q, S)."""
        return query_BQD @ keys_BSD.transpose(1, 2)


class ConcatScore(nn.Module):
    """v_a' tanh(W_a [h_t; h_s]), with W_a in two halves; the keys are the half of h_s."""

    def __init__(self, width: int):
        super().__init__()
        self.query = Linear(width, width, bias=False)
        self.key = Linear(width, width, bias=False)
        self.energy = Linear(width, 1, bias=False)

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        projected: Tensor = self.key(values_BSD)
        return projected

    def forward(self, query_BQD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, Q, S)."""
        return _additive_scores(self.query(query_BQD), keys_BSD, self.energy)


class LocationScore(nn.Module):
    """W_a h_t (eq. 8): the target state alone scores the positions; row s of W_a is position s.

    A source longer than the table is a ValueError.
    """

    keeps_linear = True  # another part of the table is read in each batch: nothing to pack

    def __init__(self, width: int, positions: int):
        super().__init__()
        self.position = Linear(width, positions, bias=False)

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        return values_BSD  # only their number is read

    def forward(self, query_BQD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, Q, S)."""
        count = keys_BSD.size(1)
        if count > self.position.out_features:
            raise ValueError(
                f"a source of {count} tokens is longer than model.max_positions = "
                f"{self.position.out_features}"
            )
        return F.linear(query_BQD, self.position.weight[:count])


class LuongAttention(nn.Module):
    """Attention with the current target state: a score, and a window on the source.

    "global" looks everywhere (sec. 3.1). "local-m" looks at p_t - D .. p_t + D with p_t = t, at the
    last words once the target is longer than the source. "local-p" predicts
    p_t = S sigmoid(v_p' tanh(W_p h_t)) (eq. 9) and multiplies the weights by a Gaussian around it with
    sigma = D / 2 (eq. 10): its rows sum to less than 1, as in the paper. Positions count from 1; words
    beyond the sentence are ignored (sec. 3.2).

    Args:
        width: of target states and source states.
        score: "dot", "general", "concat" or "location".
        window: "global", "local-m" or "local-p".
        window_size: D.
        max_positions: rows of the "location" table.
        dropout: rate on the weights.
    """

    def __init__(
        self,
        width: int,
        *,
        score: str,
        window: str = "global",
        window_size: int = 10,
        max_positions: int = 1024,
        dropout: float = 0.0,
    ):
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "dot": DotScore,
            "general": lambda: GeneralScore(width),
            "concat": lambda: ConcatScore(width),
            "location": lambda: LocationScore(width, max_positions),
        }
        self.score = kinds[score]()
        self.window = window
        self.window_size = window_size
        if window == "local-p":
            self.predictor = Linear(width, width, bias=False)  # W_p
            self.predictor_energy = Linear(width, 1, bias=False)  # v_p
        self.dropout = dropout

    def project_keys(self, values_BSD: Tensor) -> Tensor:
        """What the score needs of each source state: (B, S, D) -> (B, S, D)."""
        projected: Tensor = self.score.project_keys(values_BSD)  # type: ignore[operator]
        return projected

    def forward(
        self, query_BQD: Tensor, keys_BSD: Tensor, values_BSD: Tensor, mask_BS: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Context (B, Q, D) and weights (B, Q, S); padding and what is outside the window get exactly 0.

        Args:
            position: the target position t of each query, from 1: (Q,), or (B, 1) where those of a sentence
                have one.
        """
        allowed_BQS = mask_BS[:, None]
        distance_BQS = None
        if self.window != "global":
            distance_BQS = self._distance(query_BQD, mask_BS, position)
            allowed_BQS = allowed_BQS & (distance_BQS.abs() <= self.window_size)
        weights_BQS = _masked_softmax(self.score(query_BQD, keys_BSD), allowed_BQS)
        if self.window == "local-p" and distance_BQS is not None:
            deviation = self.window_size / 2
            gaussian_BQS = torch.exp(-(distance_BQS**2) / (2 * deviation**2))
            weights_BQS = weights_BQS * gaussian_BQS.to(weights_BQS.dtype)
        return drop(weights_BQS, self.dropout, self.training) @ values_BSD, weights_BQS

    def _distance(self, query_BQD: Tensor, mask_BS: Tensor, position: Tensor) -> Tensor:
        """s - p_t: (B, Q or 1, S)."""
        length_B1 = mask_BS.sum(dim=1, keepdim=True)
        if self.window == "local-m":
            center_BQ = torch.minimum(position, length_B1)
        else:
            energy_BQ = self.predictor_energy(torch.tanh(self.predictor(query_BQD))).squeeze(-1)
            # At least float32: positions need more digits than bfloat16 has.
            share_BQ = energy_BQ.to(torch.promote_types(energy_BQ.dtype, torch.float32)).sigmoid()
            center_BQ = length_B1 * share_BQ
        position_S = torch.arange(1, mask_BS.size(1) + 1, device=mask_BS.device)
        return position_S - center_BQ[:, :, None]


def _masked_softmax(scores_BQS: Tensor, allowed_BQS: Tensor) -> Tensor:
    """Softmax over the allowed positions; the others get exactly 0."""
    return scores_BQS.masked_fill(~allowed_BQS, -math.inf).softmax(dim=-1)


# --- Vaswani et al. 2017 --------------------------------------------------------------------------------


class MultiHeadProjections(nn.Module):
    """The four matrices of multi-head attention (Vaswani et al. 2017, sec. 3.2.2), keys and values in one.

    Self-attention calls `query_key_value`, which is one product; attention over a memory calls
    `query` for each target position and `key_value` once a sentence.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.input = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def query_key_value(
        self, x_BQD: Tensor, rotation_QM: Tensor | None = None, live: Live | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors (B, H, Q, N), queries and keys rotated where a rotation is given.

        With `live` x is (N, D), and the queries are the K hypotheses of each sentence, in all methods.
        """
        projected = self.input(x_BQD)
        if live is not None:
            projected = live.all(projected)
        query, key, value = map(self._split, parts(projected, 3))
        if rotation_QM is not None:
            query, key = rotate(query, rotation_QM), rotate(key, rotation_QM)
        return query, key, value

    def query(self, x_BQD: Tensor, live: Live | None = None) -> Tensor:
        """(B, H, Q, N)."""
        query = linear_part(self.input, x_BQD, slice(0, x_BQD.size(-1)))
        return self._split(query if live is None else live.all(query))

    def key_value(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors (B, H, S, N), contiguous without gradients: every step of a search reads them."""
        both = linear_part(self.input, memory_BSD, slice(memory_BSD.size(-1), None))
        key, value = map(self._split, parts(both, 2))
        return (key, value) if both.requires_grad else (key.contiguous(), value.contiguous())

    def merge(self, context_BHQN: Tensor, live: Live | None = None) -> Tensor:
        """Concatenate the heads and apply the output matrix: (B, Q, D)."""
        joined = context_BHQN.transpose(1, 2).flatten(2)
        merged: Tensor = self.output(joined if live is None else live.rows(joined))
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
    causal: bool = False,
    relative: RelativePositions | None = None,
    distance_B1QS: Tensor | None = None,
    dropout: float = 0.0,
    record: list[Tensor] | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(N)) v (Vaswani et al. 2017, eq. 1).

    Args:
        bias: added to the scores: 0 where attention may look, -inf elsewhere (`additive_mask`);
            broadcasts to (B, H, Q, S).
        causal: instead of a bias: query i looks at keys 0..i. A mask would rule out the fastest kernel.
        relative, distance_B1QS: embeddings of distances, and the distance of each key from each query.
        dropout: rate on the weights.
        record: if given, the weights (B, H, Q, S) are appended.

    Returns:
        Context (B, H, Q, N).
    """
    pairs = query_BHQN.size(2) * key_BHSN.size(2)
    plain = record is None and relative is None
    # On a CPU the kernel that drops weights is not fused.
    fused = query_BHQN.is_cuda or (pairs > _FUSED_FROM and not dropout)
    # Without gradients ours at any length: a sentence's bits must not depend on the longest beside it.
    ours = not dropout and not (fused and torch.is_grad_enabled())
    if plain and ours and short_attention.usable(query_BHQN, key_BHSN, value_BHSN, bias):
        return short_attention.attend(query_BHQN, key_BHSN, value_BHSN, bias, causal=causal)
    if plain and fused:
        return F.scaled_dot_product_attention(
            query_BHQN, key_BHSN, value_BHSN, attn_mask=bias, dropout_p=dropout, is_causal=causal
        )
    query_BHQN = query_BHQN * query_BHQN.size(-1) ** -0.5
    scores = query_BHQN @ key_BHSN.transpose(-1, -2)
    if relative is not None and distance_B1QS is not None:
        scores = scores + relative.scores(query_BHQN, distance_B1QS)
    if causal:
        bias = causal_mask(query_BHQN.size(2), query_BHQN)
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(dim=-1)
    if record is not None:
        record.append(weights)
    weights = drop(weights, dropout, True)
    context = weights @ value_BHSN
    if relative is not None and distance_B1QS is not None:
        context = context + relative.context(weights, distance_B1QS)
    return context


def additive_mask(mask: Tensor, like: Tensor) -> Tensor:
    """0 where the mask is True, -inf elsewhere, so that masked weights are exactly 0."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, -math.inf)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive mask (T, T): position t looks at 0..t."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    return additive_mask(allowed, like)
