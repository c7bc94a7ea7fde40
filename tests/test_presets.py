"""Presets of models, with the sizes of the papers, and of training; what optimizers and schedules imply."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nmt.config_file import changed_keys, dump_config, parse_config
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS
from nmt.models import build_model, parameter_counts
from nmt.presets import PRESETS, RATES, TRAINING_PRESETS

DATA = """[data]
train = "corpus/train"
validation = "corpus/val"
source_language = "en"
target_language = "de"
"""


def model_section(architecture: str, preset: str, more: str = "") -> str:
    return f'{DATA}[model]\narchitecture = "{architecture}"\npreset = "{preset}"\n{more}'


EVERY_PRESET = [(architecture, preset) for architecture, presets in PRESETS.items() for preset in presets]


@pytest.mark.parametrize(("architecture", "preset"), EVERY_PRESET)
def test_presets(architecture: str, preset: str) -> None:
    """It parses, is what it says, survives a round trip and builds, without its memory being taken."""
    config = parse_config(model_section(architecture, preset))
    assert isinstance(config.model, MODEL_SECTIONS[architecture])
    found = config.model.model_dump()
    assert {key: found[key] for key in PRESETS[architecture][preset]} == PRESETS[architecture][preset]
    assert parse_config(dump_config(config)) == config
    with torch.device("meta"):
        model = build_model(config.model, 100, 100)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("architecture", PRESETS)
def test_every_architecture_has_small_presets(architecture: str) -> None:
    """Named alike; `tiny` is the default."""
    counts = []
    for preset in ("tiny", "small"):
        with torch.device("meta"):
            model = build_model(parse_config(model_section(architecture, preset)).model, 8000, 8000)
        counts.append(parameter_counts(model)["total"])
    assert 1e6 < counts[0] < 8e6 < counts[1] < 4e7
    default = parse_config(DATA + f'[model]\narchitecture = "{architecture}"\n')
    assert default == parse_config(model_section(architecture, "tiny"))


# What the papers say of their models.
PAPERS: dict[tuple[str, str], dict[str, Any]] = {
    # Sec. 3.4: 4 layers of 1000 cells, embeddings of 1000, uniform in +-0.08. Sec. 3.3: the source reversed.
    # Embeddings are not shared, and nothing is dropped.
    ("recurrent", "sutskever2014"): dict(
        cell="lstm",
        layers=4,
        hidden_width=1000,
        embedding_width=1000,
        bidirectional=False,
        reverse_source=True,
        residual=False,
        dropout=0.0,
        tie_embeddings="none",
        initialization="paper",
    ),
    # A.2.3: n = 1000 hidden units, m = 620 of a word, l = 500 maxout, n' = 1000 of the alignment model.
    ("bahdanau", "bahdanau2014"): dict(
        hidden_width=1000,
        embedding_width=620,
        maxout_width=500,
        attention_width=1000,
        dropout=0.0,
        attention_dropout=0.0,
        tie_embeddings="none",
        initialization="paper",
    ),
    # Sec. 4.1: 4 layers of 1000 cells, embeddings of 1000, uniform in +-0.1, dropout 0.2, D = 10, the source
    # reversed. Table 1: the best single system is local-p with the general score, input feeding and dropout.
    ("luong", "luong2015"): dict(
        cell="lstm",
        layers=4,
        hidden_width=1000,
        embedding_width=1000,
        attentional_width=1000,
        score="general",
        window="local-p",
        window_size=10,
        input_feeding=True,
        bidirectional=False,
        reverse_source=True,
        residual=False,
        dropout=0.2,
        tie_embeddings="none",
        initialization="paper",
    ),
    # Table 3, "base" and "big": N = 6, d_model, d_ff, h, P_drop; sec. 3.5: sines; sec. 3.4: one matrix.
    ("transformer", "base"): dict(
        encoder_layers=6,
        decoder_layers=6,
        width=512,
        feed_forward_width=2048,
        heads=8,
        dropout=0.1,
        norm="post",
        norm_type="layernorm",
        activation="relu",
        positions="sinusoidal",
        tie_embeddings="all",
    ),
    ("transformer", "big"): dict(
        encoder_layers=6,
        decoder_layers=6,
        width=1024,
        feed_forward_width=4096,
        heads=16,
        dropout=0.3,
        norm="post",
        positions="sinusoidal",
        tie_embeddings="all",
    ),
}
PAPERS["transformer", "vaswani2017"] = PAPERS["transformer", "base"]


@pytest.mark.parametrize(("architecture", "preset"), PAPERS)
def test_presets_have_the_sizes_of_the_papers(architecture: str, preset: str) -> None:
    found = parse_config(model_section(architecture, preset)).model.model_dump()
    expected = PAPERS[architecture, preset]
    assert {key: found[key] for key in expected} == expected


def test_every_preset_with_a_year_is_compared_with_its_paper() -> None:
    of_papers = {(a, preset) for a, preset in EVERY_PRESET if preset[-4:].isdigit()}
    assert of_papers == {pair for pair in PAPERS if pair[1] not in ("base", "big")}


@pytest.mark.parametrize(
    ("architecture", "preset", "vocabularies", "parameters", "rounding"),
    [
        # Sec. 3.4: 384M parameters with 160,000 source and 80,000 target words.
        ("recurrent", "sutskever2014", (160_000, 80_000), 384e6, 0.5e6),
        # Table 3: 65M and 213M, with about 37,000 pieces (sec. 5.1) for both languages.
        ("transformer", "base", (37_000, 37_000), 65e6, 2e6),
        ("transformer", "big", (37_000, 37_000), 213e6, 2e6),
    ],
)
def test_presets_are_as_large_as_in_the_papers(
    architecture: str, preset: str, vocabularies: tuple[int, int], parameters: float, rounding: float
) -> None:
    with torch.device("meta"):
        model = build_model(parse_config(model_section(architecture, preset)).model, *vocabularies)
    counts = parameter_counts(model)
    assert abs(counts["total"] - parameters) < rounding
    if preset == "sutskever2014":  # "64M are pure recurrent connections", 32M on each side
        assert abs(counts["encoder"] - 32e6) < 0.5e6
        assert abs(counts["decoder"] - 32e6) < 0.5e6


def test_base_of_bahdanau_differs_in_the_first_weights_only() -> None:
    base, paper = (parse_config(model_section("bahdanau", p)).model for p in ("base", "bahdanau2014"))
    different = {key for key, value in paper.model_dump().items() if base.model_dump()[key] != value}
    assert different == {"preset", "initialization"}


# --- what the optimizer, the schedule and the training preset imply --------------------------------------


def training_of(*lines: str, overrides: list[str] | None = None) -> dict[str, Any]:
    text = DATA + "[training]\n" + "\n".join(lines)
    return parse_config(text, overrides=overrides or []).training.model_dump()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [],
            dict(
                optimizer="adam",
                schedule="inverse-sqrt",
                learning_rate=5e-3,
                warmup_steps=2000,
                betas=(0.9, 0.98),
                epsilon=1e-9,
            ),
        ),
        (["optimizer = 'sgd'"], dict(schedule="halving", learning_rate=1.0, warmup_steps=0)),
        (["optimizer = 'sgd'"], dict(halve_after_epochs=5.0, halve_every_epochs=1.0)),
        (["optimizer = 'adadelta'"], dict(schedule="constant", learning_rate=1.0, warmup_steps=0)),
        (["optimizer = 'adadelta'"], dict(epsilon=1e-6, rho=0.95)),
        (["schedule = 'noam'"], dict(learning_rate=1.0, warmup_steps=4000, optimizer="adam", epsilon=1e-9)),
        (["optimizer = 'adamw'"], dict(learning_rate=5e-3, schedule="inverse-sqrt", warmup_steps=2000)),
        (["schedule = 'cosine'"], dict(learning_rate=5e-3, warmup_steps=2000)),
        # What is given counts most.
        (
            ["optimizer = 'sgd'", "schedule = 'constant'", "warmup_steps = 7"],
            dict(schedule="constant", learning_rate=1.0, warmup_steps=7),
        ),
        (["optimizer = 'sgd'", "learning_rate = 0.5"], dict(schedule="halving", learning_rate=0.5)),
        (["optimizer = 'adadelta'", "epsilon = 1e-4"], dict(learning_rate=1.0, epsilon=1e-4)),
        (["schedule = 'noam'", "warmup_steps = 10"], dict(learning_rate=1.0, warmup_steps=10)),
    ],
)
def test_rates(lines: list[str], expected: dict[str, Any]) -> None:
    found = training_of(*lines)
    assert {key: found[key] for key in expected} == expected
    overrides = [f"training.{line}" for line in lines]
    assert training_of(overrides=overrides) == found  # the command line implies as much as the file


# What the papers say of training.
TRAINED = {
    # Sec. 3.4: plain SGD, 0.7, after 5 epochs halved every half epoch, 7.5 epochs in all; norm at most 5.
    "sutskever2014": dict(
        optimizer="sgd",
        learning_rate=0.7,
        schedule="halving",
        warmup_steps=0,
        halve_after_epochs=5.0,
        halve_every_epochs=0.5,
        max_epochs=8,  # the whole number after 7.5
        clip_norm=5.0,
        loss_per="sentence",
        label_smoothing=0.0,
        weight_decay=0.0,
    ),
    # B.2: Adadelta, epsilon = 1e-6, rho = 0.95, norm at most 1. Table 2: 6.67 x 10^5 updates.
    "bahdanau2014": dict(
        optimizer="adadelta",
        learning_rate=1.0,
        schedule="constant",
        warmup_steps=0,
        epsilon=1e-6,
        rho=0.95,
        max_steps=667_000,
        max_epochs=0,
        clip_norm=1.0,
        loss_per="sentence",
        label_smoothing=0.0,
        weight_decay=0.0,
    ),
    # Sec. 4.1: plain SGD, 1; with dropout 12 epochs, after 8 of them halved every epoch; norm at most 5.
    "luong2015": dict(
        optimizer="sgd",
        learning_rate=1.0,
        schedule="halving",
        warmup_steps=0,
        halve_after_epochs=8.0,
        halve_every_epochs=1.0,
        max_epochs=12,
        clip_norm=5.0,
        loss_per="sentence",
        label_smoothing=0.0,
        weight_decay=0.0,
    ),
    # Sec. 5.1 to 5.4: 25,000 tokens a side, 100,000 steps, Adam (0.9, 0.98, 1e-9), 4000 steps of warm-up.
    "vaswani2017": dict(
        optimizer="adam",
        learning_rate=1.0,
        schedule="noam",
        warmup_steps=4000,
        betas=(0.9, 0.98),
        epsilon=1e-9,
        batch_tokens=25_000,
        max_steps=100_000,
        max_epochs=0,
        clip_norm=0.0,
        loss_per="token",
        label_smoothing=0.1,
        weight_decay=0.0,
    ),
}


def test_every_training_preset_is_compared_with_its_paper() -> None:
    assert set(TRAINED) == set(TRAINING_PRESETS)


@pytest.mark.parametrize("preset", TRAINING_PRESETS)
def test_training_presets(preset: str) -> None:
    found = training_of(f"preset = '{preset}'")
    assert {key: found[key] for key in TRAINED[preset]} == TRAINED[preset]
    assert {key: found[key] for key in TRAINING_PRESETS[preset]} == TRAINING_PRESETS[preset]
    untouched = {key for key, value in training_of().items() if found[key] == value}
    assert untouched >= {"seed", "validate_every", "precision", "device", "patience"}
    assert training_of(overrides=[f"training.preset={preset}"]) == found


@pytest.mark.parametrize("preset", TRAINING_PRESETS)
def test_training_presets_yield(preset: str) -> None:
    """To every key that is given, and no other changes with it."""
    whole = training_of(f"preset = '{preset}'")
    for key, other in dict(
        learning_rate=0.125, schedule="cosine", warmup_steps=17, clip_norm=2.5, max_steps=33, max_epochs=2
    ).items():
        line = f"{key} = {other!r}"
        for found in (
            training_of(line, f"preset = '{preset}'"),
            training_of(f"preset = '{preset}'", overrides=[f"training.{key}={other}"]),
        ):
            assert found == whole | {key: other}


@pytest.mark.parametrize("architecture", PRESETS)
@pytest.mark.parametrize("chosen", [*RATES, *TRAINING_PRESETS, "nothing"])
def test_what_is_implied_survives_a_round_trip(architecture: str, chosen: str) -> None:
    """A dumped configuration says everything, so nothing is implied when it is read again."""
    key = (
        "preset"
        if chosen in TRAINING_PRESETS
        else "schedule"
        if chosen in ("noam", "inverse-sqrt")
        else "optimizer"
    )
    line = f"training.{key}={chosen}" if chosen != "nothing" else "training.seed=1"
    config = parse_config(
        DATA, overrides=[f"model.architecture={architecture}", line, "training.betas=[0.5, 0]"]
    )
    again = parse_config(dump_config(config))
    assert again == config
    assert dump_config(again) == dump_config(config)
    assert changed_keys(config, again) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adadelta"])
@pytest.mark.parametrize(("schedule", "warmup"), [("noam", 4000), ("inverse-sqrt", 2000)])
def test_a_schedule_with_warm_up_keeps_it(optimizer: str, schedule: str, warmup: int) -> None:
    training = f'[training]\noptimizer = "{optimizer}"\nschedule = "{schedule}"\n'
    assert parse_config(DATA + training).training.warmup_steps == warmup


def test_a_preset_keeps_its_optimizer() -> None:
    with pytest.raises(UserError, match=r"training.optimizer = adam: training.preset = luong2015 .* of sgd"):
        parse_config(DATA + '[training]\npreset = "luong2015"\noptimizer = "adam"\n')
