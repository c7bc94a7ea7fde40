"""What the machine can do, told without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nmt import machine
from nmt.linear import available

FLAGS = "fpu avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a machine with all that is needed."""
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    monkeypatch.setattr(machine, "_PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_OURS", tmp_path)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {FLAGS}\n\nprocessor\t: 1\n")
    (tmp_path / "_kernels.x.so").write_bytes(b"")
    return tmp_path


def test_where_all_is_there(root: Path) -> None:
    assert machine.bytes_here()


@pytest.mark.parametrize("flag", sorted(machine._NEEDED))
def test_without_an_instruction(root: Path, flag: str) -> None:
    (root / "cpuinfo").write_text(f"flags : {FLAGS.replace(flag, '')}\n")
    assert not machine.bytes_here()


def test_with_a_gpu(root: Path) -> None:
    (root / "nvidiactl").write_bytes(b"")
    assert machine.bytes_here()
    (root / "nvidia0").write_bytes(b"")
    assert not machine.bytes_here()


def test_without_products_of_ours(root: Path) -> None:
    (root / "_kernels.x.so").unlink()
    assert not machine.bytes_here()


@pytest.mark.parametrize("text", [None, "", "flags", "Features : neon"])
def test_where_nothing_is_known(root: Path, text: str | None) -> None:
    (root / "cpuinfo").unlink()
    if text is not None:
        (root / "cpuinfo").write_text(text)
    assert not machine.bytes_here()


def test_what_it_says_of_this_machine_holds() -> None:
    assert not machine.bytes_here() or available(torch.int8)
