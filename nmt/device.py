"""Where models run."""

from __future__ import annotations

import torch

from nmt.errors import UserError, counted


def choose_device(name: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """ "auto" is the GPU where there is one. UserError for a device that is not there.

    Args:
        local_rank, local_size: of the processes of one training on this machine: each has a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(
                f'training.device = "{name}" is one GPU for {local_size} processes; use "cuda" or "auto"'
            )
        gpus = torch.cuda.device_count()
        if gpus and local_size > gpus:
            raise UserError(
                f"{local_size} processes on a machine with {counted(gpus, 'GPU')}; start "
                f"{gpus} with torchrun --nproc-per-node {gpus}, or set training.device = cpu"
            )
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # streams and graphs are of the current one
        if device.type == "cuda":
            # It makes a plan for each shape, which takes longer than a step, and few batches have the same.
            torch.backends.cuda.enable_cudnn_sdp(False)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {name} is not available on this machine; use cpu or auto") from None
    return device
