"""Parameters and their names: a model's, or the parts of them that a process has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import nn


class Named(Protocol):
    """What nn.Module has, each parameter once."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
