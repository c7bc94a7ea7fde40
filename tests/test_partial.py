"""A partial file goes on from every state a killed process can leave it in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import text_lines

from nmt.errors import UserError
from nmt.partial import Chunk, PartialFile, differences, partial_of, read_record, remove_parts, sidecar_of

SETTINGS = {"model": "a" * 64, "beam size": 4, "ensemble": []}


def chunked(lines: list[str], size: int) -> Iterator[Chunk]:
    for start in range(0, len(lines), size):
        yield start + 1, lines[start : start + size]


def record(number: int, line: str) -> bytes:
    return json.dumps([number, line]).encode() + b"\n"


def records(first: int, lines: list[str]) -> bytes:
    return b"".join(record(number, line) for number, line in enumerate(lines, start=first))


def work(
    target: Path, lines: list[str], size: int, *, packed: bool, chunks: int | None = None
) -> PartialFile:
    """Some chunks more; all of them, and the file's name, where `chunks` is None."""
    partial = PartialFile(partial_of(target), SETTINGS, packed=packed)
    for done, (first, rest) in enumerate(partial.rest(chunked(lines, size))):
        if done == chunks:
            return partial
        partial.append(records(first, rest), rest)
    if chunks is None:
        partial.finish(target)
    return partial


def content(target: Path, packed: bool) -> bytes:
    return gzip.decompress(target.read_bytes()) if packed else target.read_bytes()


LINES = st.lists(text_lines(["a", "\r", "\u2028", "😀"], "ab \0"), max_size=30)


@given(
    lines=LINES,
    packed=st.booleans(),
    stops=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.binary(max_size=30)), max_size=4),
)
def test_stopped_anywhere_and_continued_equals_undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    packed: bool,
    stops: list[tuple[int, int, bytes]],
) -> None:
    """Chunks of another size each time, as from a pipe, and bytes of a chunk that was being written."""
    target = tmp_path_factory.mktemp("partial") / "out"
    for size, chunks, torn in stops:
        partial = work(target, lines, size, packed=packed, chunks=chunks)
        with partial.path.open("ab") as file:
            file.write(torn)
        sidecar_of(partial.path).with_name(f"{sidecar_of(partial.path).name}.new").write_bytes(torn)
        partial._file.close()  # as the system does for a process that is killed
    work(target, lines, 3, packed=packed)
    assert content(target, packed) == records(1, lines)
    assert {path.name for path in target.parent.iterdir()} - {"out.partial.json.new"} == {"out"}


