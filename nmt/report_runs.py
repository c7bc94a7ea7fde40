"""What a run folder says of itself, for a report: configuration, curves, cost, and the commands."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nmt.checkpoint import CONFIG, MANIFEST, find_model, model_hash, read_manifest
from nmt.config import Config
from nmt.config_file import load_config, parse_config
from nmt.errors import UserError
from nmt.run import ENVIRONMENT, METRICS

MOST_POINTS = 500  # of a curve
# Curve -> its title, and the event and the key of metrics.jsonl that it is of.
CURVES = {
    "loss": ("Training loss, nats a token", "train", "loss"),
    "validation_loss": ("Validation loss, nats a token", "validation", "loss"),
    "bleu": ("Validation BLEU", "validation", "bleu"),
    "learning_rate": ("Learning rate", "train", "learning_rate"),
    "speed": ("Training speed, target tokens a second", "train", "target_tokens_per_second"),
}
MOST_WARNINGS = 20

Event = dict[str, Any]
Point = list[float | None]  # step, seconds since the start, value


@dataclass(frozen=True)
class ReportedRun:
    """A run folder as read: it may be trained on meanwhile."""

    name: str  # no two runs of a report have the same
    folder: Path
    config: Config
    events: list[Event]  # of metrics.jsonl
    environment: dict[str, Any]
    model_folder: Path  # of the best checkpoint
    manifest: dict[str, Any]

    @property
    def model_hash(self) -> str:
        return model_hash(self.manifest)

    def of(self, event: str) -> list[Event]:
        return [found for found in self.events if found.get("event") == event]


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Runs by the names of their folders; by their paths where two have the same name.

    Raises:
        UserError: a folder is no run, is named twice, or its training has not validated yet.
    """
    for place, folder in enumerate(folders):
        if folder.exists() and any(other.exists() and folder.samefile(other) for other in folders[:place]):
            raise UserError("is given twice; name each run once", file=folder)
    names = [_text(folder.resolve().name) for folder in folders]
    return [
        _read_run(folder, _text(str(folder)) if names.count(name) > 1 else name)
        for folder, name in zip(folders, names, strict=True)
    ]


def _text(name: str) -> str:
    """A file's name as text that can be written, whatever its bytes are."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in name)


def _read_run(folder: Path, name: str) -> ReportedRun:
    if not folder.exists():
        raise UserError("no such run; name a folder that nmt train wrote", file=folder)
    if not folder.is_dir():
        raise UserError("is a file; name a folder that nmt train wrote", file=folder)
    if not (folder / METRICS).exists():
        if (folder / MANIFEST).exists():
            raise UserError("is a model and no run, which has the curves; name the run's folder", file=folder)
        what = "has not begun to train" if (folder / "checkpoints").exists() else "is not a run"
        raise UserError(f"{what}: there is no {METRICS}; name a folder that nmt train wrote", file=folder)
    if not (folder / CONFIG).exists():
        raise UserError(
            f"is not a run: there is no {CONFIG}; name a folder that nmt train wrote", file=folder
        )
    config = load_config(folder / CONFIG)
    events = list(_read_events(folder / METRICS))
    if not any(event.get("event") == "validation" for event in events):
        step = max((_number(event.get("step")) or 0 for event in events), default=0)
        raise UserError(
            f"has no validation: it is at step {step:,.0f}, and the first is due after "
            f"{config.training.validate_every:,}; train on, or lower training.validate_every",
            file=folder,
        )
    model_folder = find_model(folder)
    return ReportedRun(
        name, folder, config, events, _read_environment(folder), model_folder, read_manifest(model_folder)
    )


def _read_events(file: Path) -> Iterator[Event]:
    """Whole lines: a process may be writing the last one."""
    try:
        *lines, _ = file.read_bytes().split(b"\n")
    except OSError as error:
        text = f"cannot be read ({error.strerror}); name a folder that nmt train wrote"
        raise UserError(text, file=file) from None
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise UserError("is not a JSON object; remove the line", file=file, line=number)
        yield event


def _read_environment(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """JSON in a page knows no infinity and no NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


# Curves


