"""Which checkpoints of a run `nmt average` takes the mean of: its last or its best."""

from __future__ import annotations

import json
from pathlib import Path

from nmt.checkpoint import CONFIG
from nmt.config_file import load_config
from nmt.errors import UserError, counted
from nmt.run import METRICS, Checkpoint, find_checkpoints, merit, rank


def last_checkpoints(run: Path, count: int) -> list[Checkpoint]:
    """In the order of their steps; UserError if there are fewer."""
    found = _scheduled(run)
    if not found:
        raise UserError("has no checkpoint; train it first, or name another run", file=run)
    if len(found) < count:
        raise UserError(
            f"has {counted(len(found), 'checkpoint')}, not {count}; use --last {len(found)}, or train with "
            f"training.keep_last = {count}",
            file=run,
        )
    return found[-count:]


def best_checkpoints(run: Path, count: int) -> list[Checkpoint]:
    """The best of all the run's validations by `training.metric`, in the order of their steps.

    Raises:
        UserError: there are fewer, or one of them was removed when training tidied up.
    """
    found = _scheduled(run)
    if not found:
        raise UserError("has no checkpoint with validation scores; train it first", file=run)
    metric = load_config(found[-1].folder / CONFIG).training.metric
    here = {checkpoint.step: checkpoint for checkpoint in rank(found, metric)}
    scores = _scores(run / METRICS, metric) | {step: merit(c.scores, metric) for step, c in here.items()}
    order = sorted(scores, key=lambda step: (*scores[step], step))[:count]
    present = next((index for index, step in enumerate(order) if step not in here), len(order))
    if present < count:
        hint = f"use --best {present}, or " if present else ""
        raise UserError(
            f"holds the {present} best checkpoints by {metric}, not {count}; {hint}train with "
            f"training.keep_best = {count}",
            file=run,
        )
    return [here[step] for step in sorted(order)]


def _scheduled(run: Path) -> list[Checkpoint]:
    found, unreadable = find_checkpoints(run)
    for text in unreadable.values():
        raise UserError(text)  # it might be one of those asked for
    return [checkpoint for checkpoint in found if checkpoint.scheduled]


def _scores(file: Path, metric: str) -> dict[int, tuple[float, float]]:
    """Of every validation, by step. Lines that are none are passed over."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    scores = {}
    for line in text.split("\n"):
        try:
            row = json.loads(line)
            if row["event"] == "validation":
                scores[int(row["step"])] = merit(row, metric)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return scores
