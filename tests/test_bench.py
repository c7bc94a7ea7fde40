"""The benchmark: the same weights in other engines, and what is made of their times."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import bench.__main__ as program
import numpy as np
import pytest
import torch
from bench import comparison, huggingface, models, parts, plain, tables
from bench.corpora import Corpus, TestSet, random_corpus, read_test_set, test_set
from bench.engines import CTranslate2, Spec, load, our_precisions
from bench.worker import Worker
from conftest import ROOT
from equivalence.variants import randomize
from exported import random_model, random_sources, text, tokenizer
from support import Nmt, write_corpus

from nmt.config import SearchConfig
from nmt.config_file import parse_config
from nmt.ctranslate2_model import write_export
from nmt.data.tokens import Tokens
from nmt.errors import UserError
from nmt.examples import Examples
from nmt.loss import cross_entropy_sum
from nmt.memory import peak_mib
from nmt.model_config import TransformerConfig
from nmt.models import build_model
from nmt.search import length_penalty
from nmt.training_config import TrainingConfig

test_set.__test__ = False  # type: ignore[attr-defined]
CLOSE = dict(rtol=1e-4, atol=1e-4)


@pytest.fixture
def transformers() -> None:
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")


def settings_of(**options: Any) -> TransformerConfig:
    sizes: dict[str, Any] = dict(
        architecture="transformer",
        preset="tiny",
        encoder_layers=2,
        decoder_layers=1,
        width=16,
        feed_forward_width=24,
        decoder_feed_forward_width=20,
        dropout=0.0,
        heads=2,
        max_positions=40,
    )
    return TransformerConfig(**(sizes | options))


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize(("activation", "tie"), [("relu", "all"), ("gelu", "target"), ("relu", "none")])
def test_hugging_face_computes_our_log_probabilities(
    norm: str, positions: str, activation: str, tie: str
) -> None:
    """Random weights and biases, vocabularies of two sizes where they may be, padded sentences."""
    settings = settings_of(norm=norm, positions=positions, activation=activation, tie_embeddings=tie)
    model: Any = build_model(settings, 23 if tie != "all" else 19, 19).eval()
    randomize(model, 3)
    theirs = huggingface.convert(model, settings, 40)
    source_BS = torch.tensor([[*range(4, 15), 3], [5, 7, 3, *[0] * 9], [3, *[0] * 11]])
    torch.manual_seed(4)
    input_BT = torch.randint(4, 19, (3, 25))
    input_BT[:, 0] = 2
    found_BTV = huggingface.log_probabilities(theirs, source_BS, input_BT)
    with torch.inference_mode():
        hidden_BTD = model.decode(input_BT, model.encode(source_BS, source_BS != 0))
        expected_BTV = model.project(hidden_BTD).log_softmax(dim=-1)
    torch.testing.assert_close(found_BTV, expected_BTV, **CLOSE)


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_hugging_face_generates_what_we_do(norm: str, tmp_path: Path) -> None:
    loaded = random_model(tmp_path / "model", tokenizer(), tokenizer(), norm=norm)
    sources = random_sources(40, 300)
    assert comparison.equal_greedy(loaded, sources) == len(sources)
    # One weight off, and it shows.
    loaded.model.decoder[0].feed_forward.inner.bias.data[:8] += 2
    moved = random_model(tmp_path / "other", tokenizer(), tokenizer(), norm=norm)
    search = loaded.config.search.model_copy(update={"beam_size": 1})
    ours = comparison.Translator.of(loaded, search).translate_ids(sources)
    theirs = huggingface.Generate(huggingface.convert(moved.model, moved.config.model, 80), search)
    found = theirs.translate_ids(sources, 7)
    assert sum(tuple(ids) != mine[0].tokens for ids, mine in zip(found, ours, strict=True)) > 5


@pytest.mark.parametrize(
    "options",
    [
        dict(norm_type="rmsnorm"),
        dict(activation="swiglu"),
        dict(positions="rotary"),
        dict(positions="relative"),
    ],
    ids=lambda options: next(iter(options.values())),
)
def test_what_hugging_face_cannot_hold(options: dict[str, Any]) -> None:
    reason = huggingface.unsupported(settings_of(**options))
    assert reason is not None
    assert next(iter(options.values())) in reason


def test_recurrent_models_are_ours_alone() -> None:
    config = parse_config(
        '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
        '[model]\narchitecture = "luong"\npreset = "tiny"\n'
    )
    assert huggingface.unsupported(config.model) == "Hugging Face has no class for luong models"
    assert huggingface.unsupported(settings_of()) is None


# --- lines and models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The offline corpus, small: 300 pairs to train on and two test sets of 40."""
    folder = tmp_path_factory.mktemp("offline")
    write_corpus(folder)
    return Corpus(folder, folder / "train", folder / "validation", 400)


