"""No n-gram of tokens twice in a translation.

B sentences, K hypotheses, n of them in a piece, T target positions, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nmt.search import Rows


def ban_repeated(rows: Rows, scores_nV: Tensor, flat_n: Tensor, size: int) -> None:
    """Make -inf, in place, the scores of tokens that would end an n-gram of `size` tokens a second time.

    `flat_n` says of which hypotheses the scores are, by index b * K + k.
    """
    longest = rows.longest
    if longest < size:
        return
    prefix_nT = rows.prefix_BKT.flatten(0, 1)[flat_n, :longest]
    length_n1 = rows.length_B[flat_n.div(rows.score_BK.size(1), rounding_mode="floor")][:, None]
    starts = longest - size + 1
    place_J = torch.arange(starts, device=flat_n.device)
    # n-grams that begin at each place, are over, and have the last tokens before their own last.
    again_nJ = place_J + size <= length_n1
    for offset in range(size - 1):
        # A row that no sentence has any more may be longer.
        last_n1 = prefix_nT.gather(1, (length_n1 - size + 1 + offset).clamp(0, longest - 1))
        again_nJ = again_nJ & (prefix_nT[:, offset : offset + starts] == last_n1)
    cost_nJ = torch.where(again_nJ, -math.inf, math.inf).to(scores_nV.dtype)
    scores_nV.scatter_reduce_(1, prefix_nT[:, size - 1 :], cost_nJ, reduce="amin")
