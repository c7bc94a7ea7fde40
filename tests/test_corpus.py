"""Reading lines: hostile text stays N lines, and what cannot be read is named with its place."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data import corpus
from nmt.errors import UserError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def failure(call: Callable[[], object] | Iterator[object]) -> UserError:
    """The UserError of this call, or of reading these lines through."""
    run = call if callable(call) else lambda: list(call)
    with pytest.raises(UserError) as caught:
        run()
    return caught.value


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\r\r\n", ["one\r"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("a\u2028b\u2029c\u0085d\n".encode(), ["a\u2028b\u2029c\u0085d"]),
        (b"a\x00b\x0bc\x0cd\x1ce\x1df\x1eg\n", ["a\x00b\x0bc\x0cd\x1ce\x1df\x1eg"]),
        (b"word " * 5000 + b"\nnext\n", ["word " * 5000, "next"]),
        ("こんにちは 🙂\n".encode(), ["こんにちは 🙂"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_ends_at_newline_only(tmp_path: Path, content: bytes, lines: list[str], packed: bool) -> None:
    path = write(tmp_path / ("t.gz" if packed else "t"), gzip.compress(content) if packed else content)
    assert list(corpus.read_lines(path)) == lines


text_line = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).filter(
    lambda line: not line.endswith("\r")
)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(text_line, min_size=1), last_newline=st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], last_newline: bool
) -> None:
    if lines[0].startswith("\ufeff") or (not last_newline and lines[-1] == ""):
        return  # a byte order mark; no last line at all
    path = tmp_path_factory.mktemp("lines") / "t"
    path.write_bytes("\n".join(lines).encode() + (b"\n" if last_newline else b""))
    assert list(corpus.read_lines(path)) == lines


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "plain-name.en", gzip.compress(b"one\n"))
    assert list(corpus.read_lines(path)) == ["one"]
    error = failure(corpus.read_lines(write(tmp_path / "t.gz", b"one\n")))
    assert "not gzip data" in error.message


def test_two_gzip_members_are_one_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gz", gzip.compress(b"one\ntw") + gzip.compress(b"o\n"))
    assert list(corpus.read_lines(path)) == ["one", "two"]


def test_invalid_utf8_is_named_by_line_and_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "t.de", b"eins\nzwei\ndrei\xfc\nvier\n")
    error = failure(corpus.read_lines(path))
    assert (error.file, error.line) == (str(path), 3)
    assert error.message.startswith("byte 5 is not valid UTF-8; ")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("a\nb\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"a\n" * 99, mtime=0), "gzip data"),
        (b"\xed\xa0\x80", "byte 1"),
    ],
    ids=["UTF-16", "gzip", "surrogate"],  # the same in every process that shares the tests out
)
def test_other_encodings_are_called_by_name(content: bytes, what: str) -> None:
    with pytest.raises(UserError, match=what):
        corpus.decode_line(content.split(b"\n")[0], file="t", line=1)


@pytest.mark.parametrize("keep", [5, 200, -3])
def test_cut_gzip(tmp_path: Path, keep: int) -> None:
    content = b"".join(hashlib.sha256(bytes([i])).hexdigest().encode() + b"\n" for i in range(200))
    path = write(tmp_path / "t.gz", gzip.compress(content)[:keep])
    error = failure(corpus.read_lines(path))
    assert error.file == str(path)
    assert "cut short or damaged" in error.message


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"one two three\n" * 50))
    packed[15] ^= 0xFF
    assert "damaged" in failure(corpus.read_lines(write(tmp_path / "t.gz", bytes(packed)))).message


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert "no such file" in failure(corpus.read_lines(tmp_path / "absent")).message
    assert "folder" in failure(corpus.read_lines(tmp_path)).message
    assert "folder" in failure(lambda: corpus.sha256_of(tmp_path)).message
    assert "cannot be read" in failure(corpus.read_lines("a\0b")).message


def test_not_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t", b"one\n")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything

        def refuse(self: Path, mode: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    assert "not permitted" in failure(corpus.read_lines(path)).message


def test_standard_input_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"one\n\xfc\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    lines = corpus.read_lines("-")
    assert next(lines) == "one"
    error = failure(lines)
    assert (error.file, error.line) == ("<stdin>", 2)
    assert not stream.buffer.closed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_loses_nothing(tmp_path: Path, packed: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = b"one\ntwo\n"
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(content) if packed else content,))
    writer.start()
    assert list(corpus.read_lines(pipe)) == ["one", "two"]
    writer.join()


def test_sides(tmp_path: Path) -> None:
    prefix = tmp_path / "v1.train"
    plain = write(tmp_path / "v1.train.en", b"a\n")
    packed = write(tmp_path / "v1.train.de.gz", gzip.compress(b"b\n"))
    assert corpus.find_side(prefix, "en") == plain
    assert corpus.find_side(prefix, "de") == packed
    assert list(corpus.read_parallel(prefix, "en", "de")) == [("a", "b")]


def test_wrong_suffix_lists_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "train.eng", b"a\n")
    write(tmp_path / "train.de", b"a\n")
    message = failure(lambda: corpus.find_side(tmp_path / "train", "en")).message
    assert "neither train.en nor train.en.gz" in message
    assert "found train.de, train.eng: check the language codes" in message
    assert "a prefix is wanted" in failure(lambda: corpus.find_side(tmp_path / "train.de", "de")).message
    assert "no readable folder" in failure(lambda: corpus.find_side(tmp_path / "no" / "train", "de")).message
    assert "check the path" in failure(lambda: corpus.find_side(tmp_path / "other", "de")).message


def test_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", b"\xef\xbb\xbfa b\tc\r\n\td\n")
    assert list(corpus.read_parallel(path, "en", "de")) == [("a b", "c"), ("", "d")]
    packed = write(tmp_path / "t.tsv.gz", gzip.compress(b"a\tb\n"))
    assert list(corpus.read_parallel(packed, "en", "de")) == [("a", "b")]
    for content, tabs in ((b"a\tb\na\tb\tc\n", "2 tabs"), (b"a\tb\nab\n", "0 tabs")):
        error = failure(corpus.read_parallel(write(path, content), "en", "de"))
        assert (error.file, error.line) == (str(path), 2)
        assert error.message.startswith(tabs)
    assert "empty" in failure(corpus.read_parallel(write(path, b""), "en", "de")).message


def test_empty_sides(tmp_path: Path) -> None:
    empty, full = write(tmp_path / "e", b""), write(tmp_path / "f", b"a\nb\n")
    for source, target in ((empty, full), (full, empty), (empty, empty)):
        error = failure(corpus.read_parallel_files(source, target))
        assert error.file == str(empty)
        assert "the file is empty" in error.message
    assert "2 lines in" in failure(corpus.read_parallel_files(empty, full)).message
    assert "both be standard input" in failure(lambda: corpus.read_parallel_files("-", "-")).message


def captions(count: int) -> tuple[list[str], list[str]]:
    """Made-up pairs whose lengths and digits vary as those of translations do."""
    source, target = [], []
    for i in range(count):
        words = int(hashlib.sha256(str(i).encode()).hexdigest(), 16) % 20 + 1
        digits = f" {i}" if i % 3 == 0 else ""
        source.append("word " * words + f"end{digits}" + ("." if i % 2 else "?"))
        target.append("Wörter " * words + f"Ende{digits}" + ("." if i % 2 else "?"))
    return source, target


@pytest.mark.parametrize("missing_from", ["source", "target"])
@pytest.mark.parametrize("missing", [1, 3])
def test_unequal_counts_say_where(tmp_path: Path, missing_from: str, missing: int) -> None:
    source, target = captions(400)
    short = source if missing_from == "source" else target
    del short[250 : 250 + missing]
    write(tmp_path / "t.en", "\n".join(source).encode())
    write(tmp_path / "t.de", "\n".join(target).encode())
    pairs = corpus.read_parallel(tmp_path / "t", "en", "de")
    error = failure(pairs)
    assert error.file == str(tmp_path / "t.en")
    assert f"{len(source)} lines, but {tmp_path / 't.de'} has {len(target)}" in error.message
    assert error.line is not None
    assert abs(error.line - 251) <= 5


def test_unequal_counts_of_uniform_text_guess_nothing(tmp_path: Path) -> None:
    error = failure(
        corpus.read_parallel_files(write(tmp_path / "a", b"a\n" * 99), write(tmp_path / "b", b"b\n" * 98))
    )
    assert error.line is None
    assert "99 lines, but" in error.message
    assert "has 98;" in error.message


def test_shift_between_two_gaps(tmp_path: Path) -> None:
    source, target = captions(400)
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "\n".join(source).encode())
    write(b, "\n".join(target).encode())
    assert corpus.first_shifted_line(a, b) is None
    del source[100], target[300]
    write(a, "\n".join(source).encode())
    write(b, "\n".join(target).encode())
    place = corpus.first_shifted_line(a, b)
    assert place is not None
    assert abs(place - 101) <= 5


def test_sha256(tmp_path: Path) -> None:
    assert corpus.sha256_of(write(tmp_path / "t", b"abc")) == hashlib.sha256(b"abc").hexdigest()
