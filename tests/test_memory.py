"""Memory of processes, as the system tells it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nmt.memory import peak_mib, tree_mib

_HOLDS = """
import os, sys
block = bytearray(os.urandom(1 << 20)) * 96
if os.fork():
    os.wait()
else:
    own = bytearray(os.urandom(1 << 20)) * 64
    print("ready", flush=True)
    sys.stdin.readline()
"""


_HELD = """
from nmt.memory import peak_mib
block = bytearray(b"x") * (96 << 20)
del block
print(peak_mib())
"""


def test_peak() -> None:
    """What was given back counts; what the parent has does not."""
    held = subprocess.run([sys.executable, "-c", _HELD], check=True, capture_output=True, text=True).stdout
    assert 96 < float(held) < 160
    assert peak_mib() > 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not say")
def test_a_process_and_its_child() -> None:
    """What both see counts once."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = tree_mib(process.pid)
        process.communicate("\n")
    assert 160 < found < 230
    assert tree_mib(process.pid) == 0
