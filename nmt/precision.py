"""What `training.precision` is on a device: which numbers are rounded before they are multiplied."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from nmt.linear import available, products_of


@dataclass(frozen=True)
class Precision:
    """Types of factors; None: those of the tensors. Sums, and whatever is not multiplied, are float32.

    Args:
        autocast: of all that torch's autocast makes so.
        layers: of linear layers, without autocast.
        output: of the output layer, likewise.
        note: where it is not what was asked for, why.
    """

    autocast: torch.dtype | None = None
    layers: torch.dtype | None = None
    output: torch.dtype | None = None
    note: str = ""

    @contextmanager
    def of_layers(self, device: torch.device) -> Iterator[None]:
        """Of what a model computes meanwhile."""
        if self.autocast is not None:
            with torch.autocast(device.type, self.autocast):
                yield
        elif self.layers is not None:
            with products_of(self.layers):
                yield
        else:
            yield


def refused(asked: str, device: torch.device) -> str | None:
    """What is wrong with a precision on a device, and what to do; None: nothing."""
    if asked == "float16" and device.type != "cuda":
        return (
            f'training.precision = "float16" needs a GPU, and this is {device}; use "bfloat16" or "float32"'
        )
    if asked == "int8" and device.type != "cpu":
        return (
            f'training.precision = "int8" is for CPUs, and this is {device}; use "bfloat16", or '
            'training.device = "cpu"'
        )
    if asked == "int8" and not available(torch.int8):
        return (
            'training.precision = "int8" needs a processor with AVX-512 VNNI, and a C compiler when nmt is '
            'installed; use "float32"'
        )
    return None


def precision_on(asked: str, device: torch.device) -> Precision:
    """For a precision that is not `refused`."""
    if asked == "float32":
        return Precision()
    if asked == "int8":
        return Precision(layers=torch.int8, output=torch.int8)
    if asked == "float16":
        return Precision(autocast=torch.float16)
    if device.type != "cpu":
        return Precision(autocast=torch.bfloat16)
    if available(torch.bfloat16):
        return Precision(layers=torch.bfloat16, output=torch.bfloat16)
    if slow_in_bfloat16():
        return Precision(note="float32 in its place: this processor has no instructions for bfloat16")
    return Precision(autocast=torch.bfloat16)


def slow_in_bfloat16() -> bool:
    """Whether this processor makes products of bfloat16 of others, several times slower than float32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # where there is AMX, too
    return supported is not None and not supported()
