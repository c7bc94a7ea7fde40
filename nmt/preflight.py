"""What is about to be trained, on what, at what cost: the first event of a training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nmt.config import Config
from nmt.data.prepared import TrainingData
from nmt.models import parameter_counts
from nmt.named import Named
from nmt.optimization import training_bytes
from nmt.stream import Stream


def preflight(
    config: Config,
    model: nn.Module,
    parameters: Named,
    data: TrainingData,
    stream: Stream,
    *,
    validation_lines: int,
    device: torch.device,
    processes: int,
    continues_from: int,
    initialized_from: str | None,
    run: str,
) -> dict[str, Any]:
    settings, manifest = config.training, data.manifest
    padded, used = stream.padding()
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
        "steps": settings.max_steps,
        "epochs": min(
            settings.max_steps * settings.accumulation / stream.batches_an_epoch,
            settings.max_epochs or math.inf,
        ),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "sharded": settings.shard and processes > 1,
        "precision": settings.precision,
        "continues_from": continues_from,
        "initialized_from": initialized_from,
        "run": run,
    }
