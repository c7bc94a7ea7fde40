"""The recipe multi30k: what its rows are as make expands them, its tables, its monolingual text."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REAL_DATA, ROOT
from hypothesis import given
from hypothesis import strategies as st

from nmt.config import Config
from nmt.config_file import load_config
from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.results import Row, read_rows
from recipes import load_script

RECIPE = ROOT / "recipes" / "multi30k"
TRAININGS = ["baseline", "sampling", "r-drop", "back-translation", "only-r-drop", "only-back-translation"]


means = load_script("multi30k", "means")
monolingual = load_script("multi30k", "monolingual")


# The rows, as make expands them


def expand(expression: str, **variables: str) -> list[str]:
    """What make makes of it, in shell words."""
    if shutil.which("make") is None:
        pytest.skip("needs make, with which recipes are run")
    names = (
        "SEEDS",
        "ROWS",
        "PAIR",
        "PROTOCOL",
        "CONFIG",
        "STEPS",
        "BACK",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
    )
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = ["make", "--no-print-directory", "--eval", f"multi30k-print: ; $(info {expression})@:"]
    command += ["multi30k-print", *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


def config_of(training: str, pair: str = "en-de", **variables: str) -> Config:
    words = expand(f"$(call multi30k-options,{pair},{training}) $(SETTINGS)", **variables)
    assert words[::2] == ["--set"] * (len(words) // 2)
    return load_config(RECIPE / f"{variables.get('CONFIG', 'transformer')}.toml", words[1::2])


@pytest.fixture(scope="module")
def trainings() -> dict[str, Config]:
    return {name: config_of(name) for name in TRAININGS}


def differing(one: Config, other: Config) -> set[str]:
    first, second = one.model_dump(), other.model_dump()
    return {
        f"{part}.{key}"
        for part in first
        for key in first[part] or ()
        if first[part] != second[part] and first[part][key] != second[part][key]
    }


def test_each_row_adds_one_thing(trainings: dict[str, Config]) -> None:
    back = {"data.train", "data.tags", "data.weights"}
    steps = {
        ("baseline", "sampling"): {"tokenizer.sampling"},
        ("sampling", "r-drop"): {"training.r_drop"},
        ("r-drop", "back-translation"): back,
        ("baseline", "only-r-drop"): {"training.r_drop"},
        ("baseline", "only-back-translation"): back,
    }
    for (before, after), keys in steps.items():
        assert differing(trainings[before], trainings[after]) == keys


def test_settings_of_the_rows(trainings: dict[str, Config]) -> None:
    baseline, last = trainings["baseline"], trainings["back-translation"]
    assert (baseline.tokenizer.sampling, baseline.training.r_drop) == (0.0, 0.0)
    assert baseline.data.train_prefixes == ("corpora/multi30k/train",)
    assert len(baseline.data.test_prefixes) == 4
    assert (last.tokenizer.sampling, last.training.r_drop) == (0.1, 5.0)
    assert last.data.train_prefixes == ("corpora/multi30k/train", "runs/multi30k/raw/en-de/back/train")
    assert last.data.tags == ("", "<back>")
    assert last.data.weights == (2.0, 1.0)


@pytest.mark.parametrize("pair", ["en-de", "de-en", "en-fr"])
def test_pairs_and_protocols(pair: str) -> None:
    config = config_of("baseline", pair, PROTOCOL="published", PAIR=pair)
    assert (config.data.source_language, config.data.target_language) == tuple(pair.split("-"))
    assert config.data.train_prefixes == ("corpora/multi30k-tok/train.lc.norm.tok",)
    assert config.data.validation == "corpora/multi30k-tok/val.lc.norm.tok"
    assert len(config.data.test_prefixes) == 3


def test_the_steps_are_those_of_the_file_or_those_given() -> None:
    assert config_of("baseline").training.max_steps == 5000
    assert config_of("baseline", STEPS="123").training.max_steps == 123


def test_the_paper() -> None:
    config = config_of("baseline", PROTOCOL="published", CONFIG="paper")
    model, training = config.model, config.training
    assert (model.encoder_layers, model.decoder_layers, model.width) == (4, 4, 128)  # type: ignore[union-attr]
    assert (model.feed_forward_width, model.heads) == (256, 4)  # type: ignore[union-attr]
    assert (model.dropout, model.tie_embeddings) == (0.3, "all")
    assert (config.tokenizer.vocabulary_size, config.tokenizer.shared) == (10_000, True)
    assert (training.optimizer, training.schedule, training.warmup_steps) == ("adam", "inverse-sqrt", 2000)
    assert (training.learning_rate, training.max_steps) == (5e-3, 8000)
    assert (training.batch_tokens, training.accumulation, training.keep_last) == (4096, 2, 10)
    assert config.search.beam_size == 5
    assert expand("$(MULTI30K_AVERAGE)", CONFIG="paper") == ["10"]
    assert expand("$(MULTI30K_HERE)", CONFIG="paper") == ["runs/multi30k/raw/en-de-paper"]


def test_what_is_evaluated() -> None:
    assert expand("$(MULTI30K_NAMES)") == [
        f"{row}-1" for row in ("baseline", "sampling", "r-drop", "averaging", "back-translation")
    ]
    assert expand("$(MULTI30K_NAMES)", SEEDS="2 1", ROWS="baseline ensemble") == [
        "baseline-1",
        "baseline-2",
        "ensemble-of-baseline-1-2",
    ]
    assert expand("$(MULTI30K_SKIPPED)") == ["ensemble"]
    assert expand("$(MULTI30K_SKIPPED)", PAIR="en-fr", SEEDS="1 2") == ["back-translation"]
    assert expand("$(MULTI30K_ENSEMBLE_OF)", PAIR="en-fr") == ["averaging"]
    assert expand("$(MULTI30K_ENSEMBLE_OF)") == ["back-translation"]
    sampled = expand("$(MULTI30K_NAMES)", BACK="sampling", SEEDS="1 2", ROWS="back-translation ensemble")
    assert sampled == [
        "back-translation-sampled-1",
        "back-translation-sampled-2",
        "ensemble-of-back-translation-sampled-1-2",
    ]


def test_models_that_rows_measure() -> None:
    model = "$(call multi30k-model,{},1)"
    found = {row: expand(model.format(row))[0].removeprefix("runs/multi30k/raw/en-de/") for row in TRAININGS}
    assert found == {row: f"{row}-1" for row in TRAININGS} | {"back-translation": "back-translation-1-mean"}
    assert expand(model.format("averaging")) == ["runs/multi30k/raw/en-de/r-drop-1-mean"]
    assert expand(model.format("only-averaging")) == ["runs/multi30k/raw/en-de/baseline-1-mean"]


# Means over seeds


def row(system: str, score: float, metric: str = "BLEU", model: str = "00", test_set: str = "test") -> Row:
    return Row(system, test_set, metric, score, None, None, f"tok:none model:{model}", 10, 60.0, "cpu")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_mean_and_deviation(scores: list[float]) -> None:
    rows = [row(f"a + b (seed {seed})", score, model=f"{seed}f") for seed, score in enumerate(scores, 1)]
    (found,) = means.means([*rows])
    assert (found.system, found.n, found.signature) == ("a + b", len(scores), "tok:none")
    assert found.mean == pytest.approx(statistics.fmean(scores))
    assert found.seeds == tuple(range(1, len(scores) + 1))
    assert found.scores == tuple(scores)
    if len(scores) == 1:
        assert found.standard_deviation is None
    else:
        assert found.standard_deviation == pytest.approx(statistics.stdev(scores))


def test_systems_tests_and_metrics_are_not_mixed() -> None:
    rows = [
        row("a (seed 1)", 10),
        row("a (seed 1)", 50, "chrF2"),
        row("a (seed 2)", 20),
        row("a (seed 2)", 60, "chrF2"),
        row("a (seed 1)", 30, test_set="other"),
        row("a + ensemble of 2", 40),
    ]
    found = {(one.system, one.test_set, one.metric): one.mean for one in means.means(rows)}
    assert found == {
        ("a", "test", "BLEU"): 15,
        ("a", "test", "chrF2"): 55,
        ("a", "other", "BLEU"): 30,
        ("a + ensemble of 2", "test", "BLEU"): 40,
    }


def test_the_table_of_means() -> None:
    rows = [row("a (seed 1)", 10), row("a (seed 2)", 12), row("b", 11.5), row("b", 0.25, "chrF2")]
    text = means.table(means.means(rows))
    assert "| system | test set | n | BLEU | chrF2 | models |" in text
    assert "| a | test | 2 | 11.00 ± 1.41 |  | 00 |" in text
    assert "| b | test | 1 | 11.50 | 0.25 | 00 |" in text
    assert "- BLEU: `tok:none`" in text


def test_means_say_what_they_are_of() -> None:
    scored = [
        replace(row(f"a (seed {seed})", 10 * seed, model=model), lines=1000, references="abc")
        for seed, model in ((1, "1f"), (2, "2f+3f"))
    ]
    other = replace(scored[0], lines=461)
    found = means.means([*scored, other])
    assert [(one.n, one.lines, one.references, one.models) for one in found] == [
        (2, 1000, "abc", ("1f", "2f+3f")),
        (1, 461, "abc", ("1f",)),
    ]
    text = means.table(found)
    assert "| a | test (1,000 lines) | 2 | 15.00 ± 7.07 | 1f, 2f+3f |" in text
    assert "| a | test (461 lines) | 1 | 10.00 | 1f |" in text


def write(file: Path, rows: list[Row]) -> Path:
    means.write_rows(file.parent, rows)
    (file.parent / "results.json").rename(file)
    return file


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "means.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tables_of_a_folder(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", [row("a (seed 1)", 10)])
    two = write(tmp_path / "two.json", [row("a (seed 2)", 20)])
    here = tmp_path / "runs" / "raw" / "en-de"
    assert call(here, "--all", tmp_path / "runs", "--scores", two, one).returncode == 0
    assert [found.score for found in read_rows(here / "results.json")] == [20, 10]
    assert json.loads((here / "means.json").read_text())[0]["mean"] == 15
    assert "15.00 ± 7.07" in (here / "means.md").read_text()
    assert {found.test_set for found in read_rows(tmp_path / "runs/results.json")} == {"raw en-de test"}
    # With one seed there is nothing to take the mean of, and no old table is left.
    assert call(here, "--scores", one).returncode == 0
    assert not (here / "means.json").exists()
    assert not (here / "means.md").exists()


def test_scores_that_are_missing_or_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    for file, what in ((tmp_path / "absent.json", "is not there"), (bad, "is not a results table")):
        done = call(tmp_path / "here", "--scores", file)
        assert done.returncode == 2
        assert done.stderr.startswith("nmt: ")
        assert what in done.stderr
        assert done.stderr.count("\n") == 1


# Monolingual text


def test_each_sentence_once_and_none_of_the_tests() -> None:
    lines = ["b  c", "a", "", "a ", "  ", "test", "b c", "d\u2028e", "A"]
    assert list(monolingual.sentences(lines, ["test"], str)) == ["b c", "a", "d e", "A"]
    assert list(monolingual.sentences(["A", "a"], [], str.lower)) == ["a"]


def test_one_line_where_nothing_is_left_or_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.de").write_text("a\n\n")
    for files, without in ((["t.de"], ["t.de"]), (["absent.de"], [])):
        command = [
            sys.executable,
            str(RECIPE / "monolingual.py"),
            *files,
            "--output",
            "out.de",
            "--without",
            *without,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("nmt: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out.de").exists()


def test_without_sacremoses_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(UserError, match=r"needs sacremoses; .*pip install -e '\.\[recipes\]'"):
        monolingual.tokenizer("de")


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("en", 'A Dog\'s "Ball."', "a dog &apos;s &quot; ball . &quot;"),
        ("de", "Das Schild „Eis.“", "das schild &quot; eis &quot; ."),
        ("de", "z.B. McDonald’s & Co.", "z.b. mcdonald &apos; s &amp; co ."),
        ("fr", "Près de l’église, l’Éponge", "près de l &quot; église , l &quot; éponge"),
        ("en", "", ""),
    ],
)
def test_tokens_are_the_datasets(language: str, raw: str, expected: str) -> None:
    pytest.importorskip("sacremoses")
    assert monolingual.tokenizer(language)(raw) == expected


@pytest.mark.parametrize(
    "split",
    [
        pytest.param("train", marks=pytest.mark.slow),
        "val",
        "test_2016_flickr",
        "test_2017_flickr",
        "test_2017_mscoco",
    ],
)
@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_every_line_of_the_dataset_is_tokenised_as_the_dataset_has_it(language: str, split: str) -> None:
    pytest.importorskip("sacremoses")
    folder = REAL_DATA / "multi30k"
    if not folder.is_dir():
        pytest.skip("needs Multi30k in ../shared/data, which is not part of the project")
    tokenize = monolingual.tokenizer(language)
    raw = read_lines(folder / "raw" / f"{split}.{language}.gz")
    expected = read_lines(folder / "tok" / f"{split}.lc.norm.tok.{language}.gz")
    wrong = [(a, b) for a, b in zip(raw, expected, strict=True) if tokenize(a) != b]
    assert wrong == []
