"""Every step of the recipe hansard on a mirror of offline text, for a few steps; then none is done again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from nmt.data.synthetic import tokenize, write_corpus
from nmt.results import models_in
from recipes import make, workshop

SET = (
    "training.max_steps=5 training.validate_every=1 training.log_every=2 training.warmup_steps=2 "
    "model.width=16 model.feed_forward_width=16 model.heads=2 model.encoder_layers=1 model.decoder_layers=2 "
    "tokenizer.vocabulary_size=500 training.precision=float32"
)


def write_mirror(folder: Path) -> dict[str, str]:
    """The offline corpus under the names of the recipe's files; its German is called French."""
    sizes = {"train": 300, "validation": 12, "test": 12, "test-compositional": 12}
    write_corpus(folder / "offline", sizes=sizes)
    hansard, alignments = folder / "hansard", folder / "alignments"
    hansard.mkdir()
    alignments.mkdir()
    for name, split in (("train", "train"), ("dev", "validation"), ("test", "test")):
        for language, source in (("en", "en"), ("fr", "de")):
            text = (folder / f"offline/{split}.{source}").read_bytes()
            (hansard / f"{name}.{language}.gz").write_bytes(gzip.compress(text))
    for language, source in (("en", "en"), ("fr", "de")):
        lines = (folder / f"offline/test.{source}").read_text().split("\n")[:-1]
        words = [" ".join(tokenize(line)) for line in lines]
        (alignments / f"hansard.{language}").write_text(
            "".join(f"{line[0].lower()}{line[1:]}\n" for line in words)
        )
    links = (folder / "offline/test.align").read_text().split("\n")[:-1]
    counted = [
        " ".join(f"{int(i) + 1}-{int(j) + 1}" for i, j in (link.split("-") for link in line.split()))
        for line in links
    ]
    (alignments / "hansard.gold").write_text("".join(f"{line}\n" for line in counted))
    return {"HANSARD": str(hansard), "ALIGNMENTS": str(alignments), "SET": SET}


@pytest.mark.slow
def test_hansard(tmp_path: Path) -> None:
    folder, mirror = workshop(tmp_path / "work"), write_mirror(tmp_path)
    done = make(folder, "hansard", **mirror)
    assert done.returncode == 0, done.stderr
    results = folder / "runs/hansard/results.json"
    rows = json.loads(results.read_text())
    found = {(row["system"], row["test_set"], row["metric"]) for row in rows}
    for direction in ("en-fr", "fr-en"):
        assert (direction, f"test.{direction}", "BLEU") in found
        assert (direction, "hansard.gold", "AER") in found
    assert ("both, grow-diag", "hansard.gold", "AER") in found
    models = {row["system"]: models_in(row["signature"]) for row in rows if row["metric"] == "AER"}
    assert models["both, grow-diag"] == ["+".join([*models["en-fr"], *models["fr-en"]])]
    assert all(0 <= row["score"] <= 1 for row in rows if row["metric"] == "AER")
    assert "preparation drops" in done.stdout
    aer = json.loads((folder / "runs/hansard/alignments/aer.json").read_text())
    assert 0 < aer["agreement_on_dev"] <= 1  # views are chosen by it
    assert set(aer["views"]) == {"en-fr", "fr-en"}
    assert 0 <= aer["agreement_on_dev"] <= 1
    written = results.read_bytes()
    again = make(folder, "hansard", **mirror)
    assert again.returncode == 0, again.stderr
    assert results.read_bytes() == written
    assert "nmt train" not in again.stdout

    guided = make(folder, "hansard-guided", **mirror)
    assert guided.returncode == 0, guided.stderr
    rows = json.loads(results.read_text())
    assert {row["system"] for row in rows if row["metric"] == "AER"} == {
        f"{kind}{name}" for kind in ("", "guided-") for name in ("en-fr", "fr-en", "both, grow-diag")
    }
    aer = json.loads((folder / "runs/hansard/alignments-guided/aer.json").read_text())
    assert aer["agreement_on_dev"] is None
    assert aer["views"]["fr-en"] == {"layer": 1, "head": 1, "shift": False}
    trained = (folder / "runs/hansard/links/train.en-fr").read_text().split("\n")[:-1]
    turned = (folder / "runs/hansard/links/train.fr-en").read_text().split("\n")[:-1]
    assert len(trained) == 300
    assert [{tuple(link.split("-")) for link in line.split()} for line in trained] == [
        {tuple(link.split("-")[::-1]) for link in line.split()} for line in turned
    ]
    again = make(folder, "hansard-guided", **mirror)
    assert "nmt train" not in again.stdout


def test_a_mirror_holds_both_folders(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    for name in ("hansard", "alignments"):
        (tmp_path / "mirror" / name).mkdir(parents=True)
    for name in ("train.en", "train.fr", "dev.en", "dev.fr", "test.en.gz"):
        (tmp_path / "mirror" / "hansard" / name).touch()
    done = make(folder, "hansard", MIRROR=str(tmp_path / "mirror"))
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.split("\n") if "no such file" in line]
    assert f"{tmp_path}/mirror/hansard/test.fr: no such file" in said
    assert said.endswith("or what holds both: MIRROR=DIR")


@pytest.mark.slow
def test_folders_that_are_not_there(tmp_path: Path) -> None:
    folder = workshop(tmp_path / "work")
    done = make(folder, "hansard", HANSARD=str(tmp_path / "nowhere"))
    assert done.returncode == 2
    lines = [line for line in done.stderr.split("\n") if "no such file" in line]
    assert len(lines) == 1
    assert "nowhere/train.en: no such file; name the folders: make hansard HANSARD=DIR" in lines[0]
