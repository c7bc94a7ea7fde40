"""Systems that must learn: copy, reverse and sort short sequences of words never seen in training.

A model that gets these wrong has a fault in its attention, its positions, its masks or its search,
whatever its loss looks like. The model without attention must get the long ones wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support import WORD_TASK, WORDS, Nmt

LENGTHS = range(2, 9)
TRAIN, VALIDATION, TEST = 6000, 50, 500

Words = list[str]
TASKS: dict[str, Callable[[Words], Words]] = {
    "copy": lambda words: words,
    "reverse": lambda words: words[::-1],
    "sort": sorted,
}

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
    "recurrent": """
[model]
architecture = "recurrent"
embedding_width = 32
hidden_width = 64
layers = 1
dropout = 0.0
tie_embeddings = "none"
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
    "luong": """
[model]
architecture = "luong"
embedding_width = 32
hidden_width = 64
attentional_width = 32
layers = 1
dropout = 0.0
score = "general"
window = "global"
bidirectional = true
""",
}
# Windows of seven words and of five: neither sees the whole of a long sequence.
MODELS["luong-local-p"] = MODELS["luong"].replace('"global"', '"local-p"\nwindow_size = 3')
MODELS["luong-local-m"] = MODELS["luong"].replace('"global"', '"local-m"\nwindow_size = 2')


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
    (folder / "learn.toml").write_text(WORD_TASK + MODELS[architecture])


def exact_matches(nmt: Nmt, architecture: str, task: str, steps: int, rate: float) -> list[tuple[int, bool]]:
    """Train; of each held-out sequence its length and whether every word of its translation is right."""
    write_task(nmt.folder, task, architecture)
    chosen = {"max_steps": steps, "warmup_steps": steps // 10, "learning_rate": rate}
    nmt("train", "learn.toml", *(f"--set=training.{key}={value}" for key, value in chosen.items()))
    translated = nmt("translate", "runs/learn", "test.in").lines
    expected = (nmt.folder / "test.out").read_text().split("\n")[:-1]
    return [(len(b.split()), a == b) for a, b in zip(translated, expected, strict=True)]


def share(matches: list[tuple[int, bool]]) -> float:
    return sum(right for _, right in matches) / len(matches)


CASES = [
    ("bahdanau", "copy", 200, 5e-3),
    ("bahdanau", "reverse", 180, 6e-3),
    ("bahdanau", "sort", 400, 5e-3),
    ("luong", "copy", 300, 6e-3),
    ("luong", "reverse", 220, 8e-3),
    ("luong", "sort", 600, 6e-3),
    ("luong-local-p", "copy", 400, 8e-3),
    ("luong-local-m", "copy", 400, 8e-3),
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
    exact = share(exact_matches(nmt, architecture, task, steps, rate))
    assert exact >= 0.99, f"{exact:.1%} of {TEST} held-out sequences are right"


@pytest.mark.slow
def test_without_attention_long_sentences_suffer(nmt: Nmt) -> None:
    """As in Bahdanau et al. 2014, fig. 2: one vector holds a short sentence, not a long one.

    Trained on what Bahdanau's model copies without a mistake, as long and at the same rate.
    """
    steps, rate = next(case[2:] for case in CASES if case[:2] == ("bahdanau", "copy"))
    matches = sorted(exact_matches(nmt, "recurrent", "copy", steps, rate), key=lambda match: match[0])
    third = len(matches) // 3
    shortest, longest = share(matches[:third]), share(matches[-third:])
    assert shortest > longest + 0.15, f"{shortest:.0%} of the shortest, {longest:.0%} of the longest"
    assert share(matches) < 0.6  # those with attention: 0.99 and more
