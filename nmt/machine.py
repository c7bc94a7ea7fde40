"""What this machine can do, without loading torch to ask."""

from __future__ import annotations

from pathlib import Path

_DEVICES, _PROCESSOR = Path("/dev"), Path("/proc/cpuinfo")
_OURS = Path(__file__).parent
_NEEDED = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}  # WIDE in native/products.h


def bytes_here() -> bool:
    """Whether training is fastest in int8: there is no GPU, the processor has the instructions, and the
    products are compiled. Where that cannot be told it is not (`nmt.precision` asks the processor)."""
    gpus = ("nvidia[0-9]*", "kfd", "dxg")  # NVIDIA's, AMD's, those of Windows' Linux
    if any(any(_DEVICES.glob(name)) for name in gpus) or not any(_OURS.glob("_kernels*.so")):
        return False
    try:
        lines = _PROCESSOR.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return set(flags) >= _NEEDED
