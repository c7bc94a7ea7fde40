"""Matrix products for translation on a CPU: weights laid out once for what multiplies fastest there.

With AVX-512 that is `nmt/products.py`, for a few threads of a search each; else and for bfloat16 oneDNN.

N rows, I and O widths of input and output.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt import kernels, products
from nmt.linear import linear as multiply
from nmt.models.seam import SearchModel
from nmt.models.unrolled import UnrolledLayer

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class PackedLinear(nn.Module):
    """nn.Linear for inference, its matrix in the order in which it is read.

    Args:
        linear: the layer; without a copy of its bias.
        precision: of the product. "float32". "bfloat16": of both factors, sums in float32. "int8": each row
            of the matrix and each row of x on a scale of its own, 127 being the largest entry, so that a
            row's result does not depend on other rows; sums are exact. Results are float32.
    """

    def __init__(self, linear: nn.Linear, precision: str = "float32"):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.precision = precision
        self.weight_OI, self.bias_O = linear.weight.detach(), linear.bias
        self.ours = precision != "bfloat16" and products.available()
        # The call of the library takes longer than such a product gains by it.
        self.plain = precision == "float32" and linear.weight.numel() < 1 << 17
        self._packed: dict[tuple[int, int], tuple[Any, Any, Tensor | None]] = {}
        self._matrices: dict[tuple[int, int], products.Matrix] = {}
        if self.ours:
            self.matrix(slice(None))
        else:
            self._pack(slice(None))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return self.part(x, slice(None))

    def part(self, x: Tensor, rows: slice) -> Tensor:
        """Some of the outputs."""
        if self.ours and x.dtype == torch.float32:
            return (
                self.matrix(rows)
                .multiply(x.reshape(-1, self.in_features).contiguous())
                .view(*x.shape[:-1], -1)
            )
        weight, scale_O, bias_O = self._pack(rows)
        if self.plain:
            return F.linear(x, weight, bias_O)
        if self.precision == "float32":
            return _multiply(x, weight, bias_O)
        if self.precision == "bfloat16":
            return _multiply(x.bfloat16(), weight, None if bias_O is None else bias_O.bfloat16()).float()
        x_NI = x.flatten(0, -2)
        if kernels.usable(x_NI):
            quantized_NI, scale_N1 = kernels.quantize(x_NI)
            y_NO = kernels.rescale(torch._int_mm(quantized_NI, weight), scale_N1, scale_O, bias_O)
        else:
            scale_N1 = x_NI.abs().amax(dim=1, keepdim=True).clamp_min_(1e-30).mul_(1 / 127)
            product_NO = torch._int_mm((x_NI / scale_N1).round_().to(torch.int8), weight)
            y_NO = (product_NO * scale_N1).mul_(scale_O)
            y_NO = y_NO if bias_O is None else y_NO.add_(bias_O)
        return y_NO.view(*x.shape[:-1], -1)

    def matrix(self, rows: slice) -> products.Matrix:
        """Some of the outputs, for products of ours."""
        start, stop, _ = rows.indices(self.out_features)
        if (start, stop) not in self._matrices:
            bias_O = None if self.bias_O is None else self.bias_O.detach()[start:stop]
            self._matrices[start, stop] = products.Matrix(self.weight_OI[start:stop], bias_O, self.precision)
        return self._matrices[start, stop]

    def _pack(self, rows: slice) -> tuple[Any, Any, Tensor | None]:
        """The matrix, the scales of its rows for "int8", and the bias."""
        start, stop, _ = rows.indices(self.out_features)
        if (start, stop) not in self._packed:
            weight_OI = self.weight_OI[start:stop].contiguous()
            bias_O = None if self.bias_O is None else self.bias_O.detach()[start:stop].contiguous()
            scale_O = None
            if self.precision == "int8":
                scale_O = weight_OI.abs().amax(dim=1).clamp_min(1e-30) / 127
                weight: Tensor = (weight_OI / scale_O[:, None]).round().to(torch.int8).t()
            else:
                kind = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
                weight = weight_OI.to(kind)
                if not self.plain:
                    weight = torch.ops.mkldnn._reorder_linear_weight(weight)
            self._packed[start, stop] = weight, scale_O, bias_O
        return self._packed[start, stop]


def packed(model: ModuleT, precision: str = "float32") -> ModuleT:
    """The model with packed linear layers; all other parameters are shared, and it must not be trained.

    Where the library is missing the model itself. A single layer is no model: it would be of another class.
    """
    with torch.no_grad():
        return cast(ModuleT, _with_packed(model, precision)) if can_pack() else model


def can_pack() -> bool:
    """Whether this build of torch has oneDNN with packed weights."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _with_packed(module: nn.Module, precision: str) -> nn.Module:
    if isinstance(module, nn.Linear):
        fits = module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
        # A column or two are no matrix, and torch._int_mm is wrong where there is one input.
        return PackedLinear(module, precision) if fits and min(module.weight.shape) >= 8 else module
    if isinstance(module, (nn.LSTM, nn.GRU)):
        return _unrolled(module, precision)
    if getattr(module, "keeps_linear", False):
        return module
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else _with_packed(child, precision)
        for name, child in module._modules.items()
    }
    return twin


def _unrolled(layer: nn.LSTM | nn.GRU, precision: str) -> nn.Module:
    """With products of ours, whose rows do not depend on each other; else the layer as it is."""
    weight_GE = layer.weight_ih_l0
    fits = weight_GE.dtype == torch.float32 and weight_GE.device.type == "cpu"
    if not fits or precision == "bfloat16" or not products.available():
        return layer

    def linear(part: str, suffix: str) -> nn.Module:
        weight_GI = getattr(layer, f"weight_{part}_l0{suffix}")
        plain = nn.Linear(weight_GI.size(1), weight_GI.size(0), device="meta")
        plain.weight, plain.bias = weight_GI, getattr(layer, f"bias_{part}_l0{suffix}")
        return _with_packed(plain, precision)

    suffixes = ["", "_reverse"][: 1 + layer.bidirectional]
    cell = "lstm" if isinstance(layer, nn.LSTM) else "gru"
    return UnrolledLayer(cell, [(linear("ih", suffix), linear("hh", suffix)) for suffix in suffixes])


def linear_part(linear: nn.Module, x: Tensor, rows: slice) -> Tensor:
    """Some of the outputs of a linear layer, packed or not."""
    if isinstance(linear, nn.Linear):
        return multiply(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])
    part: Tensor = linear.part(x, rows)  # type: ignore[operator]
    return part


def output_matrix(model: SearchModel) -> products.Matrix | None:
    """The matrix that a model's `project` multiplies with, where it is one of ours."""
    output: nn.Module = model.embeddings.output
    return output.matrix(slice(None)) if isinstance(output, PackedLinear) and output.ours else None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
