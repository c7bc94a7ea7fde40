"""How fast models of each architecture train, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

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


def _bahdanau(width: int) -> str:
    widths = f"embedding_width = {width}\nhidden_width = {width}\n"
    return f'architecture = "bahdanau"\nattention_width = {width}\nmaxout_width = {width}\n{widths}'


def _luong(width: int) -> str:
    widths = f"embedding_width = {width}\nhidden_width = {width}\n"
    return f'architecture = "luong"\nattentional_width = {width}\nlayers = 1\n{widths}'


# Name, [model], precision. "bfloat16": see `nmt.gradient.Gradient`.
TINY = 'architecture = "transformer"\npreset = "tiny"'
TRAINED = [
    ("Transformer tiny", TINY, "float32"),
    ("Transformer tiny", TINY, "bfloat16"),
    ("Bahdanau 256", _bahdanau(256), "float32"),
    ("Luong 256, general, input feeding", _luong(256), "float32"),
    ("Luong 256, general, without input feeding", f"{_luong(256)}input_feeding = false", "float32"),
    (
        "no attention 256",
        'architecture = "recurrent"\nlayers = 1\ntie_embeddings = "target"\n'
        "embedding_width = 256\nhidden_width = 256",
        "float32",
    ),
]
BASE = 'architecture = "transformer"\npreset = "base"'
# In a tenth of the steps.
LARGE = [
    ("Transformer base", BASE, "float32"),
    ("Transformer base", BASE, "bfloat16"),
    ("Bahdanau 512", _bahdanau(512), "float32"),
    ("Luong 512, general, input feeding", _luong(512), "float32"),
]


@dataclass(frozen=True)
class Trained:
    """What is measured: a configuration, how many steps, how many of them are timed together."""

    config: str
    folder: str  # of the run
    precision: str
    threads: int
    steps: int
    block: int


@dataclass(frozen=True)
class Speed:
    """How fast a model trains."""

    model: str
    precision: str
    target_tokens_per_second: float
    gflops: float | None  # of its products, padding and attention left out; None: not counted
    ceiling_gflops: float  # of a product of (2048, 2048) matrices in this precision, in the same process
    peak_mib: float
    parts: dict[str, float]  # shares of a step's time by `parts.PARTS`


def training_speeds(corpus: Corpus, folder: Path, steps: int, *, threads: int, base: bool) -> Iterator[Speed]:
    """Each model in batches of 4,096 tokens; with `base` also larger ones, in a tenth of the steps."""
    for name, model, precision in [*TRAINED, *(LARGE if base else [])]:
        config = CONFIG.format(
            train=corpus.train.resolve(),
            validation=corpus.validation.resolve(),
            vocabulary=corpus.vocabulary,
            model=model,
            precision=precision,
        )
        run = folder / f"{name}-{precision}".replace(" ", "-")
        block = 1 if (name, model, precision) in LARGE else 10
        asked = Trained(config, str(run), precision, threads, steps // 10 * block, block)
        measured = subprocess.run(
            [sys.executable, "-P", "-m", "bench.training_worker", json.dumps(asdict(asked))],
            env={
                "GOMP_SPINCOUNT": "1000",  # as the command line sets it
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "OMP_NUM_THREADS": str(threads),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        yield Speed(name, precision, **json.loads(measured.stdout))
