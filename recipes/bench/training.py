"""How fast models of each architecture train."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nmt.config_file import parse_config
from nmt.run import Run
from nmt.training import Trainer

from .corpora import Corpus

CONFIG = """
[data]
train = "{train}"
validation = "{validation}"
source_language = "en"
target_language = "de"
[tokenizer]
vocabulary_size = {vocabulary}
[training]
precision = "{precision}"
[model]
{model}
"""
RECURRENT = "embedding_width = 256\nhidden_width = 256\n"
LUONG = f'architecture = "luong"\nattentional_width = 256\nlayers = 1\n{RECURRENT}'
MODELS = {
    "Transformer tiny": 'architecture = "transformer"\npreset = "tiny"',
    "Bahdanau 256": f'architecture = "bahdanau"\nattention_width = 256\nmaxout_width = 256\n{RECURRENT}',
    "Luong 256, general, input feeding": LUONG,
    "Luong 256, general, without input feeding": f"{LUONG}input_feeding = false",
    "no attention 256": f'architecture = "recurrent"\nlayers = 1\ntie_embeddings = "target"\n{RECURRENT}',
}


# Name, [model], precision. "bfloat16": see `nmt.gradient.Gradient`.
TRAINED = [
    ("Transformer tiny", MODELS["Transformer tiny"], "float32"),
    ("Transformer tiny", MODELS["Transformer tiny"], "bfloat16"),
    *((name, model, "float32") for name, model in MODELS.items() if name != "Transformer tiny"),
]
BASE = 'architecture = "transformer"\npreset = "base"'
BASES = [("Transformer base", BASE, "float32"), ("Transformer base", BASE, "bfloat16")]


@dataclass(frozen=True)
class Speed:
    """How fast a model trains."""

    model: str
    precision: str
    target_tokens_per_second: float
    gflops: float | None  # of its products, padding and attention left out; None: not counted


def training_speeds(corpus: Corpus, folder: Path, steps: int, *, base: bool) -> Iterator[Speed]:
    """Each model in batches of 4,096 tokens; with `base` also one of 512 wide, in a tenth of the steps."""
    for name, model, precision in [*TRAINED, *(BASES if base else [])]:
        config = CONFIG.format(
            train=corpus.train,
            validation=corpus.validation,
            vocabulary=corpus.vocabulary,
            model=model,
            precision=precision,
        )
        block = 10 if model != BASE else 1
        run = folder / f"{name}-{precision}".replace(" ", "-")
        speed, operations = training_speed(config, run, steps // 10, block)
        yield Speed(name, precision, speed, None if operations is None else speed * operations / 1e9)


def training_speed(config: str, folder: Path, blocks: int, block: int) -> tuple[float, int | None]:
    """Target tokens a second, the median over blocks of steps after one to warm up; operations a token."""
    resolved = parse_config(config)
    with Run.open(folder, resolved) as run:
        trainer = Trainer(resolved, run, lambda event: None)
        speeds = []
        with contextlib.closing(trainer.stream):
            for turn in range(1 + blocks):
                before, began = trainer.progress.logged_tokens, time.perf_counter()
                for _ in range(block):
                    trainer._step()
                if turn:
                    seconds = time.perf_counter() - began
                    speeds.append((trainer.progress.logged_tokens - before) / seconds)
        counts = trainer.data.manifest
        operations = None
        if resolved.model.architecture == "transformer":
            operations = operations_a_token(trainer.model, counts["source_tokens"] / counts["target_tokens"])
    return statistics.median(speeds), operations


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
    return round(6 * (target + source_tokens * (weights(model.encoder) + memory)))