def test_a_test_set_is_filled_up_with_training_lines(corpus: Corpus) -> None:
    lines = test_set(corpus, 110)
    assert len(lines.sources) == 110
    assert len(lines.references) == 80
    assert lines.name.startswith("80 lines of ")
    assert lines.name.endswith("'s test sets, 30 of its training set")
    assert lines.sources[80:] == (corpus.folder / "train.en").read_text().split("\n")[:30]
    assert lines.references[:40] == (corpus.folder / "test.de").read_text().split("\n")[:40]
    few = test_set(corpus, 30)
    assert (few.sources, few.references) == (lines.sources[:30], lines.references[:30])
    part = lines.part(11)
    assert part.sources == lines.sources[::10]
    assert lines.part(5000) is lines


def test_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a b\n\n  \nc\nd\n")
    (tmp_path / "out").write_text("A B\n-\n-\nC\nD\n")
    found = read_test_set(tmp_path / "in", tmp_path / "out", 2)
    assert found == TestSet("2 lines of in", ["a b", "c"], ["A B", "C"])
    assert read_test_set(tmp_path / "in", None, 9).references == []
    (tmp_path / "out").write_text("A B\n")
    with pytest.raises(UserError, match="has 1 line, not 5"):
        read_test_set(tmp_path / "in", tmp_path / "out", 2)
    (tmp_path / "in").write_text("\n")
    with pytest.raises(UserError, match="has no text"):
        read_test_set(tmp_path / "in", None, 2)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_random_weights_write_to_the_limit(beam_size: int, corpus: Corpus, tmp_path: Path) -> None:
    """In every engine, so that all do the same work; and greedily the same."""
    pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")
    section = 'architecture = "transformer"\npreset = "tiny"\nencoder_layers = 1\ndecoder_layers = 1'
    folder = models.random_model(tmp_path / "model", corpus, section, 15)
    lines = test_set(corpus, 40).sources
    export = tmp_path / "export"
    export.mkdir()
    write_export(comparison.load_model(folder), export)
    found = {
        engine: load(Spec(engine, str(where), beam_size=beam_size)).translate(lines, 8)
        for engine, where in (("nmt", folder), ("ctranslate2", export), ("huggingface", folder))
    }
    assert {engine: tokens for engine, (_, tokens) in found.items()} == {
        "nmt": 14 * 40,  # the fifteenth is the end
        "ctranslate2": 15 * 40,
        "huggingface": 14 * 40,
    }
    texts = {engine: texts for engine, (texts, _) in found.items()}
    assert {len(lines) for lines in texts.values()} == {40}
    if beam_size == 1:
        assert texts["huggingface"] == texts["nmt"]
        pairs = zip(texts["ctranslate2"], texts["nmt"], strict=True)
        assert all(longer.startswith(text) and text for longer, text in pairs)


