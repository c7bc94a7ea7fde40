"""nmt export, and [export] in a configuration, as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import Nmt, prepare_folder

pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
RUN = "runs/tiny"


def test_export_compares_and_says_so(tiny_run: Path, nmt: Nmt) -> None:
    """Where the configuration's data is, its validation set is the sample; elsewhere, other sentences."""
    done = Nmt(tiny_run)("export", RUN, "--format", "ctranslate2", "--output", nmt.folder / "out")
    assert done.lines[0] == "sample: 20 lines of corpus/validation"
    assert done.lines[1].startswith("greedy: ")
    assert done.lines[2].startswith("beam 2, length penalty 1: ")
    assert "--engine ctranslate2" in done.stderr
    assert [path.name for path in nmt.folder.iterdir()] == ["out"]
    options = ["--output", "out", "--quantization", "int8", "--json"]
    found = json.loads(nmt("export", tiny_run / RUN, *options).stdout)  # in place of the earlier one
    assert "vocabulary" in found["sample"]
    assert found["sentences"] == 200
    manifest = json.loads((nmt.folder / "out/manifest.json").read_text())
    assert manifest["export"]["quantization"] == "int8"
    sample = nmt.folder / "sample.txt"
    sample.write_text("A dog.\n\nA cat sees " + "the old house " * 60 + "\n")
    done = nmt("export", tiny_run / RUN, "--output", "out", "--sample", "sample.txt")
    assert done.lines[0] == "sample: sample.txt"


def test_mistakes(tiny_run: Path, nmt: Nmt) -> None:
    model = tiny_run / RUN
    assert "no such model" in nmt.error("export", "nowhere", "--output", "out")
    (nmt.folder / "empty").mkdir()
    assert "holds no model" in nmt.error("export", "empty", "--output", "out")
    assert "--format onnx is not known; use ctranslate2" in nmt.error(
        "export", model, "--output", "out", "--format", "onnx"
    )
    message = nmt.error("export", model, "--output", "out", "--quantization", "int4")
    assert "--quantization int4 is not known; use float32, int8" in message
    assert "sample.txt" in nmt.error("export", model, "--output", "out", "--sample", "sample.txt")
    (nmt.folder / "sample.txt").write_text("\n \n")
    message = nmt.error("export", model, "--output", "out", "--sample", "sample.txt")
    assert "has no text" in message
    assert not (nmt.folder / "out").exists()


def test_nothing_else_is_overwritten(tiny_run: Path, nmt: Nmt) -> None:
    model = tiny_run / RUN
    (nmt.folder / "full").mkdir()
    (nmt.folder / "full/thesis.txt").write_text("years of work")
    (nmt.folder / "file").write_text("x")
    assert "exists and is no export" in nmt.error("export", model, "--output", "full")
    assert "is no folder" in nmt.error("export", model, "--output", "file")
    checkpoint = (model / "best").resolve()
    for other in (model, checkpoint):
        assert "exists and is no export" in nmt.error("export", model, "--output", other)
    assert "is no folder" in nmt.error("export", model, "--output", model / "best")
    assert (nmt.folder / "full/thesis.txt").read_text() == "years of work"
    nmt("export", model, "--output", "out")
    assert "is an export" in nmt.error("export", "out", "--output", "again")
    assert "is an export for CTranslate2" in nmt.error("translate", "out", stdin=b"A dog.\n")


def test_without_ctranslate2(tiny_run: Path, nmt: Nmt, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    message = nmt.error("export", tiny_run / RUN, "--output", "out")
    assert (
        "CTranslate2 is not installed; in the folder of nmt's source run pip install -e '.[export]'"
        in message
    )
    prepare_folder(nmt.folder)
    message = nmt.error("train", "tiny.toml", "--set", "export.quantization=int8")
    assert "pip install" in message
    assert not (nmt.folder / "runs").exists()


@pytest.mark.parametrize("architecture", ["recurrent", "bahdanau", "luong"])
def test_training_refuses_at_once_what_cannot_be_exported(architecture: str, nmt: Nmt) -> None:
    """Before it looks for the corpus, which is not there."""
    (nmt.folder / "c.toml").write_text(
        '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
        f'[model]\narchitecture = "{architecture}"\n[export]\nformat = "ctranslate2"\n'
    )
    message = nmt.error("train", "c.toml")
    assert f'c.toml: CTranslate2 cannot run model.architecture = "{architecture}"' in message
    assert not (nmt.folder / "runs").exists()


def test_a_recurrent_model_is_refused(nmt: Nmt) -> None:
    from exported import tokenizer

    from nmt.checkpoint import save_model, weights_of
    from nmt.config_file import parse_config
    from nmt.models import build_model

    config = parse_config(
        '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
        '[model]\narchitecture = "luong"\nembedding_width = 8\nattentional_width = 8\nhidden_width = 8\n'
    )
    made = tokenizer()
    model = build_model(config.model, len(made), len(made))
    save_model(nmt.folder / "model", weights_of(model), config, made, made, {})
    message = nmt.error("export", "model", "--output", "out")
    assert 'model: CTranslate2 cannot run model.architecture = "luong"' in message
    assert not (nmt.folder / "out").exists()


def test_training_exports_once(nmt: Nmt) -> None:
    prepare_folder(nmt.folder)
    config = (nmt.folder / "tiny.toml").read_text()
    (nmt.folder / "tiny.toml").write_text(config + '\n[export]\nquantization = "int8"\n')
    done = nmt("train", "tiny.toml")
    assert "export: greedy: " in done.stderr
    assert "runs/tiny/export: written" in done.stderr
    best = json.loads((nmt.folder / RUN / "best/manifest.json").read_text())
    manifest = json.loads((nmt.folder / RUN / "export/manifest.json").read_text())
    assert manifest["step"] == best["step"]
    assert manifest["export"]["quantization"] == "int8"
    assert "runs/tiny/export: is there already" in nmt("train", "tiny.toml").stderr
    shutil.rmtree(nmt.folder / RUN / "export")  # as if stopped before it
    assert "runs/tiny/export: written" in nmt("train", "tiny.toml").stderr
