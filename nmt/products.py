"""Matrix products and a decoder's step on one core with AVX-512 (`native/decoder.c`), for translation.

`available` says whether they are compiled and the processor has the instructions; whoever calls them has the
same in torch beside it. A row's result does not depend on the rows beside it, to the last bit.

N rows, I and O widths of input and output, B sentences, K hypotheses, T capacity in tokens, L = T * K
slots, D width, F = 2D, C candidates.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import kernels

_PANEL = 32  # PANEL in products.h
_FEW, _MANY = 48, 192  # rows of a block: whole tiles
_CACHED = 8 << 20  # bytes of weights that stay in a processor's cache

_int, _pointer = ctypes.c_int64, ctypes.c_void_p


class _Matrix(ctypes.Structure):
    """nmt_matrix in products.h."""

    _fields_ = [
        *((name, _pointer) for name in ("panels", "bias", "scales", "offsets")),
        *((name, _int) for name in ("inputs", "outputs", "width")),
    ]


class _Norm(ctypes.Structure):
    """nmt_norm in decoder.c."""

    _fields_ = [("weight", _pointer), ("bias", _pointer), ("epsilon", ctypes.c_float)]


_MATRICES = ("self_input", "self_output", "cross_query", "cross_output", "inner", "outer")
_NORMS = ("self_norm", "cross_norm", "feed_norm")


class _Layer(ctypes.Structure):
    """nmt_layer in decoder.c."""

    _fields_ = [*((name, _Matrix) for name in _MATRICES), *((name, _Norm) for name in _NORMS)]


class _Step(ctypes.Structure):
    """nmt_step in decoder.c."""

    _fields_ = [
        *((name, _int) for name in ("width", "feed_width", "heads", "hypotheses")),
        *(("place", _pointer), ("length", _pointer), ("capacity", _int), ("ancestors", _pointer)),
        *(("most", _int), ("count", _pointer), ("positions", _int), ("pre_norm", _int), ("block", _int)),
    ]


_SIGNATURES: dict[str, list[Any]] = {
    "nmt_can_multiply": [],
    "nmt_multiply_room": [_int],
    "nmt_multiply": [_pointer, _pointer, _int, _pointer, _pointer],
    "nmt_decode_room": [_int, _int, _int, _int],
    "nmt_decode": [*[_pointer, _int, _pointer, _pointer, _pointer, _int], *[_pointer] * 3],
    "nmt_rank_room": [_int],
    "nmt_rank": [*[_pointer, _pointer, _int, _int, _pointer, _int, _int], *[_pointer] * 4],
}


@cache
def _library() -> Any:
    """None where the functions are not compiled, or the processor lacks the instructions."""
    library = kernels.library()
    if library is None or not hasattr(library, "nmt_can_multiply"):
        return None
    library.nmt_can_multiply.restype = _int
    if not library.nmt_can_multiply():
        return None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _int if name.endswith("_room") else None
    return library


def available() -> bool:
    return _library() is not None


class Matrix:
    """y = x W' + b, laid out for products.

    Args:
        weight_OI: float32, on the CPU; not kept.
        bias_O: or None.
        precision: "float32" or "int8": each row of W and each row of x on a scale of its own, 127 being the
            largest entry; sums are exact, results float32.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, precision: str = "float32"):
        self.outputs, self.inputs = weight_OI.shape
        short = -self.outputs % _PANEL
        weight_OI = F.pad(weight_OI.detach(), (0, 0, 0, short))
        self._bias = None if bias_O is None else F.pad(bias_O.detach(), (0, short))
        self._scales: Tensor | None = None
        self._offsets: Tensor | None = None
        padded = self.inputs
        if precision == "int8":
            self._scales = weight_OI.abs().amax(dim=1).clamp_min(1e-30) / 127
            padded += -self.inputs % 4
            whole_OI = F.pad(
                (weight_OI / self._scales[:, None]).round().to(torch.int8), (0, padded - self.inputs)
            )
            self._offsets = whole_OI.sum(dim=1, dtype=torch.int32).mul_(-128)
            panels = whole_OI.view(-1, _PANEL, padded // 4, 4).permute(0, 2, 1, 3)
        else:
            panels = weight_OI.view(-1, _PANEL, self.inputs).permute(0, 2, 1)
        self._panels = panels.contiguous()
        self.bytes = self._panels.nbytes
        self.structure = _Matrix(
            *map(_address, (self._panels, self._bias, self._scales, self._offsets)),
            padded,
            self.outputs,
            self.inputs,
        )

    def multiply(self, x_NI: Tensor) -> Tensor:
        """(N, I) -> (N, O), float32, contiguous."""
        library = self._library_for(x_NI)
        y_NO = x_NI.new_empty(len(x_NI), self.outputs)
        room = torch.empty(library.nmt_multiply_room(self.structure.inputs) // 4 + 1)
        library.nmt_multiply(
            ctypes.byref(self.structure), x_NI.data_ptr(), len(x_NI), y_NO.data_ptr(), room.data_ptr()
        )
        return y_NO

    def rank(
        self, hidden_NI: Tensor, count: int, end: int, banned: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best outputs of each row as log-probabilities: softmax over all outputs.

        Args:
            count: how many, C.
            end: an output whose log-probability is wanted in any case.
            banned: outputs that are not to be among the best.

        Returns:
            Log-probabilities (N, C), largest first, -inf where there are fewer; outputs (N, C); the
            log-probability of `end` (N, 1). All -inf where scores are not numbers.
        """
        rows, library = len(hidden_NI), self._library_for(hidden_NI)
        best_NC, ending_N1 = hidden_NI.new_empty(rows, count), hidden_NI.new_empty(rows, 1)
        token_NC = torch.empty((rows, count), dtype=torch.long)
        room = torch.empty(library.nmt_rank_room(self.structure.inputs) // 4 + 1)
        unwanted = (_int * len(banned))(*sorted(banned))
        library.nmt_rank(
            *(ctypes.byref(self.structure), hidden_NI.data_ptr(), rows, end, unwanted, len(banned), count),
            *(best_NC.data_ptr(), token_NC.data_ptr(), ending_N1.data_ptr(), room.data_ptr()),
        )
        return best_NC, token_NC, ending_N1

    def _library_for(self, x_NI: Tensor) -> Any:
        """C would read past the end of what is too narrow."""
        if x_NI.size(1) != self.inputs:
            raise ValueError(f"a matrix of {self.inputs} inputs cannot multiply rows of {x_NI.size(1)}")
        return _library()


@dataclass(frozen=True)
class Weights:
    """A decoder layer's, in the order of `nmt_layer`."""

    matrices: Sequence[Matrix]
    norms: Sequence[nn.Module]


class Stack:
    """The layers of a Transformer's decoder, with ReLU between the two matrices of the feed-forward layers.

    Args:
        last: normalises the result; nn.Identity: nothing does.
    """

    def __init__(self, layers: Sequence[Weights], last: nn.Module, *, heads: int, pre_norm: bool):
        self.heads, self.pre_norm = heads, pre_norm
        self.width, self.feed_width = layers[0].matrices[5].outputs, layers[0].matrices[5].inputs
        # Rows that go through all layers together. More of them where weights come from memory each time.
        size = sum(matrix.bytes for layer in layers for matrix in layer.matrices)
        self.block = _FEW if size <= _CACHED else _MANY
        self._keep = (layers, last)  # the structures have addresses only
        self._last = _norm(last)
        self._layers = (_Layer * len(layers))(
            *(
                _Layer(*(matrix.structure for matrix in layer.matrices), *map(_norm, layer.norms))
                for layer in layers
            )
        )

    def step(
        self,
        x_ND: Tensor,
        place_N: Tensor,
        hypotheses: int,
        length_B: Tensor,
        caches_BLF: Sequence[Tensor],
        ancestors_BKT: Tensor,
        count_B: Tensor,
        memories_BSF: Sequence[Tensor],
    ) -> None:
        """One token further: embeddings become hidden states, in place.

        The other arguments are those of `kernels.attend_to_prefix` and `kernels.attend_to_source`, with a
        cache and a memory for each layer.
        """
        most, positions = ancestors_BKT.size(2), memories_BSF[0].size(1)
        library = _library()
        room = torch.empty(
            library.nmt_decode_room(self.block, self.width, self.feed_width, max(most, positions)) // 4 + 1
        )
        step = _Step(
            *(self.width, self.feed_width, self.heads, hypotheses, place_N.data_ptr(), length_B.data_ptr()),
            *(caches_BLF[0].size(1), ancestors_BKT.data_ptr(), most, count_B.data_ptr(), positions),
            *(self.pre_norm, self.block),
        )
        library.nmt_decode(
            *(self._layers, len(self._layers), ctypes.byref(self._last), ctypes.byref(step), x_ND.data_ptr()),
            *(len(x_ND), _addresses(caches_BLF), _addresses(memories_BSF), room.data_ptr()),
        )


def _norm(module: nn.Module) -> _Norm:
    weight: Any = getattr(module, "weight", None)
    bias: Any = getattr(module, "bias", None)
    return _Norm(_address(weight), _address(bias), getattr(module, "eps", 0.0))


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return (_pointer * len(tensors))(*(x.data_ptr() for x in tensors))
