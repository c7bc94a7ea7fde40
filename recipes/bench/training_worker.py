"""One model's training speed, `python -m bench.training_worker SPEC`; a line of JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nmt.config_file import parse_config
from nmt.gradient import target_tokens
from nmt.memory import peak_mib
from nmt.run import Run
from nmt.training import Trainer

from .ceilings import ceiling
from .parts import shares
from .plain import PlainLoop, PlainTransformer
from .training import Trained


def measure(asked: Trained) -> dict[str, Any]:
    """The fields of `training.Speed`, but for the names. The speed is the median over blocks of steps after
    one to warm up."""
    resolved = parse_config(asked.config)
    with Run.open(Path(asked.folder), resolved) as run:
        trainer = Trainer(resolved, run, lambda event: None)
        step = _plain_step(trainer) if asked.plain else _own_step(trainer)
        speeds = []
        with contextlib.closing(trainer.stream):
            for turn in range(1 + asked.steps // asked.block):
                began = time.perf_counter()
                tokens = sum(step() for _ in range(asked.block))
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:
                    speeds.append(tokens / (time.perf_counter() - began))
            on_gpu = trainer.device.type == "cuda"
            peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mib()
            parts = shares(step)
        counts, device = trainer.data.manifest, trainer.device.type
        speed, gflops = statistics.median(speeds), None
        if resolved.model.architecture == "transformer":
            operations = operations_a_token(trainer.model, counts["source_tokens"] / counts["target_tokens"])
            gflops = speed * operations / 1e9
    return {
        "target_tokens_per_second": speed,
        "gflops": gflops,
        "ceiling_gflops": ceiling(asked.precision, device),
        "peak_mib": peak,
        "parts": parts,
    }


def _own_step(trainer: Trainer) -> Callable[[], int]:
    """An update by nmt; how many target tokens it was of."""

    def step() -> int:
        before = trainer.progress.logged_tokens
        trainer._step()
        return trainer.progress.logged_tokens - before

    return step


def _plain_step(trainer: Trainer) -> Callable[[], int]:
    """The same by the loop of `plain`, on the same batches."""
    settings: Any = trainer.config.model
    model = PlainTransformer(settings, len(trainer.data.source_tokenizer))
    loop = PlainLoop(model, trainer.settings, trainer.device)

    def step() -> int:
        batch = trainer.stream.next()
        loop.step(batch)
        return target_tokens(batch)

    return step


def operations_a_token(model: Any, source_tokens: float) -> int:
    """Additions and multiplications of a Transformer's matrices for a target token, forward and backward.

    Attention itself and padding are left out.

    Args:
        source_tokens: to a target token.
    """

    def weights(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.dim() == 2)

    # Of the projections of attention over the source, keys and values read source positions.
    memory = sum(layer.cross_attention.input.weight.numel() * 2 // 3 for layer in model.decoder)
    target = weights(model.decoder) - memory + model.embeddings.output.weight.numel()
    operations: int = round(6 * (target + source_tokens * (weights(model.encoder) + memory)))
    return operations


def main() -> None:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    asked = Trained(**json.loads(sys.argv[1]))
    torch.set_num_threads(asked.threads)
    with answer:
        answer.write(json.dumps(measure(asked)) + "\n")


if __name__ == "__main__":
    main()