def curves(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Each of CURVES with the points of each run."""
    return [
        {
            "id": name,
            "title": title,
            "runs": [
                {
                    "run": run.name,
                    "measured": len(points),
                    "points": thinned(points),
                    "left_out": len(run.of(event)) - len(points),
                }
                for run in runs
                for points in [_points(run.of(event), key)]
            ],
        }
        for name, (title, event, key) in CURVES.items()
    ]


def _points(events: Sequence[Event], key: str) -> list[Point]:
    found = [[_number(event.get(name)) for name in ("step", "seconds", key)] for event in events]
    return [point for point in found if None not in point]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many of the points: the first, the last, and the lowest and highest of equal stretches, so
    that no peak is lost."""
    if len(points) <= most:
        return list(points)
    inner = range(1, len(points) - 1)
    stretches = (most - 2) // 2
    kept = {0, len(points) - 1}
    for stretch in range(stretches):
        begin, end = (len(inner) * place // stretches for place in (stretch, stretch + 1))
        values = [(points[place][2], place) for place in inner[begin:end]]
        kept |= {min(values)[1], max(values)[1]}
    return [points[place] for place in sorted(kept)]


# Configuration


def configuration(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """The keys that differ between runs; of one run those that differ from the defaults.

    Defaults are those of the run's architecture and presets, which are listed in any case, as are the
    keys that have none.
    """
    flat = [_flat(run.config) for run in runs]
    if len(runs) > 1:
        keys = dict.fromkeys(key for values in flat for key in values)
        rows = [{"key": key, "values": [values.get(key) for values in flat]} for key in keys]
        return {
            "against": "runs",
            "rows": [row for row in rows if len({json.dumps(value) for value in row["values"]}) > 1],
            "keys": len(keys),
        }
    defaults = _flat(_defaults(runs[0].config))
    return {
        "against": "defaults",
        "rows": [
            {"key": key, "values": [value], "default": None if key in _ALWAYS else defaults.get(key)}
            for key, value in flat[0].items()
            if key in _ALWAYS or value != defaults.get(key)
        ],
        "keys": len(flat[0]),
    }


_ALWAYS = (
    *("data.train", "data.validation", "data.source_language", "data.target_language"),
    *("model.architecture", "model.preset"),
)


def _flat(config: Config) -> dict[str, str | None]:
    """Every key that is set and its value, as TOML has it."""
    return {
        f"{section}.{key}": json.dumps(value, ensure_ascii=False)
        for section, keys in config.model_dump(mode="json").items()
        for key, value in (keys or {}).items()
        if value is not None
    }


def _defaults(config: Config) -> Config:
    """As if only what decides other defaults had been said."""
    said = {
        "data": ("train", "validation", "source_language", "target_language"),
        "tokenizer": ("shared",),
        "model": ("architecture", "preset"),
        "training": ("preset", "optimizer", "schedule"),
    }
    values = config.model_dump(mode="json")
    lines = []
    for section, keys in said.items():
        lines.append(f"[{section}]")
        lines += [f"{k} = {json.dumps(values[section][k])}" for k in keys if values[section][k] is not None]
    return parse_config("\n".join(lines))


# Speed and cost


def cost(run: ReportedRun, parameters: dict[str, int]) -> dict[str, Any]:
    """What it took, on what, and what it became."""
    training, best, manifest = run.config.training, run.manifest["step"], run.manifest
    trained = run.of("train")
    speeds = [speed for event in trained if (speed := _number(event.get("target_tokens_per_second")))]
    validations = run.of("validation")
    steps = [_number(event.get("step")) or 0 for event in (*trained, *validations)]
    seconds = [_number(event.get("seconds")) or 0 for event in run.events]
    environment = run.environment
    gpus = environment.get("gpus") or []
    return {
        "run": run.name,
        "folder": _text(str(run.folder)),
        "architecture": run.config.model.architecture,
        "languages": [run.config.data.source_language, run.config.data.target_language],
        "best_step": best,
        "steps": max(steps, default=0),
        "max_steps": training.max_steps,
        "epochs": max((_number(event.get("epoch")) or 0 for event in trained), default=0),
        "train_seconds": max(seconds, default=0.0),
        "best_train_seconds": _number(manifest.get("train_seconds")),
        "validation_seconds": sum(_number(event.get("validation_seconds")) or 0 for event in validations),
        "target_tokens": _tokens_seen(run),
        "target_tokens_per_second": median(speeds) if speeds else None,
        "parameters": parameters,
        "device": training.device if training.device != "auto" else ("cuda" if gpus else "cpu"),
        "gpus": gpus,
        "processor": environment.get("processor"),
        "cores": environment.get("cores"),
        "threads": training.threads,  # 0: one a core
        "processes": manifest.get("processes", 1),
        "precision": training.precision,
        "seed": training.seed,
        "validation": {name: _number(score) for name, score in manifest.get("scores", {}).items()},
        "model": run.model_hash,
        "training_data": manifest.get("training_data", []),
        "environment": {
            key: environment[key]
            for key in ("nmt", "python", "torch", "numpy", "sentencepiece", "sacrebleu", "platform")
            if key in environment
        },
        "warnings": _warnings(run),
    }


def _tokens_seen(run: ReportedRun) -> int | None:
    """About how many target tokens were trained on: speed times time, without that of validations."""
    tokens = since = 0.0
    logged = 0.0
    elsewhere = 0.0
    for event in run.events:
        if event.get("event") == "validation":
            elsewhere += _number(event.get("validation_seconds")) or 0
        speed = _number(event.get("target_tokens_per_second"))
        seconds, step = _number(event.get("seconds")), _number(event.get("step"))
        if event.get("event") == "train" and None not in (speed, seconds, step):
            tokens += (speed or 0) * max((seconds or 0) - since - elsewhere, 0)
            since, elsewhere, logged = seconds or 0, 0.0, step or 0
    if not logged:
        return None
    last = max(_number(event.get("step")) or 0 for event in run.events)
    return round(tokens * max(last / logged, 1))  # steps after the last that was logged


def _warnings(run: ReportedRun) -> dict[str, Any]:
    texts = [str(event.get("text")) for event in run.of("warning")]
    return {"count": len(texts), "first": texts[:MOST_WARNINGS]}


# Commands


def training_command(run: ReportedRun) -> str | None:
    """As it was given when the run began."""
    command = run.environment.get("command")
    if not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
        return None
    return shown_command(command)


def shown_command(arguments: Sequence[str]) -> str:
    """For a shell, the program without the folder it lies in."""
    program = Path(arguments[0]).name
    return _text(shlex.join([program or arguments[0], *arguments[1:]]))
