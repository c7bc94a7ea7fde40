"""What training shows: before it begins, in lines and on a terminal, and in its metrics."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support import Nmt, prepare_folder

from nmt.cli.live import LiveView
from nmt.cli.plain import Lines, preflight
from nmt.config_file import load_config
from nmt.optimization import learning_rate
from nmt.resources import peak_memory
from nmt.run import Run
from nmt.training import train

pytestmark = pytest.mark.usefixtures("there")

Event = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    prepare_folder(folder)
    return folder


def events(run: str, *changes: str) -> list[Event]:
    config = load_config(Path("tiny.toml"), changes)
    found: list[Event] = []
    with Run.open(Path(run), config) as opened:
        train(config, opened, found.append)
    return found


def begins(*changes: str) -> Event:
    """The first event of a training that goes no further."""
    config = load_config(Path("tiny.toml"), changes)
    found: list[Event] = []

    class Enough(Exception):
        pass

    def observe(event: Event) -> None:
        if event["event"] == "preflight":
            found.append(event)
            raise Enough

    with Run.open(Path("runs/begins"), config) as run, pytest.raises(Enough):
        train(config, run, observe)
    return found[0]


# Where it ends


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_smaller_of_two_ends_is_shown(accumulation: int) -> None:
    given = ("training.max_epochs=2", f"training.accumulation={accumulation}")
    event = begins(*given, "training.max_steps=10000000")
    assert event["steps"] == math.ceil(2 * event["batches_an_epoch"] / accumulation)
    assert event["epochs"] == 2
    text = "\n".join(preflight(event))
    assert f"padding; 2.0 epochs are about {event['steps']:,} steps" in text
    assert "10,000,000" not in text
    event = begins(*given, "training.max_steps=5")
    assert event["steps"] == 5
    assert f"5 steps are {5 * accumulation / event['batches_an_epoch']:.1f} epochs" in "\n".join(
        preflight(event)
    )


def test_whether_it_is_compiled_is_said() -> None:
    event = begins("training.max_steps=5")
    for device, said in (("cpu", "slower when measured"), ("cuda:0", "not measured on GPUs")):
        (line,) = [line for line in preflight({**event, "device": device}) if line.startswith("compile")]
        assert said in line
        assert len(line) < 60


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse-sqrt"])
def test_a_schedule_that_is_cut_short_is_said(schedule: str) -> None:
    given = (f"training.schedule={schedule}", "training.max_epochs=2", "training.learning_rate=0.01")
    event = begins(*given, "training.max_steps=200")
    warnings = [line for line in preflight(event) if line.startswith("warning")]
    if schedule in ("constant", "inverse-sqrt"):
        assert not warnings
        return
    settings = load_config(Path("tiny.toml"), [*given, "training.max_steps=200"]).training
    left = learning_rate(event["steps"], settings) / 0.01
    assert left > 0.5
    (line,) = warnings
    assert f"the {schedule} schedule goes down to 0 at step 200" in line
    assert f"at about step {event['steps']} with {left:.0%} of the rate left" in line
    assert line.endswith(f"set training.max_steps = {event['steps']}")
    for enough in (f"training.max_steps={event['steps']}", f"training.max_steps={event['steps'] + 1}"):
        if schedule == "cosine" or enough.endswith(str(event["steps"])):
            assert not any(line.startswith("warning") for line in preflight(begins(*given, enough)))


# The first step, rate and memory


def test_the_first_step_is_shown_and_not_logged() -> None:
    found = events("runs/first", "training.max_steps=4", "training.log_every=3")
    shown = [event for event in found if event["event"] in ("first step", "train")]
    assert [(event["event"], event["step"]) for event in shown] == [("first step", 1), ("train", 3)]
    rows = [json.loads(line) for line in Path("runs/first/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "train"] == [3]
    assert {row["event"] for row in rows} == {"train", "validation", "checkpoint"}
    # The loss of step 3 is of three steps all the same.
    logged = events("runs/each", "training.max_steps=4", "training.log_every=1")
    assert [e["step"] for e in logged if e["event"] == "train"] == [1, 2, 3, 4]
    assert not [e for e in logged if e["event"] == "first step"]
    assert shown[0]["loss"] == next(e for e in logged if e["event"] == "train")["loss"]
    done = Nmt(Path())("train", "tiny.toml", "--run", "runs/line", "--set", "training.max_steps=2")
    (line,) = [line for line in done.stderr.split("\n") if line.startswith("step 1 ")]
    assert "tokens/s" in line
    assert " MiB " in line


def test_memory_is_in_the_metrics() -> None:
    found = events("runs/memory", "training.max_steps=6")
    memory = [event["memory_mib"] for event in found if event["event"] == "train"]
    rows = [json.loads(line) for line in Path("runs/memory/metrics.jsonl").read_text().splitlines()]
    assert [row["memory_mib"] for row in rows if row["event"] == "train"] == memory
    assert memory == sorted(memory)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    assert memory[-1] == pytest.approx(peak, rel=0.3)


def test_peak_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**19)
    assert peak_memory(torch.device("cuda:0")) == 1.5


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("steps", [6, 100_000])
def test_nothing_is_cut_on_a_narrow_terminal(width: int, steps: int) -> None:
    shown = LiveView()
    shown.console = Console(file=io.StringIO(), force_terminal=True, width=width, record=True)
    shown.progress.live.console = shown.console
    shown({**begins("training.max_steps=6"), "steps": steps})
    speed = {"learning_rate": 1.23e-4, "target_tokens_per_second": 123456.7, "memory_mib": 12345.6}
    shown({"event": "train", "step": steps - 1, "loss": 12.345, **speed})
    scores = {"loss": 3.21, "perplexity": 1234.56, "bleu": 12.34, "best": True, "validation_seconds": 12.0}
    shown({"event": "validation", "step": 1000, **scores})
    text = io.StringIO()
    Console(file=text, width=width).print(shown.progress.get_renderable())
    shown.close()
    parts = ["loss 12.345", "rate 1.23e-04", "123,457 tokens/s", "12,346 MiB"]
    (live,) = text.getvalue().rstrip("\n").split("\n")
    assert len(live.rstrip()) <= width
    assert "…" not in live
    found = [part for part in parts if part in live]
    rest = re.sub(r"step|\d+/\d+|[\d:]+ left|\d:\d\d:\d\d|[━╸╺ ]", "", live)
    assert rest == "".join(found).replace(" ", "")
    assert f"{steps - 1}/{steps}" in live
    assert "loss 12.345" in live
    assert len(found) == 4 or width < 100
    if width != 100:
        assert ("━" in live) == (width > 100)
    words = [line.split() for line in shown.console.export_text().split("\n")]
    said = [word for line in words for word in line]
    for number in ("1,000", "3.210", "1234.56", "12.34"):
        assert number in said


@pytest.mark.parametrize("view", [Lines, LiveView])
def test_a_whole_training_is_shown(view: type[Lines], capsys: pytest.CaptureFixture[str]) -> None:
    shown = view()
    text = io.StringIO()
    if isinstance(shown, LiveView):
        shown.console = Console(file=text, force_terminal=True, width=200)
        shown.progress.live.console = shown.console
    states = []
    for event in events(f"runs/{view.__name__}", "training.max_steps=6"):
        shown(event)
        if isinstance(shown, LiveView) and event["event"] in ("first step", "train"):
            (task,) = shown.progress.tasks
            assert (task.completed, task.total) == (event["step"], 6)
            states.append(task.fields["state"])
            assert f"rate {event['learning_rate']:.2e}" in states[-1]
            assert f"{event['memory_mib']:,.0f} MiB" in states[-1]
            assert states[-1].endswith(" left")
    shown.close()
    assert len(states) == (3 if view is LiveView else 0)
    said = text.getvalue() + capsys.readouterr().err
    assert "validation  loss" in said
