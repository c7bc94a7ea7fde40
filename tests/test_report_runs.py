"""What a run folder says of itself: curves, configuration, cost, commands, and folders that are no run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config_file import load_config, parse_config
from nmt.data.prepare import prepare
from nmt.errors import UserError
from nmt.gradient import target_tokens
from nmt.presets import PRESETS, TRAINING_PRESETS
from nmt.report_runs import (
    ReportedRun,
    configuration,
    cost,
    curves,
    read_runs,
    shown_command,
    thinned,
    training_command,
)
from nmt.stream import Stream

CONFIG = '[data]\ntrain = "t"\nvalidation = "v"\nsource_language = "en"\ntarget_language = "de"\n'


def made(events: list[dict[str, Any]], config: str = CONFIG, name: str = "run", **about: Any) -> ReportedRun:
    manifest = {"step": 2, "scores": {}, "train_seconds": 3.0}
    return ReportedRun(
        name, Path(name), parse_config(config), events, about.get("environment", {}), Path(name), manifest
    )


def train(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"event": "train", "step": step, "epoch": 0, "seconds": step / 2, "loss": loss} | more


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """A run to spoil."""
    shutil.copytree(tiny_run / "runs" / "tiny", tmp_path / "tiny", symlinks=True)
    return tmp_path / "tiny"


# Curves


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(4, 500))
def test_thinned_curves_keep_ends_and_peaks(values: list[float], most: int) -> None:
    points: list[list[float | None]] = [[number, number / 7, value] for number, value in enumerate(values)]
    found = thinned(points, most)
    assert len(found) <= most
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert [point for point in points if point in found] == found  # in order, none made up
    for extreme in (min, max):
        assert extreme(point[2] for point in found) == extreme(values)  # type: ignore[type-var]
    if len(points) <= most:
        assert found == points


def test_values_that_are_no_number_are_left_out_and_counted() -> None:
    events = [
        train(1, 5.0),
        train(2, math.nan),
        train(3, math.inf),
        {"event": "train", "step": 4, "seconds": 2.0},
    ]
    events += [{"event": "validation", "step": 4, "seconds": 2.5, "loss": "no"}, {"event": "else"}]
    found = {curve["id"]: curve["runs"][0] for curve in curves([made(events)])}
    assert (found["loss"]["points"], found["loss"]["left_out"]) == ([[1, 0.5, 5.0]], 3)
    assert (found["validation_loss"]["points"], found["validation_loss"]["left_out"]) == ([], 1)
    json.dumps(found, allow_nan=False)


def test_curves_are_the_metrics(tiny_run: Path) -> None:
    (run,) = read_runs([tiny_run / "runs" / "tiny"])
    lines = (tiny_run / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for curve, event, key in (("loss", "train", "loss"), ("bleu", "validation", "bleu")):
        expected = [[e["step"], e["seconds"], e[key]] for e in events if e["event"] == event]
        found = next(one for one in curves([run]) if one["id"] == curve)
        assert expected
        assert found["runs"][0]["points"] == expected


# Configuration


def test_one_run_lists_what_was_chosen() -> None:
    text = CONFIG + '[tokenizer]\nvocabulary_size = 400\n[model]\npreset = "small"\nheads = 2\n'
    found = configuration([made([], text)])
    rows = {row["key"]: (row["values"][0], row["default"]) for row in found["rows"]}
    assert found["against"] == "defaults"
    assert rows["tokenizer.vocabulary_size"] == ("400", "8000")
    assert rows["model.preset"] == ('"small"', None)
    assert rows["data.train"] == ('"t"', None)
    always = {"data.train", "data.validation", "data.source_language", "data.target_language"}
    always |= {"model.architecture", "model.preset"}
    assert rows.keys() == always | {"tokenizer.vocabulary_size", "model.heads"}


@pytest.mark.parametrize("architecture", PRESETS)
def test_every_preset_has_defaults_to_compare_with(architecture: str) -> None:
    for preset in PRESETS[architecture]:
        for training in ("", *TRAINING_PRESETS):
            for shared in ("true", "false"):
                text = f'{CONFIG}[tokenizer]\nshared = {shared}\n[model]\narchitecture = "{architecture}"\n'
                text += f'preset = "{preset}"\n[training]\n' + (f'preset = "{training}"' if training else "")
                rows = {row["key"] for row in configuration([made([], text)])["rows"]}
                more = {
                    key for key in rows if not key.startswith(("data.", "model.architecture", "model.preset"))
                }
                assert more == set()


def test_several_runs_list_what_differs() -> None:
    other = CONFIG + '[model]\narchitecture = "luong"\n[training]\nseed = 7\n'
    found = configuration([made([]), made([], other, "other"), made([], name="third")])
    rows = {row["key"]: row["values"] for row in found["rows"]}
    assert rows["training.seed"] == ["1", "7", "1"]
    assert rows["model.architecture"] == ['"transformer"', '"luong"', '"transformer"']
    assert rows["model.score"] == [None, rows["model.score"][1], None]
    assert not [key for key in rows if key.startswith("data.")]
    assert configuration([made([]), made([], name="other")])["rows"] == []


# Cost


def test_tokens_are_speed_times_time_without_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReportedRun, "model_hash", "0")
    speed = "target_tokens_per_second"
    events = [
        train(10, 5.0, seconds=4.0, **{speed: 100.0}),
        {"event": "validation", "step": 10, "seconds": 4.0, "validation_seconds": 6.0, "loss": 5.0},
        train(20, 5.0, seconds=15.0, **{speed: 80.0}),
        {"event": "warning", "step": 25, "seconds": 17.0, "text": "</script>"},
        {"event": "validation", "step": 25, "seconds": 17.0, "validation_seconds": 3.0, "loss": 5.0},
    ]
    found = cost(made(events), {"total": 9})
    assert found["target_tokens"] == round((100 * 4 + 80 * 5) * 25 / 20)
    assert (found["steps"], found["train_seconds"], found["validation_seconds"]) == (25, 17.0, 9.0)
    assert found["target_tokens_per_second"] == 90
    assert found["warnings"] == {"count": 1, "first": ["</script>"]}
    nothing = cost(made([{"event": "validation", "step": 1, "seconds": 1.0}]), {"total": 9})
    assert (nothing["target_tokens"], nothing["target_tokens_per_second"]) == (None, None)


def test_tokens_of_a_real_run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the batches of its steps hold, to a few in a hundred: clocks are rounded."""
    monkeypatch.chdir(tiny_run)
    config = load_config("tiny.toml")
    stream = Stream(prepare(config, tmp_path), config)
    batches = [stream.next() for _ in range(config.training.max_steps)]
    stream.close()
    tokens = sum(target_tokens(batch) for batch in batches)
    (run,) = read_runs([Path("runs/tiny")])
    assert cost(run, {"total": 0})["target_tokens"] == pytest.approx(tokens, rel=0.05)


