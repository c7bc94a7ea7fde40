"""The metrics lose no line and hold no half one, whatever the disk does."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nmt.metrics_file import MetricsFile


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: a write that would is cut, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_bytes().split(b"\n")[:-1]]


def test_lines_wait_for_space(tmp_path: Path) -> None:
    path = tmp_path / "m"
    metrics = MetricsFile(path)
    metrics.add({"step": 1})
    assert metrics.write() == path.stat().st_size == 12
    with largest_file(20):
        for step in (2, 3):
            metrics.add({"step": step})
            with pytest.raises(OSError, match="File too large"):
                metrics.write(sync=True)
            assert steps(path) == [1]
            assert path.stat().st_size == 12
    metrics.add({"step": 4})
    assert metrics.write(sync=True) == path.stat().st_size == 48
    assert steps(path) == [1, 2, 3, 4]
    metrics.cut(24)
    metrics.add({"step": 5})
    assert metrics.write() == 36
    assert steps(path) == [1, 2, 5]


def test_a_file_that_vanished_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "m"
    path.parent.mkdir()
    metrics = MetricsFile(path)
    metrics.add({"step": 1})
    metrics.write()
    path.parent.rename(tmp_path / "away")
    metrics.add({"step": 2})
    with pytest.raises(FileNotFoundError):
        metrics.write()
    path.parent.mkdir()
    metrics.add({"step": 3})
    assert metrics.write() == path.stat().st_size
    assert steps(path) == [2, 3]
    assert steps(tmp_path / "away/m") == [1]
    (tmp_path / "away/m").replace(path)  # another file under the name
    metrics.add({"step": 4})
    assert metrics.write() == path.stat().st_size
    assert steps(path) == [1, 4]
