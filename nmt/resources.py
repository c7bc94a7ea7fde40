"""What of the machine a process of a training takes: its device, cores and share of a step."""

from __future__ import annotations

import torch

from nmt.config import Config
from nmt.data.pool import cores
from nmt.device import choose_device
from nmt.errors import UserError
from nmt.memory import peak_mib
from nmt.precision import refused
from nmt.ranks import Ranks
from nmt.training_config import TrainingConfig


def check_share(settings: TrainingConfig, ranks: Ranks) -> None:
    """UserError unless each process has as many batches of a step."""
    accumulation, size = settings.accumulation, ranks.size
    if accumulation % size:
        raise UserError(
            f"training.accumulation = {accumulation} does not give each of {size} processes as many "
            f"batches of a step; set it to {size} or a multiple"
        )


def check_epoch(settings: TrainingConfig, batches: int) -> None:
    """UserError where an epoch has fewer batches than a step."""
    if settings.accumulation > batches:
        raise UserError(
            f"training.accumulation = {settings.accumulation} is more than the {batches:,} batches "
            "of an epoch; lower it or training.batch_tokens"
        )


def take_device(settings: TrainingConfig, ranks: Ranks) -> torch.device:
    """This process's device, with torch's threads set for it; UserError if the settings need another."""
    device = choose_device(settings.device, ranks.local_rank, ranks.local_size)
    wrong = refused(settings.precision, device)
    if wrong is not None:
        raise UserError(wrong)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif ranks.local_size > 1 and device.type == "cpu":
        torch.set_num_threads(max(1, cores() // ranks.local_size))
    return device


def with_workers(config: Config, ranks: Ranks) -> Config:
    """The configuration with this process's part of the machine's cores for sampling."""
    data = config.data
    if data.workers != "auto" or ranks.local_size == 1:
        return config
    workers = max(1, min(4, cores() // (2 * ranks.local_size)))
    return config.model_copy(update={"data": data.model_copy(update={"workers": workers})})


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has had, in MiB: of a GPU what tensors took, else of the machine."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(peak_mib(), 1)
