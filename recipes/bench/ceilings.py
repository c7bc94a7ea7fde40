"""What matrix products cost at best: the bound of everything else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nmt.parallel import in_threads
from nmt.products import Matrix, available

# Rows, width, outputs. The first is the output layer of a small model for a batch of hypotheses.
SHAPES = ((320, 128, 8000), (2048, 2048, 2048))
# The largest product of a training step of Transformer-tiny.
TRAINING_SHAPE = (3500, 128, 256)
# Products of our own in a run: beginning threads takes as long as a small one.
_AT_ONCE = 20
# Large enough that a GPU is busy.
GPU_SHAPE = (8192, 8192, 8192)


def measure(
    shapes: tuple[tuple[int, int, int], ...] = SHAPES, seconds: float = 0.5, device: str = "cpu"
) -> list[dict[str, Any]]:
    """A row a product: `kind`, `shape`, and `gflops`, 1e9 operations a second; None: torch lacks it."""
    return [
        {"kind": kind, "shape": list(shape), "gflops": measure_one(kind, shape, seconds, device)}
        for shape in (shapes if device == "cpu" else (*shapes, GPU_SHAPE))
        for kind in KINDS
        if device == "cpu" or kind.startswith("F.linear")
    ]


def measure_one(
    kind: str, shape: tuple[int, int, int], seconds: float = 0.5, device: str = "cpu"
) -> float | None:
    """1e9 operations a second of one of `KINDS`; None: torch lacks it."""
    with torch.inference_mode(), torch.device(device):
        try:
            return _speed(KINDS[kind](*shape), shape, seconds, _AT_ONCE if kind.startswith("nmt") else 1)
        except RuntimeError:
            return None


def ceiling(precision: str, device: str = "cpu") -> float:
    """1e9 operations a second of a large product in a precision, by whichever of `KINDS` is fastest."""
    shape = SHAPES[1] if device == "cpu" else GPU_SHAPE
    kinds = [kind for kind in KINDS if kind.split()[-1] == precision]
    if device != "cpu":
        kinds = [f"F.linear {precision}"]
    return max(measure_one(kind, shape, device=device) or 0.0 for kind in kinds)


def _speed(product: Callable[[], Tensor], shape: tuple[int, int, int], seconds: float, at_once: int) -> float:
    """The median of runs of so many products, in 1e9 operations a second, an addition and a product being
    two."""
    n, width, outputs = shape
    on_gpu = product().is_cuda
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        product()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * n * width * outputs * at_once / statistics.median(times) / 1e9


def _linear(n: int, width: int, outputs: int, kind: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    x, weight = torch.randn(n, width).to(kind), torch.randn(outputs, width).to(kind)
    return lambda: nn.functional.linear(x, weight)


def _own(n: int, width: int, outputs: int, precision: str) -> Callable[[], Tensor]:
    """As search multiplies: each core its own rows, here a share of them, `_AT_ONCE` times."""
    if not available():
        raise RuntimeError("not compiled for this processor")
    matrix = Matrix(torch.randn(outputs, width), None, precision)
    shares = [share.contiguous() for share in torch.randn(n, width).chunk(torch.get_num_threads())]

    def products(share: Tensor) -> Tensor:
        for _ in range(_AT_ONCE - 1):
            matrix.multiply(share)
        return matrix.multiply(share)

    if len(shares) == 1:
        return lambda: products(shares[0])
    return lambda: in_threads([partial(products, share) for share in shares])[0]


def _int8(n: int, width: int, outputs: int) -> Callable[[], Tensor]:
    x = torch.randint(-127, 128, (n, width), dtype=torch.int8)
    weight = torch.randint(-127, 128, (outputs, width), dtype=torch.int8).t()
    return lambda: torch._int_mm(x, weight)


KINDS: dict[str, Callable[..., Callable[[], Tensor]]] = {
    "F.linear float32": _linear,
    "nmt float32": partial(_own, precision="float32"),
    "F.linear bfloat16": partial(_linear, kind=torch.bfloat16),
    "torch._int_mm int8": _int8,
    "nmt int8": partial(_own, precision="int8"),
}
