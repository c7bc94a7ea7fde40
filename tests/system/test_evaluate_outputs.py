"""What nmt evaluate writes: tried before the work, packed by name, never one file for two, no score lost."""

from __future__ import annotations

import gzip
import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import pytest
from sacrebleu_command import ORDINARY, disturbed, write
from support import Nmt

from nmt.cli.outputs import Outputs
from nmt.data.corpus import read_lines
from nmt.errors import UserError


@pytest.fixture
def scored(tmp_path: Path) -> Nmt:
    """A folder with `reference.de` and a translation `a.de`."""
    write(tmp_path / "reference.de", ORDINARY)
    write(tmp_path / "a.de", disturbed(ORDINARY, seed=1))
    return Nmt(tmp_path)


GIVEN = ["evaluate", "--system", "a=a.de", "--reference", "reference.de", "--no-confidence"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--results r.json --sentences r.json", "r.json: is written by --sentences too"),
        ("--results r.json --sentences ./r.md", "r.md: is written by --sentences too"),
        ("--results r.md", "r.md: is not a results table; name a file FILE.json"),
        ("--results reference.json", "reference.md: is an input too"),
        ("--results /proc/x.json", "x.json: cannot be written ("),
        ("--sentences /proc/self/x/y.jsonl", "y.jsonl: cannot be written ("),
        ("--results .", "is a folder; name a file with --results"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    scored: Nmt, given: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any, **__: Any) -> Any:
        raise AssertionError("the work was begun")

    monkeypatch.setattr("nmt.assessment.assess", work)
    (scored.folder / "reference.md").write_bytes((scored.folder / "reference.de").read_bytes())
    before = {path.name: path.read_bytes() for path in scored.folder.iterdir()}
    assert message in scored.error(*GIVEN, "--reference", "reference.md", *given.split())
    assert {path.name: path.read_bytes() for path in scored.folder.iterdir()} == before


def test_a_file_that_fails_at_the_end_takes_no_score_with_it(
    scored: Nmt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    expected = scored(*GIVEN).stdout
    monkeypatch.setattr("nmt.files.write_file", full)
    done = scored(*GIVEN, "--sentences", "s.jsonl", "--results", "r.json", expect=2)
    assert done.stdout == expected
    assert "s.jsonl: could not be written (No space left on device)" in done.stderr
    assert len(json.loads((scored.folder / "r.json").read_text())) == 4


def test_a_packed_file_is_packed(scored: Nmt) -> None:
    scored(*GIVEN, "--sentences", "s.jsonl")
    scored(*GIVEN, "--sentences", "s.jsonl.gz")
    packed = (scored.folder / "s.jsonl.gz").read_bytes()
    assert gzip.decompress(packed) == (scored.folder / "s.jsonl").read_bytes()
    assert len(list(read_lines(scored.folder / "s.jsonl.gz"))) == len(ORDINARY)


def test_devices_may_be_named_again(tmp_path: Path) -> None:
    outputs = Outputs({"--output": Path("/dev/null"), "--sentences": Path("/dev/null")}, [])
    outputs.write(Path("/dev/null"), "x")
    outputs.finish()
    with pytest.raises(UserError, match="is written by --a too; choose another --b"):
        Outputs({"--a": tmp_path / "x", "--b": tmp_path / "y" / ".." / "x"}, [])


def test_a_system_has_a_name(scored: Nmt) -> None:
    assert "is not of the form NAME=FILE" in scored.error("evaluate", "--system", "=a.de", *GIVEN[3:])


def test_a_byte_order_mark_is_warned_of(scored: Nmt) -> None:
    """The command sacrebleu has another number under the same signature."""
    assert "byte order mark" not in scored(*GIVEN).stderr
    path = scored.folder / "a.de"
    expected = scored(*GIVEN).stdout
    path.write_bytes(BOM_UTF8 + path.read_bytes())
    done = scored(*GIVEN)
    assert done.stdout == expected
    assert "nmt: warning: a.de: begins with a byte order mark" in done.stderr