def test_with_patience_the_best_by_our_score_is_taken() -> None:
    """CTranslate2 divides by |Y|, which favours long ones more than ((5 + |Y|) / 6) does."""
    engine = object.__new__(CTranslate2)
    engine.search = SearchConfig(length_penalty=1.0)
    log_probability = {("a",) * 3: -4.0, ("b",) * 9: -9.0, ("c",) * 4: -6.0}
    hypotheses = sorted(map(list, log_probability), key=lambda h: -log_probability[tuple(h)] / (len(h) + 1))
    scores = [log_probability[tuple(h)] / (len(h) + 1) for h in hypotheses]
    assert hypotheses[0] == ["b"] * 9
    ours = {h: score / length_penalty(len(h) + 1, 1.0) for h, score in log_probability.items()}
    found = engine._best(SimpleNamespace(hypotheses=hypotheses, scores=scores))
    assert tuple(found) == max(ours, key=lambda h: ours[h]) == ("a",) * 3


def test_lines_that_we_would_split_are_left_out(tmp_path: Path) -> None:
    loaded = random_model(tmp_path / "model", tokenizer(), tokenizer())  # takes 30 tokens
    long = " ".join(text()[:9])
    lines = TestSet("x", [text()[0], long, text()[1], long, text()[2]], ["A", "B", "C"])
    notes: list[str] = []
    kept = comparison._that_fit(loaded, lines, notes)
    assert (kept.sources, kept.references) == (list(text()[:3]), ["A", "C"])
    assert notes == ["2 lines of more than 30 tokens are left out"]
    assert comparison._that_fit(loaded, kept, notes) is kept
    with pytest.raises(UserError, match="all lines are longer than the 30 tokens"):
        comparison._that_fit(loaded, TestSet("x", [long], []), notes)


# --- the program ----------------------------------------------------------------------------------------


