"""Guided alignment: one head's attention over the source is trained to agree with word links that are given.

Chen et al. 2016, "Guided alignment training for topic-aware neural machine translation", sec. 4; one head of
a Transformer, and links of subwords: Garg et al. 2019, "Jointly learning to align and translate with
Transformer models", sec. 4.2.

B sentences, H heads, T and S target and source tokens, N links.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Attention of 0, outside of a local window for example, cannot be trained: its logarithm is that of this.
_LEAST = 1e-20


class Record(list[Tensor]):
    """What attention weights are appended to. Not a plain list: where parameters are sharded, some versions
    of torch hand a layer copies of the lists among its arguments, which nobody reads."""


@dataclass(frozen=True)
class Guided:
    """Whose attention is trained, and how much of the loss that is."""

    weight: float
    layer: int  # of the decoder, from 0
    head: int  # from 0

    def loss(self, weights_BHTS: Tensor, links_N3: npt.NDArray[np.int64]) -> Tensor:
        """`alignment_loss` of the head, times its weight.

        Args:
            weights_BHTS: attention of the layer over the source, before its dropout.
        """
        return self.weight * alignment_loss(weights_BHTS[:, self.head], links_N3)


def alignment_loss(weights_BTS: Tensor, links_N3: npt.NDArray[np.int64]) -> Tensor:
    """-sum over target tokens t with links A_t of 1/|A_t| sum over s in A_t of log a_ts, in nats.

    That is the cross-entropy of attention against links that share a target token's weight evenly (Garg et
    al. 2019, eq. 4), summed, not divided by the length: the caller divides once, as with `nmt.loss`. Target
    tokens without links have no part in it.

    Args:
        links_N3: sentence, source token, target token; each once.
    """
    row_N, source_N, target_N = links_N3.T
    place_N = row_N * weights_BTS.size(1) + target_N
    _, inverse_N, count_N = np.unique(place_N, return_inverse=True, return_counts=True)
    device = weights_BTS.device
    index_3N = torch.from_numpy(np.stack([row_N, target_N, source_N])).to(device)
    at_links_N = weights_BTS[index_3N[0], index_3N[1], index_3N[2]]
    at_links_N = at_links_N.to(torch.promote_types(at_links_N.dtype, torch.float32)).clamp_min(_LEAST)
    share_N = torch.from_numpy(1 / count_N[inverse_N]).to(at_links_N)
    return -(share_N * at_links_N.log()).sum()
