"""Gradients summed over processes while the backward pass that ends them is still under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# A bucket of gradients is sent at once; the first can be sent when the backward pass has come through so many
# bytes of parameters.
BUCKET = 4 << 20
GPU_BUCKET = 25 << 20  # a sum starts several kernels, and links are faster


class Sums:
    """The gradients of one process's parameters, and their sums over all processes.

    Buckets are of fixed parameters, and every process sends them in one order, each once a step: so sums
    do not depend on the order in which gradients are ready, and no process waits for a bucket that another
    does not send. A bucket is sent when all in it is final, as a copy: a process whose memory runs out
    later in that pass may repeat its share for the buckets that it has not sent.

    Args:
        parameters: best in the order in which a backward pass comes to their gradients.
        group: torch's, of all processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: Any = None, bucket: int | None = None):
        if bucket is None:
            bucket = GPU_BUCKET if any(parameter.is_cuda for parameter in parameters) else BUCKET
        self._buckets = list(_buckets(parameters, bucket))
        self._group = group
        self._number = {id(p): n for n, parameters in enumerate(self._buckets) for p in parameters}
        # Of each bucket the gradients that are not final; empty where no pass is watched.
        self._missing: list[int] = []
        self._sent: list[tuple[Tensor, Any]] = []
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]

    def watch(self) -> None:
        """The next backward pass is the last of this step."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def look_away(self) -> None:
        """That pass failed, and more will follow."""
        self._missing = []

    def finish(self) -> None:
        """Put the sum over all processes in place of each gradient; bit-equal on all."""
        self.look_away()
        while len(self._sent) < len(self._buckets):
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            sums = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, total in zip(bucket, sums, strict=True):
                parameter.grad = total.view_as(parameter)
        self._sent = []

    def _ready(self, parameter: Tensor) -> None:
        if not self._missing:
            return
        self._missing[self._number[id(parameter)]] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        """The next bucket. Its gradients are given up for the copy, so that they do not need room twice."""
        bucket = self._buckets[len(self._sent)]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        work = dist.all_reduce(flat, group=self._group, async_op=True)
        self._sent.append((flat, work))
        for parameter in bucket:
            parameter.grad = None


def _buckets(parameters: Sequence[nn.Parameter], most: int) -> Iterator[list[nn.Parameter]]:
    """Parameters in pieces of one type and of about so many bytes."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.nbytes > most or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.nbytes
    if bucket:
        yield bucket
