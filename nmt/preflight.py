"""What is about to be trained, on what, at what cost: the first event of a training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nmt.changes import TO_THE_END
from nmt.config import Config
from nmt.data.prepared import TrainingData
from nmt.models import parameter_counts
from nmt.named import Named
from nmt.optimization import learning_rate, training_bytes
from nmt.precision import Precision
from nmt.stream import Stream
from nmt.training_config import TrainingConfig

_NEARLY_0 = 0.02  # of the peak


def steps_of_epochs(settings: TrainingConfig, batches_an_epoch: int) -> int | None:
    """After about how many steps training.max_epochs are done; None without that key."""
    if not settings.max_epochs:
        return None
    return math.ceil(settings.max_epochs * batches_an_epoch / settings.accumulation)


def rate_cut_short(settings: TrainingConfig, steps: int) -> float | None:
    """The share of the peak that the learning rate still has at the last of `steps`, where its schedule was
    to bring it down to 0 after max_steps and training ends well before; else None."""
    if settings.schedule not in TO_THE_END or steps >= settings.max_steps:
        return None
    share = learning_rate(steps, settings) / settings.learning_rate
    return share if share > _NEARLY_0 else None


def preflight(
    config: Config,
    model: nn.Module,
    parameters: Named,
    data: TrainingData,
    stream: Stream,
    *,
    validation_lines: int,
    device: torch.device,
    precision: Precision,
    processes: int,
    continues_from: int,
    initialized_from: str | None,
    run: str,
) -> dict[str, Any]:
    settings, manifest = config.training, data.manifest
    padded, used = stream.padding()
    by_epochs = steps_of_epochs(settings, stream.batches_an_epoch)
    ended_by_epochs = by_epochs is not None and by_epochs < settings.max_steps
    steps = by_epochs if by_epochs is not None and ended_by_epochs else settings.max_steps
    return {
        "event": "preflight",
        "lines": manifest["lines"],
        "kept": manifest["kept"],
        "dropped": manifest["dropped"],
        "source_tokens": manifest["source_tokens"],
        "target_tokens": manifest["target_tokens"],
        "validation_lines": validation_lines,
        "source_vocabulary": len(data.source_tokenizer),
        "target_vocabulary": len(data.target_tokenizer),
        "parameters": parameter_counts(model),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "model_bytes": training_bytes(parameters, settings),
        "batches_an_epoch": stream.batches_an_epoch,
        "padding": 1 - used / padded,
        "steps": steps,
        "epochs": min(
            settings.max_steps * settings.accumulation / stream.batches_an_epoch,
            settings.max_epochs or math.inf,
        ),
        "ended_by_epochs": ended_by_epochs,  # so that steps are an estimate
        "rate_at_end": rate_cut_short(settings, steps),
        "schedule": settings.schedule,
        "max_steps": settings.max_steps,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "sharded": settings.shard and processes > 1,
        "precision": settings.precision,
        "precision_note": precision.note,
        "continues_from": continues_from,
        "initialized_from": initialized_from,
        "run": run,
    }
