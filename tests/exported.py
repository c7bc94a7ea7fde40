"""Small random Transformers as model folders, with real tokenizers, for the tests of export."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nmt.checkpoint import LoadedModel, load_model, save_model, weights_of
from nmt.config_file import parse_config
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, train_tokenizer
from nmt.models import build_model

CONFIG = """
[data]
train = "train"
validation = "validation"
source_language = "en"
target_language = "de"
max_tokens = 40

[search]
beam_size = 3
max_length_factor = 1.0
max_length_offset = 4
max_source_tokens = 30
"""
SMALL: dict[str, Any] = dict(
    encoder_layers=2,
    decoder_layers=2,
    width=16,
    feed_forward_width=24,
    decoder_feed_forward_width=20,
    heads=2,
    dropout=0.0,
    relative_distance=3,
    max_positions=41,
)


@cache
def text() -> tuple[str, ...]:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 6))) for _ in range(60)]
    return tuple(" ".join(chance.choices(words, k=chance.randint(3, 9))) for _ in range(300))


@cache
def tokenizer(kind: str = "bpe", size: int = 300) -> Tokenizer:
    return train_tokenizer(text(), type=kind, vocabulary_size=size)


def random_model(
    folder: Path, source: Tokenizer, target: Tokenizer, *, seed: int = 1, **options: Any
) -> LoadedModel:
    """A model folder. Its sentences end, and seldom hold special tokens, as those of a trained model."""
    keys = {"tie_embeddings": "all" if source is target else "target", **SMALL, **options}
    section = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    shared = f"[tokenizer]\nshared = {json.dumps(source is target)}\n"
    config = parse_config(f"{CONFIG}\n{shared}\n[model]\n{section}\n")
    torch.manual_seed(seed)
    model: Any = build_model(config.model, len(source), len(target))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases begin at 0 and norms at 1, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.mul_(1.5)
        output = model.embeddings.output.weight
        output[EOS] *= 2
        output[[PAD, UNK, BOS]] *= 0.1
    save_model(folder, weights_of(model), config, source, target, {"step": 7})
    return load_model(folder)


def random_sources(count: int, vocabulary: int, longest: int = 30, seed: int = 2) -> list[list[int]]:
    """Token ids of 1 to `longest` tokens, without the end; <unk> (1) is among them."""
    chance = random.Random(seed)
    ids = [UNK, *range(len((PAD, UNK, BOS, EOS)), vocabulary)]
    return [chance.choices(ids, k=chance.randint(1, longest)) for _ in range(count)]
