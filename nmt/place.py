"""Where a process stands among those of its training, as torchrun says."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nmt.errors import UserError


@dataclass(frozen=True)
class Place:
    """What torchrun says to a process: which it is of how many, and where."""

    rank: int
    size: int
    local_rank: int  # of those on this machine
    local_size: int
    group: int  # the machine
    host: str  # of the first process
    port: int

    @classmethod
    def of_environment(cls) -> Place | None:
        """None without torchrun, or with one process.

        Raises:
            UserError: the variables are no numbers that belong together.
        """
        found = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if not all(found.values()):
            return None
        found["MASTER_PORT"] = os.environ.get("MASTER_PORT", "")
        found["LOCAL_WORLD_SIZE"] = os.environ.get("LOCAL_WORLD_SIZE", found["WORLD_SIZE"])
        found["GROUP_RANK"] = os.environ.get("GROUP_RANK", "0")
        if found["WORLD_SIZE"] == "1":
            found["MASTER_PORT"] = "0"
        host = os.environ.get("MASTER_ADDR", "")
        are_numbers = all(value.isascii() and value.isdigit() for value in found.values())
        if (
            not are_numbers
            or int(found["RANK"]) >= int(found["WORLD_SIZE"])
            or int(found["MASTER_PORT"]) > 65535
            or (not host and found["WORLD_SIZE"] != "1")
        ):
            shown = " ".join(f"{name}={value}" for name, value in found.items())
            raise UserError(f"{shown} MASTER_ADDR={host} in the environment is not what torchrun sets; unset")
        rank, size, local, port, local_size, group = map(int, found.values())
        return None if size == 1 else cls(rank, size, local, max(local_size, 1), group, host, port)