def test_commands_are_for_a_shell() -> None:
    run = made(
        [], environment={"command": ["/home/me/.venv/bin/nmt", "train", "my file.toml", "--set", "a=$b"]}
    )
    assert training_command(run) == "nmt train 'my file.toml' --set 'a=$b'"
    for damaged in ({}, {"command": []}, {"command": "nmt"}, {"command": ["nmt", 3]}):
        assert training_command(made([], environment=damaged)) is None
    shown_command(["nmt", "\udc80"]).encode()  # a file name that is not UTF-8


# Folders


def test_names_are_those_of_folders_unless_two_have_the_same(tiny_run: Path, tmp_path: Path) -> None:
    run = tiny_run / "runs" / "tiny"
    for place in ("a", "b"):
        shutil.copytree(run, tmp_path / place / "tiny", symlinks=True)
    (tmp_path / "other").symlink_to(run)
    first, second = tmp_path / "a" / "tiny", tmp_path / "b" / "tiny"
    assert [one.name for one in read_runs([first])] == ["tiny"]
    assert [one.name for one in read_runs([first, second])] == [str(first), str(second)]
    with pytest.raises(UserError, match="given twice"):
        read_runs([run, tmp_path / "other"])


def test_a_line_that_is_being_written_is_left_alone(copied: Path) -> None:
    with (copied / "metrics.jsonl").open("a") as stream:
        stream.write('{"event": "train", "st')
    before = len((copied / "metrics.jsonl").read_text().splitlines())
    assert len(read_runs([copied])[0].events) == before - 1


@pytest.mark.parametrize("line", ["{", "[]", "3", "[" * 100_000, ""])
def test_a_damaged_line_is_named(copied: Path, line: str) -> None:
    text = (copied / "metrics.jsonl").read_text()
    (copied / "metrics.jsonl").write_text(f"{line}\n{text}")
    with pytest.raises(UserError, match=r"metrics.jsonl:1: is not a JSON object"):
        read_runs([copied])


def test_what_is_no_run(copied: Path, tmp_path: Path) -> None:
    def error(folder: Path) -> str:
        with pytest.raises(UserError) as found:
            read_runs([folder])
        assert str(folder) in str(found.value)
        return str(found.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert "no such run" in error(tmp_path / "nowhere")
    assert "is a file" in error(tmp_path / "file")
    assert "is not a run: there is no metrics.jsonl" in error(tmp_path / "empty")
    assert "is a model and no run" in error(copied / "best")
    (copied / "environment.json").write_text("[")
    assert read_runs([copied])[0].environment == {}
    events = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    kept = [event for event in events if event["event"] == "train" and event["step"] < 4]
    (copied / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in kept))
    assert "has no validation: it is at step 3, and the first is due after 4;" in error(copied)
    (copied / "config.toml").unlink()
    assert "is not a run: there is no config.toml" in error(copied)
    (copied / "metrics.jsonl").unlink()
    assert "has not begun to train" in error(copied)


def test_the_configuration_of_a_run_is_read(tiny_run: Path) -> None:
    (run,) = read_runs([tiny_run / "runs" / "tiny"])
    assert run.config == load_config(tiny_run / "runs" / "tiny" / "config.toml")
