"""Inner loops in C (`native/kernels.c`), for translation on a CPU: one pass each over what is in the cache.

They are compiled when the package is installed, where there is a compiler; `available` says whether they are
there. Whoever calls them has the same in torch beside it. Tensors are float32, int64 or int32 as said, on
the CPU, contiguous. A call uses one core, and other threads of Python run meanwhile.

N rows, B sentences, K hypotheses, S source length, T capacity in tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # of factors in training: words.h
MOST_HEAD_WIDTH = 256  # of attention: MOST_WIDTH in kernels.c

_int, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_SIGNATURES = {
    "nmt_attend_to_prefix": [
        *(_pointer, _pointer, _int, _int, _pointer, _pointer, _int, _pointer, _int),
        *(_int, _int, _float, _pointer, _pointer),
    ],
    "nmt_attend_to_source": [
        *(_pointer, _pointer, _int, _int, _pointer, _pointer, _int, _int, _int, _float, _pointer, _pointer)
    ],
    "nmt_move_rows": [_pointer, _int, _pointer, _int, _pointer, _pointer, _pointer, _int, _int],
    "nmt_attend_additively": [
        *(_pointer, _int, _int, _pointer, _pointer, _pointer, _int, _int, _int, _pointer, _pointer, _pointer)
    ],
    "nmt_largest_and_sum": [_pointer, _int, _int, _pointer, _pointer],
    "nmt_top_k": [_pointer, _int, _int, _int, _pointer, _pointer],
    "nmt_quantize": [_pointer, _int, _int, _pointer, _pointer],
    "nmt_rescale": [_pointer, _int, _int, _pointer, _pointer, _pointer, _pointer],
}


@cache
def library() -> Any:
    """None where it was not compiled, or not for this processor."""
    for path in sorted(Path(__file__).parent.glob("_kernels*.so")):
        try:
            found = ctypes.CDLL(str(path))
            for name, arguments in _SIGNATURES.items():
                function = getattr(found, name)
                function.argtypes, function.restype = arguments, None
        except (OSError, AttributeError):
            continue
        return found
    return None


def available() -> bool:
    return library() is not None


def usable(x: Tensor) -> bool:
    """Whether a kernel can read this tensor."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() and available()


