"""nmt translate --engine ctranslate2, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Nmt

pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
RUN = "runs/tiny"
ENGINE = ("--engine", "ctranslate2")


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    Nmt(tiny_run)("export", RUN, "--output", folder / "float32")
    Nmt(tiny_run)("export", RUN, "--output", folder / "int8", "--quantization", "int8")
    return folder


def test_greedy_lines_and_scores_are_ours(tiny_run: Path, exported: Path) -> None:
    """Of the model, converted on the way, and of its export; lines that are blank or too long too."""
    run = Nmt(tiny_run)
    text = (tiny_run / "corpus/test.en").read_bytes()
    text += b"\n \nthe old house " + b"sees the old house. " * 60 + b"\nno newline"
    options = ("--beam-size", 1, "--format", "jsonl")
    ours = [json.loads(line) for line in run("translate", RUN, *options, stdin=text).lines]
    for model in (RUN, exported / "float32"):
        done = run("translate", model, *options, *ENGINE, stdin=text)
        assert "translated in" in done.stderr
        theirs = [json.loads(line) for line in done.lines]
        assert len(theirs) == len(ours) == text.count(b"\n") + 1
        for mine, other in zip(ours, theirs, strict=True):
            one, two = mine["translations"][0], other["translations"][0]
            assert other["source"] == mine["source"]
            assert (two["text"], two["tokens"]) == (one["text"], one["tokens"])
            assert two["score"] == pytest.approx(one["score"], abs=1e-3)
            assert two["log_probability"] == pytest.approx(one["log_probability"], abs=1e-3)


def test_the_export_decides_what_is_computed(tiny_run: Path, exported: Path) -> None:
    run = Nmt(tiny_run)
    options = ("corpus/test.en", "--format", "jsonl", "--n-best", 2, *ENGINE)
    whole, quantized = (
        [json.loads(line)["translations"] for line in run("translate", model, *options).lines]
        for model in (exported / "float32", exported / "int8")
    )
    assert [len(found) for found in whole] == [2] * 40
    assert [[c["score"] for c in found] for found in whole] == [
        sorted((c["score"] for c in found), reverse=True) for found in whole
    ]
    assert whole != quantized
    done = run("translate", RUN, *options, "--precision", "int8")  # quantized on the way
    assert [json.loads(line)["translations"] for line in done.lines] == quantized
    message = run.error("translate", exported / "int8", *options, "--precision", "bfloat16")
    assert "was exported with quantization int8, not bfloat16; export it again" in message


def test_attention_comes_from_the_model(tiny_run: Path, exported: Path) -> None:
    run = Nmt(tiny_run)
    options = ("corpus/test.en", "--format", "jsonl", "--alignment", "--attention", *ENGINE)
    found = [json.loads(line)["translations"][0] for line in run("translate", RUN, *options).lines]
    assert all(len(one["attention"]) == len(one["tokens"]) for one in found)
    message = run.error("translate", exported / "int8", *options)
    assert "int8: is an export, which gives no attention for --alignment; name its model" in message
    message = run.error("translate", exported / "int8", "--replace-unknown", *ENGINE, stdin=b"a\n")
    assert "--replace-unknown" in message


def test_another_engine_does_not_go_on_with_a_file(tiny_run: Path, exported: Path, nmt: Nmt) -> None:
    (nmt.folder / "in").write_text("the old house\n\xff\n", encoding="latin-1")
    command = ("translate", tiny_run / RUN, "in", "--output", "out")
    nmt.error(*command)  # after one line
    (nmt.folder / "in").write_text("the old house\na cat\n")
    assert "engine nmt, not ctranslate2" in nmt.error(*command, *ENGINE)
    whole = ("translate", exported / "float32", "in", "--output", "other", *ENGINE)
    (nmt.folder / "in").write_text("the old house\n\xff\n", encoding="latin-1")
    nmt.error(*whole)
    assert (nmt.folder / "other.partial").read_bytes().count(b"\n") == 1
    (nmt.folder / "in").write_text("the old house\na cat\n")
    assert "continu" in nmt(*whole).stderr
    assert (nmt.folder / "other").read_bytes() == nmt(*whole[:3], *ENGINE).stdout


def test_mistakes(tiny_run: Path, exported: Path) -> None:
    run = Nmt(tiny_run)

    def error(*arguments: object) -> str:
        return run.error("translate", *arguments, stdin=b"a\n")

    assert "--engine marian is not known; use nmt or ctranslate2" in error(RUN, "--engine", "marian")
    assert "leave --ensemble out" in error(RUN, "--ensemble", RUN, *ENGINE)
    assert "not --device cuda" in error(RUN, "--device", "cuda", *ENGINE)
    options = ("--beam-size", 2, "--n-best", 3, "--format", "jsonl")
    assert "more than the beam of 2; raise --beam-size" in error(RUN, *options, *ENGINE)
    assert "use nmt translate --engine ctranslate2" in error(exported / "int8")
    assert "no such model" in error("nowhere", *ENGINE)
    assert "holds no model" in error("corpus", *ENGINE)


def test_without_ctranslate2(tiny_run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    for model in (RUN, exported / "int8"):
        message = Nmt(tiny_run).error("translate", model, *ENGINE, stdin=b"a\n")
        assert (
            "CTranslate2 is not installed; in the folder of nmt's source run pip install -e '.[export]'"
            in message
        )
