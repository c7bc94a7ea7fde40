"""Positions: sinusoidal and learned (Vaswani 2017), relative (Shaw 2018), rotary (Su 2021).

The first two are added to the embeddings; the last two act inside self-attention.

B sentences, T positions, D width, H heads, Q queries, S keys, N width of a head, M = N / 2 pairs,
P = 2k + 1 clipped distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from nmt.models.dropout import dropout

# --- added to the embeddings ------------------------------------------------------------------------------


def sinusoidal_positions(first: int, count: int, width: int, like: Tensor) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos(same) (Vaswani et al. 2017, sec. 3.5).

    Returns:
        (count, D) for positions first .. first + count - 1, on the device and of the type of `like`.
    """
    angle = _angles(torch.arange(first, first + count, device=like.device), width)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(like.dtype)


def _angles(position_T: Tensor, width: int) -> Tensor:
    """pos / 10000^(2i/width): (T, width / 2), in float64 because float32 is off by 1e-4 at position 2000."""
    exponent = torch.arange(0, width, 2, device=position_T.device, dtype=torch.float64) / width
    return position_T[:, None] * torch.exp(exponent * -math.log(10_000.0))


class PositionalEmbedding(nn.Module):
    """Token embedding times sqrt(D), plus position, with dropout (Vaswani et al. 2017, sec. 3.4 and 3.5).

    Positions other than "sinusoidal" and "learned" are not added here.
    """

    def __init__(self, width: int, *, positions: str, max_positions: int, dropout: float):
        super().__init__()
        self.scale = math.sqrt(width)
        self.dropout = dropout
        self.sinusoidal = positions == "sinusoidal"
        self.table = nn.Embedding(max_positions, width) if positions == "learned" else None

    def forward(self, embedded_BTD: Tensor, first: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D); position 0 of the argument is position `first` of the sentence."""
        count, width = embedded_BTD.shape[-2:]
        x_BTD = embedded_BTD * self.scale
        if self.sinusoidal:
            x_BTD = x_BTD + sinusoidal_positions(first, count, width, embedded_BTD)
        elif self.table is not None:
            if first + count > self.table.num_embeddings:
                raise ValueError(
                    f"a sentence of {first + count} tokens is longer than model.max_positions = "
                    f"{self.table.num_embeddings}"
                )
            x_BTD = x_BTD + self.table.weight[first : first + count]
        return dropout(x_BTD, self.dropout, self.training)

    def at(self, embedded_BKD: Tensor, position_B1: Tensor) -> Tensor:
        """As `forward`, of tokens that stand at a position of each sentence's own."""
        x_BKD = embedded_BKD * self.scale
        if self.sinusoidal and x_BKD.is_cuda:  # without asking the device how long the longest is
            angle = _angles(position_B1.flatten(), x_BKD.size(-1))
            at_BD = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(x_BKD.dtype)
            x_BKD = x_BKD + at_BD.view(*position_B1.shape, -1)
        elif self.sinusoidal:
            longest = 1 << int(position_B1.max()).bit_length()
            x_BKD = x_BKD + _sinusoidal_table(longest, x_BKD.size(-1), x_BKD.device, x_BKD.dtype)[position_B1]
        elif self.table is not None:
            # Beyond the table there is only what is decoded in rows that no sentence has any more.
            x_BKD = x_BKD + self.table(position_B1.clamp(max=self.table.num_embeddings - 1))
        return dropout(x_BKD, self.dropout, self.training)


@lru_cache(maxsize=8)
def _sinusoidal_table(count: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return sinusoidal_positions(0, count, width, torch.empty(0, device=device, dtype=dtype))


# --- inside self-attention --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where queries and keys of self-attention stand, the same for all layers; empty for added positions."""

    rotation_QM: Tensor | None = None  # rotary: of the queries, and of the keys that come with them
    distance_B1QS: Tensor | None = None  # relative: of each key from each query, an index of the tables


class RelativePositions(nn.Module):
    """Shaw, Uszkoreit and Vaswani 2018: an embedding of the distance j - i in each key and each value.

    e_ij = q_i (k_j + a^K_ij)' / sqrt(N) (eq. 4) and z_i = sum_j alpha_ij (v_j + a^V_ij) (eq. 3), where
    a_ij = w_clip(j - i, -k, k) is shared by the heads. A query has only P different a^K_ij and as many
    a^V_ij: its scores are gathered from P products and its weights added up for P values, so that the
    (Q, S, N) tensor of the a_ij is never built.
    """

    def __init__(self, distance: int, width: int):
        super().__init__()
        self.keys = nn.Parameter(torch.empty(2 * distance + 1, width))
        self.values = nn.Parameter(torch.empty(2 * distance + 1, width))
        nn.init.xavier_uniform_(self.keys)
        nn.init.xavier_uniform_(self.values)

    def scores(self, query_BHQN: Tensor, distance_B1QS: Tensor) -> Tensor:
        """q_i a^K_ij': (B, H, Q, S)."""
        products_BHQP = query_BHQN @ self.keys.t()
        return products_BHQP.gather(-1, distance_B1QS.expand(*query_BHQN.shape[:3], -1))

    def context(self, weights_BHQS: Tensor, distance_B1QS: Tensor) -> Tensor:
        """sum_j alpha_ij a^V_ij: (B, H, Q, N)."""
        sums_BHQP = weights_BHQS.new_zeros(*weights_BHQS.shape[:3], self.values.size(0))
        return sums_BHQP.scatter_add(-1, distance_B1QS.expand_as(weights_BHQS), weights_BHQS) @ self.values


def clipped_distances(position_Q: Tensor, position_BS: Tensor, distance: int) -> Tensor:
    """clip(j - i, -k, k) + k, the row of a_ij in the tables: (B, 1, Q, S)."""
    return (position_BS[:, None, None] - position_Q[:, None]).clamp(-distance, distance) + distance


def rotation(position_T: Tensor, width: int, like: Tensor) -> Tensor:
    """e^(i m theta_j), theta_j = 10000^(-2j/N), j = 0 .. N/2 - 1, at positions m (Su et al. 2021, eq. 15).

    Returns:
        (T, M), complex of the precision of `like`, of float32 at least.
    """
    angle = _angles(position_T, width)
    double = like.dtype == torch.float64
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex128 if double else torch.complex64)


def rotate(x_BHTN: Tensor, rotation_TM: Tensor) -> Tensor:
    """Turn each pair of neighbours, elements 2j and 2j + 1, by m theta_j (Su et al. 2021, eq. 34).

    The product of two rotated vectors depends on the distance of their positions alone. A Llama turns
    elements j and j + N/2 instead: the same model with the rows of its matrices in another order.
    """
    real_BHTN = x_BHTN.to(rotation_TM.dtype.to_real())
    pairs_BHTM = torch.view_as_complex(real_BHTN.view(*x_BHTN.shape[:-1], -1, 2))
    return torch.view_as_real(pairs_BHTM * rotation_TM).flatten(-2).to(x_BHTN.dtype)