def test_the_record_never_says_more_than_the_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen at every flush to the disk: what the sidecar counts is there, whole."""
    import nmt.partial

    target, lines = tmp_path / "out", [f"line {number}" for number in range(20)]
    seen = []

    def check(descriptor: int) -> None:
        found = read_record(partial_of(target))
        if found is not None:
            data = partial_of(target).read_bytes()[: found["bytes"]]
            assert data == records(1, lines[: found["lines"]])
            seen.append(found["lines"])

    monkeypatch.setattr(nmt.partial.os, "fsync", check)
    work(target, lines, 5, packed=False, chunks=99)
    assert sorted(set(seen)) == [0, 5, 10, 15]


def test_what_was_stopped_between_its_last_two_steps(tmp_path: Path) -> None:
    """The file has its name, the sidecar is still there."""
    target = tmp_path / "out"
    work(target, ["a", "b"], 1, packed=False, chunks=9).path.rename(target)
    work(target, ["c"], 1, packed=False)
    assert target.read_bytes() == record(1, "c")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def refusal(tmp_path: Path, settings: dict[str, object] = SETTINGS, lines: list[str] | None = None) -> str:
    def go_on() -> None:
        partial = PartialFile(partial_of(tmp_path / "out"), settings)
        try:
            list(partial.rest(chunked(lines or ["a", "b"], 1)))
        finally:
            partial.close()

    with pytest.raises(UserError) as raised:
        go_on()
    message = str(raised.value)
    assert message.startswith(str(tmp_path / "out.partial: "))
    return message


def test_refusals_name_what_differs(tmp_path: Path) -> None:
    target = tmp_path / "out"
    partial = work(target, ["a", "b", "c"], 1, packed=False, chunks=2)
    assert "another process is writing it" in refusal(tmp_path)
    partial.close()
    message = refusal(tmp_path, SETTINGS | {"beam size": 5, "model": "b" * 64})
    assert "was begun with model aaaaaaaaaaaa..., not bbbbbbbbbbbb..., beam size 4, not 5;" in message
    assert "delete out.partial, or use --restart" in message
    assert "the first 2 of the input have changed" in refusal(tmp_path, lines=["a", "B", "c"])
    assert "the first 2 of the input have changed" in refusal(tmp_path, lines=["a\nb", "c"])
    assert "holds 2 lines, and the input has 1" in refusal(tmp_path, lines=["a"])
    # None of this has touched it.
    assert partial.path.read_bytes() == records(1, ["a", "b"])
    partial.path.write_bytes(b"x")
    assert "has 1 of the" in refusal(tmp_path)
    for damaged in (b"", b"{}", b"[]", b'{"format": 1}', b"\xff"):
        sidecar_of(partial.path).write_bytes(damaged)
        assert "is not an unfinished translation, or out.partial.json is lost" in refusal(tmp_path)
    assert partial.path.read_bytes() == b"x"
    PartialFile(partial.path, {}, restart=True).close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_done_is_nothing_left_and_binds_nobody(tmp_path: Path) -> None:
    path = partial_of(tmp_path / "out")
    PartialFile(path, SETTINGS)._file.close()  # killed
    assert path.exists()
    partial = PartialFile(path, {"beam size": 9})
    partial.close()
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_partial_is_begun_anew(tmp_path: Path) -> None:
    partial = work(tmp_path / "out", ["a", "b"], 1, packed=False, chunks=1)
    partial.close()
    partial.path.unlink()
    assert PartialFile(partial.path, {"beam size": 9}).lines == 0


def test_no_lines_make_an_empty_file(tmp_path: Path) -> None:
    for packed in (False, True):
        work(tmp_path / "out", [], 1, packed=packed)
        assert content(tmp_path / "out", packed) == b""


def test_parts_are_removed_and_nothing_else(tmp_path: Path) -> None:
    names = ["o[1].partial-1-of-2", "o[1].partial-12-of-20.json", "o[1].partial-1-of-2.json.new"]
    others = ["o[1].partial", "o[1].partial-1", "o1.partial-1-of-2", "o[1].partial-1-of-2.txt", "o[1]"]
    for name in names + others:
        (tmp_path / name).touch()
    remove_parts(tmp_path / "o[1]")
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_differences() -> None:
    assert differences(SETTINGS, dict(SETTINGS)) == ""
    assert differences({"a": 1}, {"b": None}) == "a 1, not null"
    assert differences({str(i): 0 for i in range(5)}, {}).endswith("2 0, not null and 2 more")


def test_what_several_processes_began_and_did_nothing_of_is_no_hindrance(tmp_path: Path) -> None:
    path = partial_of(tmp_path / "out")

    def begin(settings: dict[str, object]) -> bool:
        partial = PartialFile(path, settings)
        partial.clear(run="one")
        partial.close(keep=True)
        return partial.is_new

    assert begin({"processes": 2, "input lines": 9})
    assert not begin({"processes": 2, "input lines": 9})
    assert begin({"processes": 1, "beam size": 4})
    assert begin({"processes": 2})
    part = PartialFile(partial_of(tmp_path / "out", 1, 2), {})
    part.append(b"A\n", ["a"])
    part.close()
    with pytest.raises(UserError, match=r"was begun with processes 2, not 3; use the same settings"):
        begin({"processes": 3, "input lines": 9})
