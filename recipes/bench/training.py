"""How fast models of each architecture train, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nmt.device import choose_device
from nmt.precision import precision_on, refused

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
batch_tokens = {batch_tokens}
[model]
{model}
"""


def _bahdanau(width: int) -> str:
    widths = f"embedding_width = {width}\nhidden_width = {width}\n"
    return f'architecture = "bahdanau"\nattention_width = {width}\nmaxout_width = {width}\n{widths}'


def _luong(width: int) -> str:
    widths = f"embedding_width = {width}\nhidden_width = {width}\n"
    return f'architecture = "luong"\nattentional_width = {width}\nlayers = 1\n{widths}'


@dataclass(frozen=True)
class Row:
    """What a line of the table trains; `precision` that of [training]."""

    name: str
    model: str  # [model]
    precision: str = "float32"
    plain: bool = False  # the loop of `plain`
    large: bool = False  # in a tenth of the steps
    gpu: bool = False  # on a GPU alone


TINY = 'architecture = "transformer"\npreset = "tiny"'
BASE = 'architecture = "transformer"\npreset = "base"'
BIG = 'architecture = "transformer"\npreset = "big"'
NO_ATTENTION = (
    'architecture = "recurrent"\nlayers = 1\ntie_embeddings = "target"\n'
    "embedding_width = 256\nhidden_width = 256"
)
FEEDING = "general, input feeding"
ROWS = [
    Row("Transformer tiny", TINY),
    Row("Transformer tiny", TINY, "bfloat16"),
    Row("Transformer tiny", TINY, "int8"),
    Row("plain PyTorch tiny", TINY, plain=True),
    Row("plain PyTorch tiny", TINY, "bfloat16", plain=True),
    Row("Bahdanau 256", _bahdanau(256)),
    Row(f"Luong 256, {FEEDING}", _luong(256)),
    Row("Luong 256, general, without input feeding", f"{_luong(256)}input_feeding = false"),
    Row("no attention 256", NO_ATTENTION),
    Row("Transformer base", BASE, large=True),
    Row("Transformer base", BASE, "bfloat16", large=True),
    Row("Transformer base", BASE, "int8", large=True),
    Row("plain PyTorch base", BASE, plain=True, large=True),
    Row("plain PyTorch base", BASE, "bfloat16", plain=True, large=True),
    Row("Transformer big", BIG, "bfloat16", large=True, gpu=True),
    Row("Bahdanau 512", _bahdanau(512), large=True),
    Row(f"Luong 512, {FEEDING}", _luong(512), large=True),
]


@dataclass(frozen=True)
class Trained:
    """What is measured: a configuration, how many steps, how many of them are timed together, and whether by
    the loop of `plain`."""

    config: str
    folder: str  # of the run
    precision: str
    threads: int
    steps: int
    block: int
    plain: bool


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


def training_speeds(
    corpus: Corpus,
    folder: Path,
    steps: int,
    *,
    threads: int,
    base: bool,
    batch_tokens: int = 4096,
    named: Sequence[str] = (),
) -> Iterator[Speed]:
    """Each model, or those of whose names `named` has a part; the large ones, in a tenth of the steps, with
    `base`."""
    for row in ROWS:
        if (row.large and not base) or (row.gpu and not torch.cuda.is_available()):
            continue
        if named and not any(part in row.name for part in named):
            continue
        if not row.plain and not _can(row.precision):
            continue
        config = CONFIG.format(
            train=corpus.train.resolve(),
            validation=corpus.validation.resolve(),
            vocabulary=corpus.vocabulary,
            model=row.model,
            precision=row.precision,
            batch_tokens=batch_tokens,
        )
        run = folder / f"{row.name}-{row.precision}".replace(" ", "-")
        block = 1 if row.large else 10
        asked = Trained(config, str(run), row.precision, threads, steps // 10 * block, block, row.plain)
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
        yield Speed(row.name, row.precision, **json.loads(measured.stdout))


def _can(precision: str) -> bool:
    """Whether training on this machine is in this precision."""
    device = choose_device("auto")
    return refused(precision, device) is None and not precision_on(precision, device).note
