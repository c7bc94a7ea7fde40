"""How much memory a process has taken."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_mib() -> float:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins, on Linux, with the memory of the parent
        for line in status.read_text().split("\n"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
