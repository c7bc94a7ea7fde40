"""Where the time of a training step goes: operations of the profiler, by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

LOSS, WHOLE = "CrossEntropy", "output layer and loss"  # what it calls counts with it
# The first part that has a word of an operation's name.
PARTS = {
    WHOLE: (LOSS,),
    "attention": ("Attention", "attention", "bmm", "softmax"),
    "linear and recurrent layers": ("LinearFunction", "::mm", "::addmm", "::linear", "lstm", "gru", "rnn"),
    "dropout": ("Dropout", "dropout", "random_", "bernoulli"),
    "norms": ("norm_backward", "native_layer_norm", "rms_norm"),
    "optimizer": ("adam", "Adam", "Optimizer", "vector_norm", "_foreach"),
}
REST = "the rest"


def part_of(operation: str) -> str:
    """The part that an operation belongs to, or `REST`."""
    return next((part for part, words in PARTS.items() if any(word in operation for word in words)), REST)


def shares(step: Callable[[], Any]) -> dict[str, float]:
    """The share of each part in the time of `step`, largest first; they add up to 1. On a GPU the time is
    that of its kernels, which count with the operations that start them."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
    seconds: dict[str, float] = {}
    for event in profile.events():
        if event.device_type != torch.autograd.DeviceType.CPU:  # type: ignore[attr-defined]
            continue
        part = WHOLE if any(LOSS in name for name in _names(event)) else part_of(event.name)
        took = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        seconds[part] = seconds.get(part, 0.0) + took
    total = sum(seconds.values())
    return {part: seconds[part] / total for part in sorted(seconds, key=lambda part: -seconds[part])}


def _names(event: Any) -> Iterator[str]:
    """Of an operation and of those that it is part of."""
    while event is not None:
        yield event.name
        event = event.cpu_parent
