"""The configurations of the recipes on public corpora say what the papers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from nmt.config import Config
from nmt.config_file import load_config
from nmt.data.registry import load_corpus
from nmt.models import build_model, parameter_counts
from recipes import make, workshop

RECIPES = ("iwslt14-de-en", "iwslt15-en-vi", "wmt14-en-de", "wmt14-en-fr")
FILES = [path for recipe in RECIPES for path in sorted((ROOT / "recipes" / recipe).glob("*.toml"))]
KEYS = [f"{path.parent.name}/{path.stem}" for path in FILES]


def config(key: str) -> Config:
    return load_config(ROOT / "recipes" / f"{key}.toml")


def millions(found: Config) -> dict[str, float]:
    """Weights by part."""
    size = found.tokenizer.vocabulary_size
    with torch.device("meta"):
        model = build_model(found.model, size, size)
    return {part: count / 1e6 for part, count in parameter_counts(model).items()}


@pytest.mark.parametrize("path", FILES, ids=KEYS)
def test_they_use_their_corpus(path: Path) -> None:
    """Every text is in the registry or made by the recipe; what is averaged is kept."""
    found, recipe = load_config(path), path.parent.name
    corpus = load_corpus(recipe)
    makefile = (path.parent / "recipe.mk").read_text()
    assert {found.data.source_language, found.data.target_language} == set(corpus.languages)
    for prefix in (*found.data.train_prefixes, found.data.validation, *found.data.test_prefixes):
        folder, _, name = prefix.rpartition("/")
        if folder == f"corpora/{recipe}":
            assert name in corpus.splits
        else:
            assert folder == f"runs/{recipe}/text"
            assert re.search(rf"{re.escape(prefix)}\b", makefile)
            assert re.search(rf"-tokenised := .*{path.stem}", makefile)
    (kind, number) = re.findall(rf"average-{re.escape(path.stem)} := --(last|best) (\d+)", makefile)[0]
    assert int(number) == (found.training.keep_last if kind == "last" else found.training.keep_best)
    systems = re.findall(r"\S+-systems := (.*)", makefile)[0].split()
    assert all((path.parent / f"{system}.toml").exists() for system in systems)


@pytest.mark.parametrize("recipe", ["wmt14-en-de", "wmt14-en-fr"])
@pytest.mark.parametrize(
    ("size", "steps", "weights", "last"), [("base", 100_000, 65, 5), ("big", 300_000, 213, 20)]
)
def test_vaswani_2017(recipe: str, size: str, steps: int, weights: float, last: int) -> None:
    """Sec. 5 and 6, table 3; its millions of parameters are those of 37,000 pieces, rounded up for base."""
    found = config(f"{recipe}/transformer-{size}")
    training, search = found.training, found.search
    assert training.max_steps == steps
    assert training.batch_tokens * training.accumulation == 25_000
    assert all(training.accumulation % processes == 0 for processes in (1, 2, 4, 8))
    assert (training.optimizer, training.betas, training.epsilon) == ("adam", (0.9, 0.98), 1e-9)
    assert (training.schedule, training.warmup_steps, training.label_smoothing) == ("noam", 4000, 0.1)
    assert (search.beam_size, search.length_penalty, search.max_length_offset) == (4, 0.6, 50)
    assert training.keep_last == last
    assert found.tokenizer.vocabulary_size == {"wmt14-en-de": 37_000, "wmt14-en-fr": 32_000}[recipe]
    dropout = 0.3 if (size, recipe) == ("big", "wmt14-en-de") else 0.1
    assert found.model.dropout == dropout
    pieces = found.model_copy(
        update={"tokenizer": found.tokenizer.model_copy(update={"vocabulary_size": 37_000})}
    )
    assert millions(pieces)["total"] == pytest.approx(weights, rel=0.04)


def test_iwslt14() -> None:
    """fairseq's transformer_iwslt_de_en: 36.7 million weights with one table of 10,000 pieces."""
    found = config("iwslt14-de-en/transformer")
    assert millions(found)["total"] == pytest.approx(36.7, abs=0.1)
    training = found.training
    assert (training.learning_rate, training.warmup_steps, training.schedule) == (5e-4, 4000, "inverse-sqrt")
    assert (training.batch_tokens, training.label_smoothing, training.weight_decay) == (4096, 0.1, 1e-4)
    assert (found.model.dropout, found.search.beam_size) == (0.3, 5)


