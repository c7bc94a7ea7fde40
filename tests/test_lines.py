"""Chunks of input: of a file all that is there, of a pipe what has arrived."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import text_lines

from nmt.cli.lines import CHUNK_LINES, Lines
from nmt.errors import UserError


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what is then standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writing


def test_a_line_is_there_at_once_and_lines_that_wait_come_together(pipe: int) -> None:
    chunks = Lines("-").chunks()
    os.write(pipe, b"a\n")
    assert next(chunks) == (1, ["a"])  # while the pipe stays open
    os.write(pipe, b"b\nc\n\nd\nhalf a li")
    time.sleep(0.2)
    assert next(chunks) == (2, ["b", "c", "", "d"])
    os.write(pipe, b"ne")
    os.close(pipe)
    assert list(chunks) == [(6, ["half a line"])]


def test_whether_more_is_at_hand(pipe: int) -> None:
    lines = Lines("-")
    chunks = lines.chunks()
    os.write(pipe, b"a\n")
    assert next(chunks) == (1, ["a"])
    assert not lines.at_hand()
    os.write(pipe, b"b\n")
    _wait_until(lines.at_hand)
    assert next(chunks) == (2, ["b"])
    assert not lines.at_hand()
    os.close(pipe)
    _wait_until(lines.at_hand)  # the end comes without waiting
    assert list(chunks) == []


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_flood_comes_in_full_chunks(pipe: int) -> None:
    chunks = Lines("-").chunks(5)
    os.write(pipe, b"x\n" * 100)
    time.sleep(0.3)
    sizes = [len(next(chunks)[1]) for _ in range(20)]
    os.close(pipe)
    assert sizes == [5] * 20
    assert list(chunks) == []


def test_the_first_chunks_are_small(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x\n" * 5000)
    assert [len(lines) for _, lines in Lines(str(tmp_path / "in")).chunks()] == [32, 256, 2000, 2000, 712]
    found = Lines(str(tmp_path / "in")).chunks(most=4000)
    assert [len(lines) for _, lines in found] == [32, 256, 4000, 712]


def test_a_file_redirected_to_standard_input_is_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"x\n" * 7)
    with (tmp_path / "in").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert [(first, len(lines)) for first, lines in Lines("-").chunks(3)] == [(1, 3), (4, 3), (7, 1)]


@given(
    st.lists(text_lines(["a", "\u2028", "\u0085", "\x0b\x0c\x1c"], "ab\r\0 "), max_size=20),
    st.integers(1, 7),
    st.booleans(),
)
def test_every_line_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, packed: bool
) -> None:
    """Only a newline ends a line; of carriage returns before it one is taken off, as of Windows' lines."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("lines") / "in"
    path.write_bytes(gzip.compress(data) if packed else data)
    expected = [line.removesuffix("\r") for line in lines]
    if expected:
        expected[0] = expected[0].removeprefix("\ufeff")
    if data == b"\xef\xbb\xbf\n":
        return  # a byte order mark and nothing else
    chunks = list(Lines(str(path)).chunks(size))
    assert [line for _, chunk in chunks for line in chunk] == expected
    assert all(len(chunk) == size for _, chunk in chunks[:-1])
    assert [first for first, _ in chunks] == list(range(1, len(lines) + 1, size))


@pytest.mark.parametrize("size", [1, 2, 3, CHUNK_LINES])
def test_lines_before_a_bad_one_come_before_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "in").write_bytes(b"a\nb\n\xff\nc\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "in").read_bytes())))
    for source, name in ((str(tmp_path / "in"), str(tmp_path / "in")), ("-", "<stdin>")):
        seen: list[str] = []
        with pytest.raises(UserError, match="not valid UTF-8") as raised:
            seen.extend(line for _, chunk in Lines(source).chunks(size) for line in chunk)
        assert (raised.value.file, raised.value.line) == (name, 3)
        assert seen == ["a", "b"]


def test_what_cannot_be_read_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError):
            Lines(str(path))
    (tmp_path / "in").write_bytes(b"a\nb")
    assert Lines(str(tmp_path / "in")).total is None
    assert Lines(str(tmp_path / "in"), count=True).total == 2


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"a\nb\n")).start()
    lines = Lines(str(tmp_path / "pipe"), count=True)
    assert lines.total is None
    assert [line for _, chunk in lines.chunks() for line in chunk] == ["a", "b"]
