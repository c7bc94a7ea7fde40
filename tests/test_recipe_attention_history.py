"""The recipe attention-history: systems of equal size, and what its script makes of their results."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sacrebleu
import torch
from conftest import ROOT

from nmt.config import Config
from nmt.config_file import dump_config, load_config, parse_config
from nmt.data.synthetic import generate, tokenize
from nmt.models import build_model, parameter_counts
from nmt.results import Row, add_rows
from recipes import load_script, make, workshop

RECIPE = ROOT / "recipes" / "attention-history"
LUONG = [
    f"luong-{kind}{feed}"
    for feed in ("", "-feed")
    for kind in ("dot", "general", "concat", "location", "local-m", "local-p")
]
SYSTEMS = ["no-attention", "bahdanau", *LUONG, "transformer"]


history = load_script("attention-history", "history")


# The systems, as make expands them


@pytest.fixture(scope="module")
def settings() -> dict[tuple[str, str], list[str]]:
    """(corpus, system) -> its keys of [model], by the variables of recipe.mk themselves."""
    if shutil.which("make") is None:
        pytest.skip("needs make, with which recipes are run")
    show = (
        "history-print: ; $(foreach c,offline multi30k,$(foreach s,$(SYSTEMS),"
        "$(info SYSTEM $(c) $(s) $(call history-model,$(c),$(s)))))@:"
    )
    variables = ("SYSTEMS", "STEPS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    command = ["make", "--no-print-directory", "--eval", show, "history-print"]
    text = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in text.splitlines() if line.startswith("SYSTEM ")]
    return {(corpus, system): keys for _, corpus, system, *keys in rows}


@pytest.mark.parametrize("target", ["attention-history", "attention-history-multi30k"])
def test_a_system_that_is_not_known_is_refused_before_anything_is_trained(
    tmp_path: Path, target: str
) -> None:
    done = make(workshop(tmp_path), target, SYSTEMS="bahdanau luong-dott")
    assert done.returncode == 2
    assert 'SYSTEMS="bahdanau luong-dott" is not known; choose from: no-attention bahdanau' in done.stderr
    assert not (tmp_path / "runs").exists()


def config_of(settings: dict[tuple[str, str], list[str]], corpus: str, system: str) -> Config:
    return load_config(RECIPE / f"{corpus}.toml", [f"model.{key}" for key in settings[corpus, system]])


@pytest.mark.parametrize("corpus", ["offline", "multi30k"])
def test_all_fifteen_have_as_many_parameters_within_ten_percent(
    settings: dict[tuple[str, str], list[str]], corpus: str
) -> None:
    assert [system for name, system in settings if name == corpus] == SYSTEMS
    sizes = {}
    for system in SYSTEMS:
        config = config_of(settings, corpus, system)
        vocabulary = config.tokenizer.vocabulary_size
        torch.manual_seed(1)
        sizes[system] = parameter_counts(build_model(config.model, vocabulary, vocabulary))["total"]
    assert max(sizes.values()) <= 1.10 * min(sizes.values()), sizes


@pytest.mark.parametrize("corpus", ["offline", "multi30k"])
def test_systems_are_what_their_names_say(settings: dict[tuple[str, str], list[str]], corpus: str) -> None:
    models = {system: config_of(settings, corpus, system).model for system in SYSTEMS}
    assert models["no-attention"].architecture == "recurrent"
    assert models["bahdanau"].architecture == "bahdanau"
    assert models["transformer"].architecture == "transformer"
    for system in LUONG:
        kind = system.removeprefix("luong-").removesuffix("-feed")
        local = kind.startswith("local-")
        found = models[system].model_dump()
        expected = {
            "architecture": "luong",
            "score": "general" if local else kind,
            "window": kind if local else "global",
            "input_feeding": system.endswith("-feed"),
        }
        assert {key: found[key] for key in expected} == expected
    for key in ("dropout", "tie_embeddings"):
        assert len({getattr(model, key) for model in models.values()}) == 1


# BLEU by source length


@pytest.mark.parametrize("seed", range(20))
def test_each_sentence_is_in_one_bin_and_each_bin_has_enough(seed: int) -> None:
    draw = random.Random(seed)
    least = draw.randint(1, 40)
    lengths = [draw.randint(1, 30) for _ in range(draw.randint(1, 300))]
    bins = history.length_bins(lengths, width=draw.randint(1, 5), least=least)
    for words in range(1, 60):
        assert sum(one.holds(words) for one in bins) == 1
    for one in bins:
        assert one.sentences == sum(map(one.holds, lengths))
        assert one.sentences >= least or len(bins) == 1
    assert bins[-1].most is None


def test_labels_of_bins() -> None:
    labels = [history.Bin(1, 3, 9).label, history.Bin(4, 4, 9).label, history.Bin(5, None, 9).label]
    assert labels == ["1-3", "4", "5+"]


def made_up(count: int = 120) -> tuple[list[str], list[str], list[str]]:
    """Sources, translations with some words wrong, references."""
    draw = random.Random(1)
    pairs = list(generate("test", count))
    references = [pair.target for pair in pairs]
    hypotheses = [
        " ".join("falsch" if draw.random() < 0.2 else word for word in line.split()) for line in references
    ]
    return [pair.source for pair in pairs], hypotheses, references


def test_bleu_of_a_bin_is_sacrebleu_of_its_sentences() -> None:
    sources, hypotheses, references = made_up()
    bins = history.length_bins([history.words_of(source) for source in sources], least=20)
    assert len(bins) > 2
    scores = history.bleu_by_length(bins, sources, hypotheses, references)
    for one, score in zip(bins, scores, strict=True):
        chosen = [i for i, source in enumerate(sources) if one.holds(len(source.split()))]
        expected = sacrebleu.corpus_bleu([hypotheses[i] for i in chosen], [[references[i] for i in chosen]])
        assert score == pytest.approx(expected.score, abs=1e-9)


# The table


def row(system: str, metric: str, score: float, test_set: str = "test") -> Row:
    low, high = (score - 1, score + 1) if metric in ("BLEU", "chrF2") else (None, None)
    signature = f"{metric}-signature model:0a1b"
    return Row(system, test_set, metric, score, low, high, signature, 1234567, 60.0, "cpu", 1000)


def system(name: str, *, aer: float | None, long: float | None = 50.0):
    return history.System(
        name=name,
        bleu=row(name, "BLEU", 90.0),
        bleu_long=None if long is None else row(name, "BLEU", long, "test-long"),
        chrf=row(name, "chrF2", 95.0),
        perplexity=row(name, "perplexity", 1.25),
        aer=None if aer is None else row(name, "AER", aer),
        parameters=1234567,
        training_speed=8123.4,
        translation_speed=321.6,
    )


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_system_without_attention_has_no_aer() -> None:
    systems = [system("no-attention", aer=None), system("bahdanau", aer=0.1447)]
    header, _, first, second = cells(history.table(systems, ["test", "test-long"]))
    at = header.index("AER")
    assert (first[at], second[at]) == ("-", "0.145")
    assert first[header.index("BLEU")] == "90.00 (89.0-91.0)"
    assert first[header.index("BLEU, test-long")] == "50.00 (49.0-51.0)"
    assert first[header.index("parameters")] == "1,234,567"
    assert first[header.index("training, target tokens/s")] == "8,123"
    assert first[header.index("translation, sentences/s")] == "322"
    assert first[header.index("model")] == "0a1b"


def test_columns_that_nothing_fills_are_left_out() -> None:
    header, *_ = cells(history.table([system("bahdanau", aer=None, long=None)], ["test_2016_flickr"]))
    assert [name for name in header if name == "AER" or name.startswith("BLEU")] == ["BLEU"]


def test_training_speed_is_the_median_of_what_was_logged(tmp_path: Path) -> None:
    events = [{"event": "train", "target_tokens_per_second": speed} for speed in (100.0, 9000.0, 8000.0)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in [*events, {"event": "validation"}]))
    assert history.training_speed(file) == 8000.0


# The test of long sentences


def test_long_sentences_are_not_those_of_the_test(tmp_path: Path) -> None:
    count = history.write_long_test(tmp_path, after=30, draws=120, words=12)
    columns = {s: (tmp_path / f"test-long.{s}").read_text().splitlines() for s in ("en", "de", "align")}
    assert {len(lines) for lines in columns.values()} == {count}
    assert count > 3
    assert not {pair.source for pair in generate("test", 30)}.intersection(columns["en"])
    for source, target, links in zip(*columns.values(), strict=True):
        assert len(source.split()) >= 12
        for i, j in (map(int, link.split("-")) for link in links.split()):
            assert 0 <= i < len(tokenize(source))
            assert 0 <= j < len(tokenize(target))


# The picture and the report


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    bins = [history.Bin(1, 6, 120), history.Bin(7, 12, 340), history.Bin(13, None, 100)]
    scores = {name: [90.0 - i, 80.0 - i, 60.0 - 3 * i] for i, name in enumerate(SYSTEMS)}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        files = [tmp_path / folder / f"picture.{suffix}" for suffix in ("png", "svg")]
        history.draw(files, bins, scores, "luong-general", "BLEU by source length")
    for name in ("picture.png", "picture.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_lines_can_be_told_apart_in_grey() -> None:
    styles = [history.style(name, "luong-general") for name in SYSTEMS]
    assert len({(s["marker"], str(s["linestyle"]), s["linewidth"]) for s in styles}) == len(SYSTEMS)
    strong = [n for n, s in zip(SYSTEMS, styles, strict=True) if s["linewidth"] > 2]
    assert strong == ["no-attention", "bahdanau", "luong-general", "transformer"]


def test_the_best_of_luongs_systems_is_drawn_strong() -> None:
    systems = [system("bahdanau", aer=0.1), system("luong-dot", aer=0.1), system("transformer", aer=0.1)]
    assert history.best_luong(systems) == "luong-dot"
    assert history.best_luong([systems[0]]) is None


def test_report(tmp_path: Path) -> None:
    sources, hypotheses, references = made_up()
    names, tests = ["no-attention", "bahdanau"], {"test": slice(0, 90), "test-long": slice(90, None)}
    config = parse_config(
        '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
        "[training]\nmax_steps = 1500\nbatch_tokens = 512\n"
    )
    for test, part in tests.items():
        for suffix, lines in (("en", sources), ("de", references)):
            (tmp_path / f"{test}.{suffix}").write_text("".join(f"{line}\n" for line in lines[part]))
    (tmp_path / "translations").mkdir()
    for name in names:
        metrics = [row(name, "BLEU", 60.0), row(name, "chrF2", 70.0), row(name, "perplexity", 2.0)]
        metrics += [row(name, "BLEU", 50.0, "test-long")]
        metrics += [row(name, "AER", 0.2)] if name == "bahdanau" else []
        add_rows(tmp_path / "results.json", metrics)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(dump_config(config))
        (tmp_path / name / "environment.json").write_text(json.dumps({"processor": "a chip", "cores": 2}))
        event = {"event": "train", "target_tokens_per_second": 8000.0}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(event) + "\n")
        (tmp_path / f"{name}.speed.json").write_text(json.dumps({"sentences_a_second": 300.0}))
        for test, part in tests.items():
            file = tmp_path / "translations" / f"{test}.{name}.de"
            file.write_text("".join(f"{line}\n" for line in hypotheses[part]))

    history.report(tmp_path, names, [str(tmp_path / test) for test in tests], ("en", "de"))

    text = (tmp_path / "history.md").read_text()
    assert text.startswith("Tests: test (1,000 lines), test-long (1,000 lines); the columns without")
    assert "- BLEU: `BLEU-signature`\n" in text
    assert "1,500 steps of 512 tokens; 2 cores, a chip" in text
    assert re.search(r"^\| no-attention \|.*\| - \|", text, re.MULTILINE)
    found = json.loads((tmp_path / "history.json").read_text())
    assert [one["name"] for one in found["systems"]] == names
    assert sum(one["sentences"] for one in found["bins"]) == len(sources)
    assert {len(scores) for scores in found["bleu_by_length"].values()} == {len(found["bins"])}
    assert (tmp_path / "bleu-by-length.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "bleu-by-length.svg").exists()
