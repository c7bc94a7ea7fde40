"""nmt translate keeps its promises: N lines in, N lines out, in order, whatever they hold."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from support import Nmt, prepare_folder
from translating import RUN, hostile_lines


def check_contract(nmt: Nmt, lines: list[str], *options: str) -> list[str]:
    text = "".join(f"{line}\n" for line in lines).encode()
    done = nmt("translate", RUN, *options, stdin=text)
    assert done.stdout.count(b"\n") == len(lines)
    for line, translation in zip(lines, done.lines, strict=True):
        assert bool(translation.strip()) <= bool(line.strip()), (line, translation)
    return done.lines


def test_hostile_lines(tiny_run: Path) -> None:
    lines = [*hostile_lines(120), "many words " * 600, "y" * 1000]
    together = check_contract(Nmt(tiny_run), lines)
    alone = check_contract(Nmt(tiny_run), lines[:20], "--batch-tokens", "1")
    assert together[:20] == alone


@pytest.mark.slow
def test_twenty_thousand_hostile_lines(tiny_run: Path) -> None:
    lines = hostile_lines(20_000)
    for place in (5, 7_000, 19_999):
        lines[place] = "many words " * 2500
    check_contract(Nmt(tiny_run), lines, "--beam-size", "1")


def test_windows_lines_last_line_and_byte_order_mark(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    plain = nmt("translate", RUN, stdin=b"A dog.\nA cat.\n").stdout
    assert nmt("translate", RUN, stdin=b"A dog.\r\nA cat.\r\n").stdout == plain
    assert nmt("translate", RUN, stdin=b"A dog.\nA cat.").stdout == plain
    assert nmt("translate", RUN, stdin=b"\xef\xbb\xbfA dog.\nA cat.\n").stdout == plain
    assert nmt("translate", RUN, stdin=b"").stdout == b""
    assert nmt("translate", RUN, stdin=b"\n").stdout == b"\n"


def test_invalid_utf8_is_refused_by_line_after_the_lines_before_it(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    done = nmt("translate", RUN, stdin=b"A dog.\nA cat.\nbad \xff byte\nA bird.\n", expect=2)
    assert len(done.lines) == 2
    assert "<stdin>:3: byte 5" in done.stderr
    (tiny_run / "bad.txt").write_bytes(b"good\n\xc3\n")
    assert "bad.txt:2: byte 1" in nmt.error("translate", RUN, "bad.txt")


def test_files_plain_and_gzip(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    text = (tiny_run / "corpus/test.en").read_bytes()
    (tmp_path / "test.en.gz").write_bytes(gzip.compress(text))
    expected = nmt("translate", RUN, stdin=text).stdout
    assert nmt("translate", RUN, tmp_path / "test.en.gz").stdout == expected
    assert nmt("translate", RUN, "corpus/test.en", "--output", tmp_path / "out.de").stdout == b""
    assert (tmp_path / "out.de").read_bytes() == expected
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_json_lines(tiny_run: Path) -> None:
    options = ["--format", "jsonl", "--n-best", "3", "--beam-size", "4"]
    done = Nmt(tiny_run)("translate", RUN, *options, stdin="A dog.\n\n\u2028 x\n".encode())
    records = [json.loads(line) for line in done.lines]
    assert [record["line"] for record in records] == [1, 2, 3]
    assert [record["source"] for record in records] == ["A dog.", "", "\u2028 x"]
    scores = [c["score"] for c in records[0]["translations"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert [c["text"] for c in records[1]["translations"]] == [""]


def test_json_lines_in_place_of_text(tiny_run: Path, tmp_path: Path) -> None:
    """They are translated as they are, since a text may be anything, but not without a word."""
    nmt = Nmt(tiny_run)
    records = nmt("translate", RUN, "--format", "jsonl", stdin=b"A dog.\n").stdout
    done = nmt("translate", RUN, "--beam-size", "1", stdin=records)
    assert len(done.lines) == 1
    assert "nmt: warning: <stdin>: looks like JSON lines" in done.stderr
    (tmp_path / "in.jsonl").write_text("A dog.\n")
    done = nmt("translate", RUN, tmp_path / "in.jsonl")
    assert f"nmt: warning: {tmp_path}/in.jsonl: looks like" in done.stderr
    for text in (b"{}\n", b"{a\n", b"[1]\n", b'{"translations": 3}\n', b"A dog.\n" + records):
        assert "JSON" not in nmt("translate", RUN, "--beam-size", "1", stdin=text).stderr


def test_a_long_line_is_split_with_a_warning(tiny_run: Path) -> None:
    done = Nmt(tiny_run)("translate", RUN, stdin=b"short\n" + b"The dog sees it. " * 200 + b"\n")
    assert len(done.lines) == 2
    assert "warning: <stdin>:2: longer than 78 tokens, as the longest of training" in done.stderr


@pytest.mark.parametrize(("count", "said"), [(10, 10), (11, 12), (25, 12)])
def test_many_long_lines_are_counted(tiny_run: Path, count: int, said: int) -> None:
    text = (b"A dog. " * 30 + b"\n") * count
    options = ["--max-source-tokens", "40", "--max-length", "1", "--beam-size", "1"]
    done = Nmt(tiny_run)("translate", RUN, *options, stdin=text)
    assert done.lines == [done.lines[0]] * count
    warnings = done.stderr.splitlines()
    assert len(warnings) == said
    assert [line.startswith(f"nmt: warning: <stdin>:{i + 1}: longer") for i, line in enumerate(warnings)] == (
        [True] * 10 + [False] * (said - 10)
    )
    if count > 10:
        assert warnings[10].startswith("nmt: warning: <stdin>: more lines are like these")
        more = "1 more line was" if count == 11 else "15 more lines were"
        assert warnings[11] == f"nmt: warning: <stdin>: {more} like these"


def test_a_terminal_is_said_to_be_read(tiny_run: Path) -> None:
    terminal, line = os.openpty()
    with Nmt(tiny_run).fork(
        "translate", RUN, stdin=line, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.close(line)
        os.write(terminal, b"A dog.\n\x04")
        said, errors = process.communicate()
        os.close(terminal)
    assert said.count(b"\n") == 1
    assert errors == b"reading lines from the terminal; end with Ctrl-D\n"
    assert process.returncode == 0


def test_a_line_typed_is_a_line_answered(tiny_run: Path) -> None:
    """Each line is answered while the input stays open."""
    process = Nmt(tiny_run).fork("translate", RUN, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"A dog.\n", b"\n", b"A cat sees the dog.\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_reader_that_leaves_early_is_no_error(tiny_run: Path) -> None:
    """As under `| head -1`."""
    with Nmt(tiny_run).start(
        "translate", RUN, "corpus/train.en", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_interrupted(tiny_run: Path) -> None:
    with Nmt(tiny_run).start(
        "translate", RUN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"A dog.\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(2)
        assert process.stderr.read() == b"nmt: interrupted\n"
    assert process.returncode == 130


def test_shuffled_batched_and_alone_give_the_same_text(tiny_run: Path) -> None:
    """A translation does not depend on what else is in its batch."""
    nmt = Nmt(tiny_run)
    lines = (tiny_run / "corpus/train.en").read_text().split("\n")[:60]
    alone = check_contract(nmt, lines, "--batch-tokens", "1")
    assert check_contract(nmt, lines, "--batch-tokens", "500") == alone
    order = list(range(len(lines)))
    random.Random(3).shuffle(order)
    shuffled = check_contract(nmt, [lines[i] for i in order])
    assert [shuffled[order.index(i)] for i in range(len(lines))] == alone
    neighbour = check_contract(nmt, [*lines, "word " * 500])
    assert neighbour[:-1] == alone


def test_an_ensemble_averages_probabilities(tiny_run: Path, nmt: Nmt) -> None:
    here = Nmt(tiny_run)
    options = ["translate", RUN, "corpus/test.en", "--format", "jsonl"]
    alone = [json.loads(line)["translations"][0] for line in here(*options).lines]
    twins = [json.loads(line)["translations"][0] for line in here(*options, "--ensemble", RUN).lines]
    assert [t["text"] for t in twins] == [t["text"] for t in alone]
    assert all(abs(a["score"] - b["score"]) < 1e-4 for a, b in zip(alone, twins, strict=True))
    first, last = sorted((tiny_run / RUN / "checkpoints").glob("step-*"))[:2]
    one = here("translate", first, "corpus/test.en", "--ensemble", last).stdout
    assert one == here("translate", last, "corpus/test.en", "--ensemble", first).stdout
    prepare_folder(nmt.folder)
    nmt("train", "tiny.toml", "--set", "training.max_steps=2", "--set", "tokenizer.vocabulary_size=380")
    assert "another target vocabulary" in nmt.error(
        "translate", RUN, "--ensemble", tiny_run / RUN, stdin=b"a\n"
    )


def test_options_that_do_not_go_together(tiny_run: Path, tmp_path: Path) -> None:
    """Each is one line, told before anything is loaded or written."""
    nmt, text = Nmt(tiny_run), tmp_path / "in"
    text.write_text("A dog.\n")
    assert "'--beam-size'" in nmt.error("translate", RUN, "--beam-size", "0")
    assert "is more than the beam of 2" in nmt.error("translate", RUN, "--format", "jsonl", "--n-best", "3")
    assert "device cuda:99 is not available" in nmt.error("translate", RUN, "--device", "cuda:99")
    assert "device nonsense is not available" in nmt.error("translate", RUN, "--device", "nonsense")
    for option in ("--alignment", "--attention"):
        message = nmt.error("translate", "no-model", option)
        assert message == f"nmt: {option} does not fit a line of text; add --format jsonl"
    assert "--format xml is not known" in nmt.error("translate", "no-model", "--format", "xml")
    by = ("--ensemble-by", "probability")
    assert nmt.error("translate", "no-model", *by).startswith("nmt: --ensemble-by is about several models")
    groups = nmt.error("translate", RUN, "--diversity", "0.5")
    assert groups == "nmt: --diversity is between groups of the beam; add --beam-groups, 2 or more"
    for output, message in {
        tmp_path: f"nmt: {tmp_path}: is a folder; name a file with --output",
        tmp_path / "x" / "out": f"nmt: {tmp_path}/x/out: its folder does not exist; create it first",
        text: f"nmt: {text}: is the input too; choose another --output",
    }.items():
        assert nmt.error("translate", "no-model", text, "--output", output) == message
    (tmp_path / "link").symlink_to("in")
    assert "is the input too" in nmt.error("translate", RUN, text, "--output", tmp_path / "link")
    words = ["--replace-unknown", "--dictionary", text]
    assert "is the input too" in nmt.error("translate", RUN, "--output", text, *words, stdin=b"a\n")
    assert text.read_text() == "A dog.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "link"}
