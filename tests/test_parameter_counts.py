"""Parameters of the presets, counted by hand from Vaswani et al. 2017, table 3, and of each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nmt.config_file import parse_config
from nmt.models import build_model, parameter_counts

SUBWORDS = 37_000  # shared by both languages (sec. 5.1)


def build(model: str, subwords: int = SUBWORDS) -> nn.Module:
    """Without memory for its parameters."""
    data = '[data]\ntrain = "t"\nvalidation = "v"\nsource_language = "en"\ntarget_language = "de"\n'
    with torch.device("meta"):
        return build_model(parse_config(f"{data}[model]\n{model}\n").model, subwords, subwords)


def test_base() -> None:
    """N = 6, d_model = 512, d_ff = 2048; h does not matter. Matrices, then biases; a norm has two vectors."""
    attention = 4 * 512 * 512 + 4 * 512
    feed_forward = 512 * 2048 + 2048 * 512 + 2048 + 512
    norm = 512 + 512
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (attention + attention + feed_forward + 3 * norm)
    embeddings = 37_000 * 512  # one matrix for source, target and output (sec. 3.4)
    assert (attention, feed_forward) == (1_050_624, 2_099_712)
    assert (encoder, decoder, embeddings) == (18_914_304, 25_224_192, 18_944_000)
    counts = parameter_counts(build('preset = "base"'))
    assert counts == {
        "embeddings": embeddings,
        "encoder": encoder,
        "decoder": decoder,
        "total": encoder + decoder + embeddings,
    }
    assert counts["total"] == pytest.approx(63.1e6, rel=0.005)


def test_big() -> None:
    """N = 6, d_model = 1024, d_ff = 4096."""
    attention = 4 * 1024 * 1024 + 4 * 1024
    feed_forward = 1024 * 4096 + 4096 * 1024 + 4096 + 1024
    norm = 1024 + 1024
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (attention + attention + feed_forward + 3 * norm)
    embeddings = 37_000 * 1024
    assert (attention, feed_forward) == (4_198_400, 8_393_728)
    assert (encoder, decoder, embeddings) == (75_577_344, 100_780_032, 37_888_000)
    counts = parameter_counts(build('preset = "big"'))
    assert counts == {
        "embeddings": embeddings,
        "encoder": encoder,
        "decoder": decoder,
        "total": encoder + decoder + embeddings,
    }
    assert counts["total"] == pytest.approx(214e6, rel=0.005)


# What an option adds to `tiny`: 4 layers a side, width 128, inner width 256, 4 heads of 32.
OPTIONS = {
    'norm = "pre"': 2 * 2 * 128,  # the norm after the last layer of each side
    'norm_type = "rmsnorm"': -(4 * 2 + 4 * 3) * 128,  # no bias in 20 norms
    'activation = "gelu"': 0,
    'activation = "swiglu"': 8 * (128 * 256 + 256),  # a third matrix
    'positions = "learned"': 2 * 1024 * 128,
    'positions = "rotary"': 0,
    'positions = "relative"': 8 * 2 * 33 * 32,  # distances -16 .. 16, of keys and of values
    'positions = "relative"\nrelative_distance = 2': 8 * 2 * 5 * 32,
    "decoder_feed_forward_width = 100": -4 * (256 - 100) * (128 + 1 + 128),
    "encoder_layers = 6": 2 * (4 * 128 * 129 + 256 * (128 + 1 + 128) + 128 + 2 * 256),
    "decoder_layers = 1": -3 * (2 * 4 * 128 * 129 + 256 * (128 + 1 + 128) + 128 + 3 * 256),
    'tie_embeddings = "target"': 500 * 128,
    'tie_embeddings = "none"': 2 * 500 * 128,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options(option: str) -> None:
    plain = parameter_counts(build('preset = "tiny"', 500))["total"]
    assert parameter_counts(build(option, 500))["total"] - plain == OPTIONS[option]


@pytest.mark.parametrize("option", ["", *OPTIONS, 'architecture = "bahdanau"'])
def test_parts_add_up(option: str) -> None:
    """Each parameter belongs to one part, shared ones to the part that shares them."""
    model: Any = build(option, 500)
    counts = parameter_counts(model)
    total = counts.pop("total")
    assert total == sum(counts.values()) == sum(p.numel() for p in dict(model.named_parameters()).values())
    assert all(counts.values())
    assert counts.keys() <= dict(model.named_children()).keys()
