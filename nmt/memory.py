"""How much memory processes take."""

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


def tree_mib(process: int) -> float:
    """What a process and its descendants have resident now; what several share counts once.

    0 where the system does not say, or the process is gone.
    """
    found = 0.0
    folder = Path("/proc", str(process))
    try:
        for line in (folder / "smaps_rollup").read_text().split("\n"):
            if line.startswith("Pss:"):
                found += int(line.split()[1]) / 2**10
        for thread in (folder / "task").iterdir():
            for child in (thread / "children").read_text().split():
                found += tree_mib(int(child))
    except OSError:  # it has ended meanwhile
        pass
    return found
