"""Rows of large buffers that come, go and grow: no more memory is touched than what is used.

Memory that is touched for the first time costs more than copying what is in it.

B sentences, R >= B rows of a buffer, L places, F numbers at each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nmt.kernels import move_rows


def keep_rows(x_RLF: Tensor, rows_B: Tensor, used_B: Tensor, length: int) -> Tensor:
    """Some rows of a buffer as the first ones of a buffer.

    The same buffer where they come in their order and there is room, else a new one with `length` places.

    Args:
        rows_B: int64; what stands in a row that comes again is lost.
        used_B: places of each that hold something, from the first on.
    """
    place_of: dict[int, int] = {}
    for place, row in enumerate(rows_B.tolist()):
        place_of.setdefault(row, place)
    rows, places = list(place_of), list(place_of.values())
    in_order = rows == sorted(rows) and all(place <= row for row, place in place_of.items())
    if in_order and len(rows_B) <= x_RLF.size(0):
        kept_RLF = x_RLF
    else:
        kept_RLF = x_RLF.new_empty(len(rows_B), length, x_RLF.size(2))
    places_N = torch.tensor(places, dtype=torch.long)
    move_rows(x_RLF, kept_RLF, torch.tensor(rows, dtype=torch.long), places_N, used_B[places_N])
    return kept_RLF


def longer(x_RLF: Tensor, used_B: Tensor, length: int) -> Tensor:
    """The first B rows in a new buffer with `length` places."""
    longer_BLF = x_RLF.new_empty(len(used_B), length, x_RLF.size(2))
    row_B = torch.arange(len(used_B))
    move_rows(x_RLF, longer_BLF, row_B, row_B, used_B)
    return longer_BLF
