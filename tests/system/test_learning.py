"""Systems that must learn: copy, reverse and sort short sequences of words never seen in training.

A model that gets these wrong has a fault in its attention, its positions, its masks or its search,
whatever its loss looks like.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Nmt

WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew"]
LENGTHS = range(2, 9)
TRAIN, VALIDATION, TEST = 6000, 50, 500

Words = list[str]
TASKS: dict[str, Callable[[Words], Words]] = {
    "copy": lambda words: words,
    "reverse": lambda words: words[::-1],
    "sort": sorted,
}

CONFIG = """
[data]
train = "train"
validation = "validation"
source_language = "in"
target_language = "out"

[tokenizer]
type = "word"

[training]
batch_tokens = 800
schedule = "cosine"
betas = [0.9, 0.98]
label_smoothing = 0.0
clip_norm = 1.0
validate_every = 100000
threads = 1
device = "cpu"

[search]
beam_size = 2
"""

MODELS = {
    "transformer": """
[model]
architecture = "transformer"
norm = "pre"
encoder_layers = 2
decoder_layers = 2
width = 64
feed_forward_width = 128
heads = 4
dropout = 0.0
""",
    "bahdanau": """
[model]
architecture = "bahdanau"
embedding_width = 32
hidden_width = 64
attention_width = 64
maxout_width = 32
dropout = 0.0
""",
}


def write_task(folder: Path, task: str, architecture: str) -> None:
    """`train`, `validation` and `test` with no sequence in two of them, and `learn.toml`."""
    chance = random.Random(1)
    sequences: set[tuple[str, ...]] = set()
    while len(sequences) < TRAIN + VALIDATION + TEST:
        sequences.add(tuple(chance.choices(WORDS, k=chance.choice(LENGTHS))))
    shuffled = sorted(sequences)
    chance.shuffle(shuffled)
    sizes = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    for split, size in sizes.items():
        chosen, shuffled = shuffled[:size], shuffled[size:]
        (folder / f"{split}.in").write_text("".join(f"{' '.join(words)}\n" for words in chosen))
        (folder / f"{split}.out").write_text(
            "".join(f"{' '.join(TASKS[task](list(words)))}\n" for words in chosen)
        )
    (folder / "learn.toml").write_text(CONFIG + MODELS[architecture])


CASES = [
    ("bahdanau", "copy", 200, 5e-3),
    ("bahdanau", "reverse", 180, 6e-3),
    ("bahdanau", "sort", 400, 5e-3),
    ("transformer", "copy", 300, 4e-3),
    ("transformer", "reverse", 600, 3e-3),
    ("transformer", "sort", 500, 4e-3),
]
FAST = [("bahdanau", "reverse")]


@pytest.mark.parametrize(
    ("architecture", "task", "steps", "rate"),
    [pytest.param(*case, marks=() if case[:2] in FAST else pytest.mark.slow) for case in CASES],
)
def test_learns(nmt: Nmt, architecture: str, task: str, steps: int, rate: float) -> None:
    write_task(nmt.folder, task, architecture)
    chosen = {"max_steps": steps, "warmup_steps": steps // 10, "learning_rate": rate}
    nmt("train", "learn.toml", *(f"--set=training.{key}={value}" for key, value in chosen.items()))
    translated = nmt("translate", "runs/learn", "test.in").lines
    expected = (nmt.folder / "test.out").read_text().split("\n")[:-1]
    exact = sum(a == b for a, b in zip(translated, expected, strict=True)) / len(expected)
    assert exact >= 0.99, f"{exact:.1%} of {len(expected)} held-out sequences are right"
