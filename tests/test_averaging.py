"""`nmt average --best`: the best of all validations, or a line that says which are gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support import Nmt, prepare_folder

from nmt.averaging import best_checkpoints, last_checkpoints
from nmt.errors import UserError

# Of steps 2, 4, ... 12; the best three are 6, 10 and 4.
LOSSES = {2: 5.0, 4: 3.1, 6: 2.0, 8: 4.0, 10: 3.0, 12: 3.1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaging")
    prepare_folder(folder)
    changes = ["training.validate_every=2", "training.keep_last=6", "training.metric=loss"]
    Nmt(folder)("train", "tiny.toml", "--run", "run", *[o for c in changes for o in ("--set", c)])
    # Scores that are known, in place of those of twelve steps.
    for checkpoint in (folder / "run/checkpoints").iterdir():
        file = checkpoint / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest["scores"]["loss"] = LOSSES[manifest["step"]]
        file.write_text(json.dumps(manifest))
    rows = [{"event": "validation", "step": step, "loss": loss} for step, loss in LOSSES.items()]
    lines = ["", "[]", '{"event": "validation"}', "{", "null", *map(json.dumps, rows)]
    (folder / "run/metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def remove(run: Path, *steps: int) -> None:
    for step in steps:
        shutil.rmtree(run / f"checkpoints/step-{step:08d}")


def test_the_mean_is_of_the_best(run: Path, tmp_path: Path) -> None:
    done = Nmt(tmp_path)("average", "run", "--best", 3, "--output", "mean")
    assert "mean of steps 4, 6, 10" in done.stderr
    found = safetensors.torch.load_file(tmp_path / "mean/model.safetensors")
    parts = [
        safetensors.torch.load_file(run / f"checkpoints/step-{step:08d}/model.safetensors")
        for step in (4, 6, 10)
    ]
    for name, tensor in found.items():
        expected = sum(part[name].double() for part in parts) / 3  # type: ignore[arg-type]
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)
    assert json.loads((tmp_path / "mean/manifest.json").read_text())["averaged"] == [4, 6, 10]
    Nmt(tmp_path)("info", "mean")


def test_among_equals_the_loss_decides(run: Path) -> None:
    """As it does for `best`."""
    for checkpoint in (run / "checkpoints").iterdir():
        config = checkpoint / "config.toml"
        config.write_text(config.read_text().replace('metric = "loss"', 'metric = "bleu"'))
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["scores"]["bleu"] = 0.0
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    rows = [{"event": "validation", "step": s, "loss": loss, "bleu": 0.0} for s, loss in LOSSES.items()]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    remove(run, 2, 8, 12)
    assert [c.step for c in best_checkpoints(run, 1)] == [6]
    assert [c.step for c in best_checkpoints(run, 3)] == [4, 6, 10]


def test_which_are_the_best(run: Path) -> None:
    for count, steps in {1: [6], 2: [6, 10], 4: [4, 6, 10, 12], 6: [2, 4, 6, 8, 10, 12]}.items():
        assert [c.step for c in best_checkpoints(run, count)] == steps
    assert [c.step for c in last_checkpoints(run, 2)] == [10, 12]
    remove(run, 2, 8)  # not among the best four
    assert [c.step for c in best_checkpoints(run, 4)] == [4, 6, 10, 12]


@pytest.mark.parametrize(
    ("removed", "count", "said"),
    [
        (
            [4],
            3,
            "holds the 2 best checkpoints by loss, not 3; use --best 2, or train with training.keep_best = 3",
        ),
        ([6], 3, "holds the 0 best checkpoints by loss, not 3; train with training.keep_best = 3"),
        ([], 7, "holds the 6 best checkpoints by loss, not 7; use --best 6"),
        ([*LOSSES], 1, "has no checkpoint with validation scores"),
    ],
)
def test_best_that_are_gone(run: Path, removed: list[int], count: int, said: str) -> None:
    remove(run, *removed)
    with pytest.raises(UserError, match=said):
        best_checkpoints(run, count)


def test_a_mean_does_not_go_among_the_checkpoints(run: Path, tmp_path: Path) -> None:
    said = Nmt(tmp_path).error("average", "run", "--last", 2, "--output", "run/checkpoints/step-00000099")
    assert "step-00000099: is where the run keeps its checkpoints; choose another --output" in said
    assert not (run / "checkpoints/step-00000099").exists()


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    said = Nmt(tmp_path).error("average", "corpus", "--output", "mean")
    assert "corpus: has no checkpoint; train it first, or name another run" in said


def test_one_of_the_two(run: Path, tmp_path: Path) -> None:
    arguments = ["average", "run", "--best", 2, "--last", 2, "--output", "mean"]
    assert "give one of them" in Nmt(tmp_path).error(*arguments)
    assert not (tmp_path / "mean").exists()
