"""Sentences longer than the model has positions for: named before training, split in translation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import TINY, Nmt, write_corpus

from nmt.checkpoint import load_model

MODELS = {
    "learned": 'architecture = "transformer"\npositions = "learned"\nencoder_layers = 1\ndecoder_layers = 1\n'
    "width = 32\nfeed_forward_width = 64\nheads = 2\nmax_positions = 70",
    "location": 'architecture = "luong"\nscore = "location"\nembedding_width = 16\nattentional_width = 16\n'
    "hidden_width = 32\nlayers = 1\nmax_positions = 70",
}


@pytest.fixture(params=list(MODELS))
def project(request: pytest.FixtureRequest, nmt: Nmt, tmp_path: Path) -> Nmt:
    write_corpus(tmp_path / "corpus")
    before, _, after = TINY.partition("[model]")
    model = f"[model]\n{MODELS[request.param]}\n\n"
    text = before.replace("[tokenizer]", "max_tokens = 69\n\n[tokenizer]") + model
    (tmp_path / "tiny.toml").write_text(text + after[after.index("[training]") :])
    return nmt


def test_training_lines_are_dropped_and_named(project: Nmt) -> None:
    for side in ("en", "de"):
        file = project.folder / f"corpus/train.{side}"
        lines = file.read_text().split("\n")
        lines[0] = " ".join(lines[:10])
        file.write_text("\n".join(lines))
    said = project("train", "tiny.toml", "--set", "training.max_steps=2").stderr
    assert "too many tokens; first: train:1," in said


@pytest.mark.parametrize("side", ["en", "de"])
def test_a_validation_line_is_named(project: Nmt, side: str) -> None:
    file = project.folder / f"corpus/validation.{side}"
    lines = file.read_text().split("\n")
    lines[4] = " ".join(lines)
    file.write_text("\n".join(lines))
    if side == "de" and "luong" in (project.folder / "tiny.toml").read_text():
        project("train", "tiny.toml", "--set", "training.max_steps=1")  # its table is of source positions
        return
    error = project.error("train", "tiny.toml")
    assert f"corpus/validation.{side}:5: has " in error
    assert "model.max_positions = 70 has room for 69 and their end; shorten the line or raise" in error


def test_translation_splits_and_says_so(project: Nmt) -> None:
    project("train", "tiny.toml", "--set", "training.max_steps=2")
    lines = (project.folder / "corpus/test.en").read_text().split("\n")[:-1]
    long = " ".join(lines[:20])
    text = f"{lines[0]}\n{long}\n{lines[1]}\n"
    done = project("translate", "runs/tiny", stdin=text.encode())
    assert len(done.lines) == 3
    longest = load_model(project.folder / "runs/tiny").manifest["longest_source"]
    assert 5 < longest < 69
    said = f"<stdin>:2: longer than {longest} tokens, as the longest of training; translated in 20 parts"
    assert said in done.stderr
    each = project("translate", "runs/tiny", stdin="".join(f"{line}\n" for line in lines[:20]).encode())
    assert [done.lines[0], done.lines[2]] == each.lines[:2]
    assert done.lines[1] == " ".join(each.lines)

    more = project("translate", "runs/tiny", "--max-source-tokens", "69", stdin=text.encode())
    assert "<stdin>:2: longer than 69 tokens; translated in 20 parts" in more.stderr
