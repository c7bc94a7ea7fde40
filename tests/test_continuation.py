"""What a run goes on from: with which tokenizer, and past which damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support import Nmt, prepare_folder

from nmt.data import prepare
from nmt.data.tokenizer import Tokenizer
from nmt.data.tokenizer import train_tokenizer as real

OPTIONS = ["--set", "training.schedule=constant", "--set", "training.keep_last=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `runs/eight`, of 8 steps, and `runs/sixteen`, that nothing stopped."""
    folder = tmp_path_factory.mktemp("continuation")
    prepare_folder(folder)
    for run, steps in (("eight", 8), ("sixteen", 16)):
        Nmt(folder)(*train(run, steps))
    return folder


@pytest.fixture
def nmt(folder: Path, tmp_path: Path) -> Nmt:
    """In a folder with a run of 8 steps of its own."""
    shutil.copytree(folder, tmp_path / "project", symlinks=True)
    return Nmt(tmp_path / "project")


def train(run: str, steps: int) -> list[str]:
    return ["train", "tiny.toml", "--run", f"runs/{run}", *OPTIONS, "--set", f"training.max_steps={steps}"]


def same_end(folder: Path) -> bool:
    ends = [
        safetensors.torch.load_file(folder / f"runs/{run}/last/model.safetensors")
        for run in ("eight", "sixteen")
    ]
    return all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def prepared(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "runs/.prepared").iterdir() if p.is_dir())


@pytest.fixture
def another_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later version of a library might train: other pieces, as many."""

    def train(*arguments: Any, **options: Any) -> Tokenizer:
        return real(*arguments, **{**options, "type": "unigram"})

    monkeypatch.setattr(prepare, "train_tokenizer", train)


@pytest.mark.usefixtures("another_tokenizer")
def test_a_run_goes_on_with_its_own_tokenizer(nmt: Nmt) -> None:
    """The prepared corpus is gone, and another one would be made by now."""
    shutil.rmtree(nmt.folder / "runs/.prepared")
    nmt(*train("eight", 12))
    assert "tokenizer on" not in nmt(*train("eight", 16)).stderr
    assert same_end(nmt.folder)
    assert len(prepared(nmt.folder)) == 1


def test_a_prepared_corpus_that_is_there_serves(nmt: Nmt) -> None:
    before = prepared(nmt.folder)
    nmt(*train("eight", 16))
    assert same_end(nmt.folder)
    assert prepared(nmt.folder) == before


@pytest.mark.usefixtures("another_tokenizer")
def test_another_tokenizer_is_refused(nmt: Nmt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.training.tokenizers_of", lambda *_: None)
    shutil.rmtree(nmt.folder / "runs/.prepared")
    said = nmt.error(*train("eight", 16))
    assert said.startswith("nmt: runs/eight: the corpus in runs/.prepared/")
    assert "is prepared with another tokenizer.model than this run was begun with; delete" in said
    monkeypatch.undo()
    shutil.rmtree(nmt.folder / "runs/.prepared")  # as it says
    nmt(*train("eight", 16))
    assert same_end(nmt.folder)


def test_manifests_that_cannot_be_read_are_set_aside(nmt: Nmt) -> None:
    """The newest and an old one: each is told, and training goes on from the one between."""
    run = nmt.folder / "runs/eight"
    nmt(*train("eight", 12))
    for step, content in ((4, '{"format": 1, "fi'), (12, '{"format": 1, "files": {}}')):
        (run / f"checkpoints/step-{step:08d}/manifest.json").write_text(content)
    nmt(*train("eight", 16))
    assert same_end(nmt.folder)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    said = [row["text"] for row in rows if row["event"] == "warning"]
    assert [row["step"] for row in rows if row["event"] == "warning"] == [8, 8]
    assert "step-00000004/manifest.json: is damaged" in said[0]
    assert said[0].endswith("; it was set aside")
    assert (
        "step-00000012/manifest.json: does not say of which step it is; it was set aside, training" in said[1]
    )
    names = {p.name for p in (run / "checkpoints").iterdir()}
    whole, aside = ("00000008", "00000012", "00000016"), ("00000004", "00000012")
    assert names == {f"step-{n}" for n in whole} | {f"damaged-step-{n}" for n in aside}