class Inside:
    """A Worker without a process of its own, which saves seconds; times are made up."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self.engine = load(spec)
        self.computes = self.engine.computes

    def translate(self, lines: list[str], batch: int | None = None, look: float = 1.0) -> dict[str, Any]:
        texts, tokens = self.engine.translate(lines, batch or self.spec.batch)
        seconds = len(lines) / {"nmt": 100.0, "ctranslate2": 50.0, "huggingface": 10.0}[self.spec.engine]
        if (batch or self.spec.batch) == 64:  # the best
            seconds /= 2
        return {"texts": texts, "tokens": tokens, "seconds": seconds, "peak_mib": peak_mib()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A small random model, and lines for it."""
    random_model(tmp_path / "model", tokenizer(), tokenizer())
    (tmp_path / "lines").write_text("\n".join(text()[:120]) + "\n")
    threads = torch.get_num_threads()
    yield tmp_path / "model", tmp_path / "lines"
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_it_compares_and_writes_its_files(
    model: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")
    monkeypatch.setattr(comparison, "Worker", Inside)
    monkeypatch.setattr(comparison, "latency", lambda *arguments: 1.25)
    monkeypatch.setattr(comparison, "BATCHES", (16, 64))
    monkeypatch.setattr(program.ceilings, "SHAPES", ((8, 16, 32),))
    monkeypatch.setattr(program.ceilings, "TRAINING_SHAPE", (8, 8, 16))
    folder, lines = model
    options = ["--model", folder, "--lines", lines, "--reference", lines, "--no-base", "--repeats", 2]
    options += ["--beam-size", 3, "--threads", 1, "--output", tmp_path / "out"]
    code = program.main([*map(str, options), "--only", "ceilings", "translation"])
    assert code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ceilings.json", "ceilings.md", "translation.json", "translation.md"}
    products = json.loads((tmp_path / "out/ceilings.json").read_text())["rows"]
    assert {tuple(row["shape"]) for row in products} == {(8, 16, 32), (8, 8, 16)}
    found = json.loads((tmp_path / "out/translation.json").read_text())
    assert found["machine"]["threads"] == 1
    assert found["machine"]["torch"] == torch.__version__
    (compared,) = found["models"]
    rows = {row["engine"]: row for row in compared["rows"]}
    engines = ["CTranslate2 float32", "CTranslate2 float32, patience 2", "CTranslate2 int8"]
    engines += ["CTranslate2 int8, patience 2", "Hugging Face float32"]
    assert list(rows) == [*(f"nmt {precision}" for precision in our_precisions()), *engines]
    ours = rows["nmt float32"]
    assert ours["equal"] == ours["ratio"] == 1.0
    assert [round(rows[name]["ratio"], 6) for name in engines] == [1.0] * 4 + [0.2]  # batches of 64
    assert all("batches of 64" in rows[name]["settings"] for name in engines)
    assert ours["bleu"] is not None
    assert all(row["words"] > 0 and len(row["seconds"]) == 2 for row in rows.values())
    assert rows["Hugging Face float32"]["lines"] == 100
    assert "Hugging Face: 100 of 100 greedy translations are ours" in compared["notes"]
    assert compared["latency"] == dict.fromkeys(("nmt translate", "nmt translate --engine ctranslate2"), 1.25)
    printed = capsys.readouterr().out
    assert (tmp_path / "out/translation.md").read_text().split("\n\n", 1)[1] in printed
    assert "| CTranslate2 int8 " in printed


def test_an_engine_that_computes_something_else_is_not_timed(
    model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="needs transformers, which is in the extra `dev`")
    loaded = comparison.load_model(model[0])
    monkeypatch.setattr(comparison, "equal_greedy", lambda loaded, sources: len(sources) - 1)
    notes: list[str] = []
    lines = read_test_set(model[1], None, 120)
    assert comparison._huggingface(loaded, lines, comparison.Plan(), {}, notes, lambda line: None) == []
    assert notes[-1] == "Hugging Face is not timed: it does not compute the same"


def test_without_the_other_engines(
    model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    for name in ("ctranslate2", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(comparison, "Worker", Inside)
    lines = read_test_set(model[1], None, 20)
    plan = comparison.Plan(beam_size=2, repeats=1)
    found = comparison.compare(model[0], lines, plan, tmp_path / "exports", lambda line: None)
    assert {row["engine"].split()[0] for row in found["rows"]} == {"nmt"}
    assert [note for note in found["notes"] if "not installed" in note] == found["notes"]
    assert len(found["notes"]) == 2


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--only",
        "translation",
        "--no-base",
        "--model",
        str(tmp_path),
        "--lines",
        str(tmp_path / "no"),
    ]
    assert program.main(options) == 2
    assert "no" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["--repeats", "0"])


@pytest.mark.slow
def test_a_process_of_its_own(model: tuple[Path, Path], nmt: Nmt) -> None:
    """What it answers is what `nmt translate` writes; of one that cannot load, an error."""
    spec = Spec("nmt", str(model[0]), beam_size=3, threads=1)
    lines = list(text()[:30])
    with contextlib.closing(Worker(spec)) as worker:
        found = worker.translate(lines, look=0.002)
        again = worker.translate(lines[:3])
    options = ("--beam-size", 3)
    expected = nmt("translate", model[0], *options, stdin="".join(f"{line}\n" for line in lines).encode())
    assert found["texts"] == expected.lines
    assert again["texts"] == expected.lines[:3]
    assert found["seconds"] > 0
    assert 50 < found["peak_mib"] < 4000
    assert 50 < again["peak_mib"] < 4000
    with pytest.raises(ChildProcessError, match="nmt float32 ended"):
        Worker(Spec("nmt", str(model[0].parent)))


def test_where_the_time_of_a_step_goes() -> None:
    """Of a real step: each part that there must be, and shares of one whole."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.LayerNorm(256), torch.nn.Linear(256, 64))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(512, 64)).softmax(dim=-1).sum().backward()
        optimizer.step()

    step()
    found = parts.shares(step)
    assert sum(found.values()) == pytest.approx(1.0)
    assert {"linear and recurrent layers", "norms", "optimizer", "attention"} <= set(found)
    assert set(found) <= {*parts.PARTS, parts.REST}
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_products_of_the_loss_count_with_it() -> None:
    """Also where it is not computed in C, as in float64 and on GPUs."""
    hidden, weight = torch.randn(600, 64, dtype=torch.float64), torch.randn(500, 64, dtype=torch.float64)
    hidden.requires_grad_()
    target = torch.randint(500, (600,))
    found = parts.shares(lambda: cross_entropy_sum(hidden, weight, None, target)[0].backward())
    assert next(iter(found)) == parts.WHOLE
    assert found.get("linear and recurrent layers", 0.0) < 0.1


def test_random_words_fill_the_vocabulary(tmp_path: Path) -> None:
    made = random_corpus(tmp_path / "random", 300, pairs=200)
    lines = [(made.folder / f"train.{language}").read_text().splitlines() for language in ("en", "de")]
    assert [len(side) for side in lines] == [200, 200]
    assert len({word for side in lines for line in side for word in line.split()}) > 300
    assert lines[0] != lines[1]
    again = random_corpus(tmp_path / "again", 300, pairs=200)
    assert (again.folder / "train.en").read_text() == "\n".join(lines[0]) + "\n"


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("_ChunkedCrossEntropy", "output layer and loss"),
        ("_ShortAttentionBackward", "attention"),
        ("_LinearFunctionBackward", "linear and recurrent layers"),
        ("aten::addmm", "linear and recurrent layers"),
        ("_Dropout", "dropout"),
        ("aten::native_layer_norm_backward", "norms"),
        ("aten::_fused_adam_", "optimizer"),
        ("aten::linalg_vector_norm", "optimizer"),
        ("aten::copy_", parts.REST),
    ],
)
def test_parts_of_a_step(operation: str, part: str) -> None:
    assert parts.part_of(operation) == part


def test_tables_stand_in_columns() -> None:
    shown = tables.table(["a", "long name"], [["x", 1], ["yyyy", "22"]]).split("\n")
    assert shown == [
        "| a    | long name |",
        "| ---- | --------: |",
        "| x    |         1 |",
        "| yyyy |        22 |",
    ]


def test_the_plain_loop_learns() -> None:
    """What training is compared with trains: its loss on a batch falls, and padding does not count."""
    torch.manual_seed(1)
    loop = plain.PlainLoop(
        plain.PlainTransformer(settings_of(), 30), TrainingConfig(), torch.device("cpu"), rate=1e-2
    )
    examples = Examples(Tokens.of([[5, 6, 7], [8]]), Tokens.of([[9], [10, 11]]))
    batch = examples.batch(np.array([0, 1]))
    losses = [loop.step(batch) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.5
    loop.model.eval()
    source, read = (torch.from_numpy(ids) for ids in (batch.source_BS, batch.target_input_BT))
    both = loop.model(source, read)[1]
    alone = loop.model(source[1:, :2], read[1:])[0]
    assert torch.allclose(both, alone, atol=1e-5)


@pytest.mark.slow
def test_the_whole_program_on_a_small_model(model: tuple[Path, Path], tmp_path: Path) -> None:
    """Processes, training and random weights too."""
    import os
    import subprocess
    import sys

    options = ["--model", model[0], "--lines", model[1], "--count", 100, "--base-count", 20]
    options += ["--repeats", 1, "--steps", 10, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench", *map(str, options)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "recipes")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "training, Bahdanau 256" in done.stdout
    found = json.loads((tmp_path / "out/translation.json").read_text())["models"]
    assert [one["model"] for one in found] == [str(model[0]), "base-random weights"]
    assert all(seconds > 0 for one in found for seconds in one["latency"].values())
    speeds = json.loads((tmp_path / "out/training.json").read_text())["rows"]
    assert len(speeds) == 14
    assert all(0 < (row["gflops"] or 1) <= row["ceiling_gflops"] for row in speeds)
    assert all(sum(row["parts"].values()) == pytest.approx(1.0) for row in speeds)
    assert all(row["peak_mib"] > 100 for row in speeds)
    assert all(row["target_tokens_per_second"] > 0 for row in speeds)