def attend_to_prefix(
    projected_NE: Tensor,
    place_N: Tensor,
    hypotheses: int,
    length_B: Tensor,
    cache_BLF: Tensor,
    ancestors_BKT: Tensor,
    heads: int,
) -> Tensor:
    """Multi-head self-attention of one more token of N hypotheses: (N, D).

    Args:
        projected_NE: query, key and value, E = 3D.
        place_N: int64, flat indices b * K + k, each at most once.
        length_B: int64, tokens before this one.
        cache_BLF: keys and values in slots, F = 2D; written to at slot length * K + k.
        ancestors_BKT: int32, slots of each hypothesis's tokens; written to at position length.
    """
    width = projected_NE.size(1) // 3
    context_ND = projected_NE.new_empty(len(projected_NE), width)
    scores = projected_NE.new_empty(ancestors_BKT.size(2))
    library().nmt_attend_to_prefix(
        projected_NE.data_ptr(),
        place_N.data_ptr(),
        len(place_N),
        hypotheses,
        length_B.data_ptr(),
        cache_BLF.data_ptr(),
        cache_BLF.size(1),
        ancestors_BKT.data_ptr(),
        ancestors_BKT.size(2),
        heads,
        width // heads,
        (width // heads) ** -0.5,
        scores.data_ptr(),
        context_ND.data_ptr(),
    )
    return context_ND


def attend_to_source(
    query_ND: Tensor, place_N: Tensor, hypotheses: int, count_B: Tensor, memory_BSF: Tensor, heads: int
) -> Tensor:
    """Multi-head attention of N hypotheses over the first `count` keys of their sentences: (N, D).

    Args:
        place_N: int64, flat indices b * K + k.
        count_B: int64, source tokens.
        memory_BSF: keys and values, F = 2D.
    """
    width = query_ND.size(1)
    context_ND = torch.empty_like(query_ND)
    scores = query_ND.new_empty(memory_BSF.size(1))
    library().nmt_attend_to_source(
        query_ND.data_ptr(),
        place_N.data_ptr(),
        len(place_N),
        hypotheses,
        count_B.data_ptr(),
        memory_BSF.data_ptr(),
        memory_BSF.size(1),
        heads,
        width // heads,
        (width // heads) ** -0.5,
        scores.data_ptr(),
        context_ND.data_ptr(),
    )
    return context_ND


def move_rows(x_RLF: Tensor, into_RLF: Tensor, row_N: Tensor, place_N: Tensor, used_N: Tensor) -> None:
    """The first `used` of L of these rows of x become those in these places of the other buffer.

    Of the same buffer where rows and places ascend and no place is above its row. Indices are int64; L and R
    may differ.
    """
    block = x_RLF.stride(1) * x_RLF.itemsize
    library().nmt_move_rows(
        *(x_RLF.data_ptr(), x_RLF.size(1) * block, into_RLF.data_ptr(), into_RLF.size(1) * block),
        *(row_N.data_ptr(), place_N.data_ptr(), used_N.data_ptr(), len(row_N), block),
    )


def attend_additively(
    query_BQA: Tensor, count_B: Tensor, keys_BSA: Tensor, values_BSD: Tensor, energy_A: Tensor
) -> tuple[Tensor, Tensor]:
    """energy' tanh(query + key) over the first `count` (int64) keys of each sentence.

    Returns:
        Context (B, Q, D) and weights (B, Q, S).
    """
    sentences, queries, width = query_BQA.shape
    positions, value_width = values_BSD.shape[1:]
    context_BQD = query_BQA.new_empty(sentences, queries, value_width)
    weights_BQS = query_BQA.new_empty(sentences, queries, positions)
    library().nmt_attend_additively(
        query_BQA.data_ptr(),
        sentences * queries,
        queries,
        count_B.data_ptr(),
        keys_BSA.data_ptr(),
        values_BSD.data_ptr(),
        positions,
        width,
        value_width,
        energy_A.data_ptr(),
        weights_BQS.data_ptr(),
        context_BQD.data_ptr(),
    )
    return context_BQD, weights_BQS


def log_total(scores_NV: Tensor) -> Tensor:
    """log sum_v exp(score) of each row: (N, 1)."""
    largest_N1, sum_N1 = scores_NV.new_empty(2, len(scores_NV), 1)
    library().nmt_largest_and_sum(
        scores_NV.data_ptr(), *scores_NV.shape, largest_N1.data_ptr(), sum_N1.data_ptr()
    )
    total_N1: Tensor = sum_N1.log_().add_(largest_N1)
    return total_N1


def top_k(scores_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As ``scores_NV.topk(k)``; of equal scores the first."""
    best_NK = scores_NV.new_empty(len(scores_NV), k)
    token_NK = torch.empty_like(best_NK, dtype=torch.long)
    library().nmt_top_k(scores_NV.data_ptr(), *scores_NV.shape, k, best_NK.data_ptr(), token_NK.data_ptr())
    return best_NK, token_NK


def quantize(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8, 127 the largest entry of each, and scales (N, 1): x is near the int8 times the scale."""
    quantized_NI = torch.empty_like(x_NI, dtype=torch.int8)
    scale_N1 = x_NI.new_empty(len(x_NI), 1)
    library().nmt_quantize(x_NI.data_ptr(), *x_NI.shape, quantized_NI.data_ptr(), scale_N1.data_ptr())
    return quantized_NI, scale_N1


def rescale(product_NO: Tensor, scale_N1: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """product (int32) * scale_N1 * scale_O + bias, float32."""
    y_NO = torch.empty_like(product_NO, dtype=torch.float32)
    library().nmt_rescale(
        product_NO.data_ptr(),
        *product_NO.shape,
        scale_N1.data_ptr(),
        scale_O.data_ptr(),
        None if bias_O is None else bias_O.data_ptr(),
        y_NO.data_ptr(),
    )
    return y_NO