@pytest.mark.parametrize(
    ("key", "rate", "norm", "words"),
    [
        ("iwslt15-en-vi/luong", 1.0, 5.0, 25),
        ("wmt14-en-de/luong2015", 1.0, 5.0, 25),
        ("wmt14-en-fr/sutskever2014", 0.7, 5.0, 30),
    ],
)
def test_rates_of_losses_a_sentence(key: str, rate: float, norm: float, words: int) -> None:
    """Papers that divide the loss by sentences: our update is theirs."""
    training = config(key).training
    assert (training.loss_per, training.learning_rate, training.clip_norm) == ("sentence", rate, norm)
    assert training.batch_tokens == 128 * words


@pytest.mark.parametrize("recipe", RECIPES)
def test_tables_say_what_was_not_run(recipe: str) -> None:
    """A row a system, and no number that is not of the literature."""
    readme = (ROOT / "recipes" / recipe / "README.md").read_text()
    rows = [line.split(" | ") for line in readme.splitlines() if "| not run | not run |" in line]
    systems = {path.stem for path in FILES if path.parent.name == recipe}
    assert {row[0].removeprefix("| ") for row in rows} == systems


# --- what make says before it does anything ----------------------------------------------------------------


def test_other_settings_than_a_training_was_made_with_are_refused(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    stamps = {
        "quickstart": ("runs/quickstart/.trained-bahdanau", 'SET="training.max_steps=4 training.seed=2"'),
        "iwslt14-de-en": ("runs/iwslt14-de-en/.trained-transformer", 'SET="a=1"'),
        "attention-history-multi30k": ("runs/attention-history/multi30k/.trained-bahdanau", 'STEPS=9 SET=""'),
        "multi30k": ("runs/multi30k/raw/en-de/.trained-baseline-1", 'STEPS=4 SET=""'),
        "hansard": ("runs/hansard/.trained-en-fr", 'STEPS=4 SET=""'),
    }
    for target, (name, text) in stamps.items():
        stamp = folder / name
        stamp.parent.mkdir(parents=True)
        stamp.write_text(f"{text}\n")
        done = make(folder, target)
        assert done.returncode == 2
        shown = str(Path(name)).replace(".trained-", "")
        assert f"{shown} was trained with {text}, not " in done.stderr
        assert f"remove {Path(name).parent}/ to begin anew" in done.stderr
        assert done.stdout == ""
    # The same again is no hindrance, nor is another system.
    same = make(folder, "quickstart", dry=True, SET="training.max_steps=4 training.seed=2")
    assert (same.returncode, same.stderr) == (0, "")
    other = make(folder, "attention-history-multi30k", dry=True, SYSTEMS="transformer")
    assert (other.returncode, other.stderr) == (0, "")


@pytest.mark.parametrize(
    ("target", "variables", "said"),
    [
        ("wmt14-en-de", {"SYSTEMS": ""}, 'SYSTEMS="" is not known; choose from: luong2015 transformer-base'),
        ("iwslt14-de-en", {"SYSTEMS": "nope"}, 'SYSTEMS="nope" is not known; choose from: transformer'),
        ("multi30k", {"SEEDS": "1 x"}, 'SEEDS="1 x" is not one number or more'),
    ],
)
def test_what_recipes_do_not_know(tmp_path: Path, target: str, variables: dict[str, str], said: str) -> None:
    done = make(workshop(tmp_path / "work"), target, **variables)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    "target",
    [
        "quickstart",
        "attention-history",
        "attention-history-multi30k",
        "multi30k",
        "multi30k-recurrent",
        *RECIPES,
    ],
)
def test_steps_are_those_of_every_training(tmp_path: Path, target: str) -> None:
    folder = workshop(tmp_path / "work")
    shown = make(folder, target, dry=True, STEPS="7", SET="training.seed=2").stdout.replace("\\\n", " ")
    trainings = [line.split() for line in shown.splitlines() if "nmt train " in line]
    assert trainings
    for words in trainings:
        assert [word for word in words if word.startswith("training.max_steps=")] == ["training.max_steps=7"]
        assert "training.seed=2" in words


@pytest.mark.parametrize("seeds", ["1", "2", "2 3"])
def test_all_seeds_train_on_one_back_translation(tmp_path: Path, seeds: str) -> None:
    folder = workshop(tmp_path / "work")
    shown = make(folder, "multi30k", dry=True, ROWS="only-back-translation", SEEDS=seeds).stdout
    (translated,) = [line.split()[2] for line in shown.splitlines() if "nmt translate " in line]
    assert translated == "runs/multi30k/raw/de-en/baseline-1"
    trained = [line.partition(" --run ")[2].split()[0] for line in shown.splitlines() if "nmt train " in line]
    expected = [f"runs/multi30k/raw/en-de/only-back-translation-{seed}" for seed in seeds.split()]
    assert sorted(trained) == sorted([translated, *expected])
