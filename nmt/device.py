"""Where models run."""

from __future__ import annotations

import torch

from nmt.errors import UserError


def choose_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. UserError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {name} is not available on this machine; use cpu or auto") from None
    return device
