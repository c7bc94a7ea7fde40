"""A pattern planted in what is copied: the analysis finds the head that learnt it."""

from __future__ import annotations

import random

import pytest
import torch
from support import WORD_TASK, Nmt

from nmt.attention_maps import Pair, make_pairs
from nmt.checkpoint import LoadedModel, load_model
from nmt.data.tokenizer import BOS, EOS
from nmt.head_analysis import all_heads, analyse, masked

KEYS = ["ash", "birch", "cedar", "elm", "fir", "hazel"]
VALUES = [key.upper() for key in KEYS]
MODEL = """
[model]
architecture = "transformer"
norm = "pre"
encoder_layers = 1
decoder_layers = 2
width = 64
feed_forward_width = 128
heads = 2
dropout = 0.0
positions = "relative"
relative_distance = 4
"""
SIZES = {"train": 6000, "validation": 50, "test": 300}
# Keys that a sentence begins with, which come again in any order: eight words and what follows each.
FIRST, AGAIN = 3, 5


def example(chance: random.Random) -> tuple[str, str]:
    """Keys are copied; a value follows each, by chance the first time, later the same."""
    keys = chance.sample(KEYS, FIRST)
    value = {key: chance.choice(VALUES) for key in keys}
    order = keys + chance.choices(keys, k=AGAIN)
    return " ".join(order), " ".join(f"{key} {value[key]}" for key in order)


def right(loaded: LoadedModel, pairs: list[Pair]) -> tuple[float, float]:
    """How many values are predicted where a key comes for the first time, and where it comes again."""
    source_BS = torch.tensor([[*pair.source_ids, EOS] for pair in pairs])
    target_BT = torch.tensor([[BOS, *pair.target_ids] for pair in pairs])
    with torch.inference_mode():
        memory = loaded.model.encode(source_BS, torch.ones_like(source_BS, dtype=torch.bool))
        logits = loaded.model.project(loaded.model.decode(target_BT, memory))
    found = (logits[:, :-1].argmax(dim=-1) == target_BT[:, 1:]).double().mean(dim=0)[1::2]
    return found[:FIRST].mean().item(), found[FIRST:].mean().item()


@pytest.mark.slow
def test_the_head_that_learnt_a_planted_pattern_is_ranked_first(nmt: Nmt) -> None:
    """Two layers learn it (Olsson et al. 2022): a head of the first looks one back, so that each value knows
    its key, and one of the second finds the value. Without that head most of what was learnt is gone; without
    another of its layer, of the encoder or over the source, next to nothing.
    """
    chance = random.Random(1)
    for split, size in SIZES.items():
        lines = [example(chance) for _ in range(size)]
        (nmt.folder / f"{split}.in").write_text("".join(f"{source}\n" for source, _ in lines))
        (nmt.folder / f"{split}.out").write_text("".join(f"{target}\n" for _, target in lines))
    (nmt.folder / "learn.toml").write_text(WORD_TASK + MODEL)
    settings = {"max_steps": 600, "warmup_steps": 60, "learning_rate": 5e-3}
    nmt("train", "learn.toml", *(f"--set=training.{key}={value}" for key, value in settings.items()))

    loaded = load_model(nmt.folder / "runs/learn")
    sources, targets = ((nmt.folder / f"test.{side}").read_text().split("\n")[:-1] for side in ("in", "out"))
    pairs, _ = make_pairs(loaded, sources, targets)
    first, again = right(loaded, pairs)
    assert first < 0.3, "a value that comes for the first time cannot be known"
    assert again > 0.95, "the pattern was not learnt"
    drops = {}
    for head in all_heads(loaded.model):
        with masked(loaded.model, head):
            drops[head] = again - right(loaded, pairs)[1]

    report, second, *_ = analyse(loaded, pairs).ranked("induction")
    found = report.head
    assert report.induction is not None
    assert second.induction is not None
    # The other head of the layer may look there too, without anything reading it: how much differs between
    # machines, whose trainings differ in the last digit.
    assert report.induction > 0.5
    assert report.induction > second.induction + 0.1
    assert (found.kind, found.layer) == ("decoder", 2)
    assert drops[found] > 0.3
    rest = [drops[head] for head in drops if head != found and (head.kind, head.layer) != ("decoder", 1)]
    assert max(rest) < drops[found] / 4, drops
    lines = nmt("heads", "runs/learn", "test.in", "test.out").lines
    assert any(line.startswith(f"most induction: {found} (") for line in lines)
