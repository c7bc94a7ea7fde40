"""nmt translate --output continues a half-written file, whatever stopped it."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Nmt
from translating import RUN, command, comparable, content, files, hostile_lines, lines_in, write_lines

from nmt.cli import lines as lines_module

LINES = hostile_lines(300, seed=7)
CHUNK = 20


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twenty lines are saved, so that a short text is stopped in its middle."""
    monkeypatch.setattr(lines_module, "CHUNK_LINES", CHUNK)


def kill(nmt: Nmt, arguments: list[object], output: Path, chance: random.Random, longest: float) -> bool:
    """Kill a run at some moment after it has got further; whether it was killed."""
    before = lines_in(output)
    with nmt.fork(*arguments, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and lines_in(output) <= before:
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.random() * longest)
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["out.jsonl.gz", pytest.param("out.txt", marks=pytest.mark.slow)])
def test_killed_and_continued(tiny_run: Path, tmp_path: Path, small_chunks: None, name: str) -> None:
    source, output = write_lines(tmp_path / "in", LINES), tmp_path / name
    arguments = command(source, output)
    assert kill(Nmt(tiny_run), arguments, output, random.Random(name), 0.1)
    assert not output.exists()
    done = lines_in(output)
    assert 0 < done < len(LINES)
    nmt = Nmt(tiny_run)
    assert f"continuing after {done} lines" in nmt(*arguments).stderr
    nmt(*command(source, tmp_path / f"undisturbed-{name}"))
    assert content(output) == content(tmp_path / f"undisturbed-{name}")
    assert content(output).count(b"\n") == len(LINES)
    assert files(tmp_path) == {"in", name, f"undisturbed-{name}"}


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str], str], Path]:
    """What a run that nothing stops writes, text or jsonl."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(lines: list[str], format: str) -> Path:
        output = folder / f"out.{format}"
        if not output.exists():
            Nmt(tiny_run)(*command(write_lines(folder / "in", lines), output))
        return output

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("out.txt", 1),
        ("out.jsonl", 1),
        ("out.txt.gz", 1),
        ("out.jsonl.gz", 1),
        ("out.txt.gz", 2),
        ("out.jsonl", 2),
    ],
)
def test_twenty_thousand_lines_killed_again_and_again(
    tiny_run: Path, tmp_path: Path, undisturbed: Callable[[list[str], str], Path], name: str, processes: int
) -> None:
    """As many records as lines, in order, none twice, equal to an undisturbed run."""
    lines = hostile_lines(20_000, seed=3)
    source, output = write_lines(tmp_path / "in", lines), tmp_path / name
    arguments = command(source, output, "--processes", str(processes))
    chance, nmt, kills = random.Random(name), Nmt(tiny_run), 0
    while not output.exists():
        kills += kill(nmt, arguments, output, chance, 0.5 if kills < 4 else 600)
    assert kills >= 3
    assert comparable(output) == comparable(undisturbed(lines, "jsonl" if "jsonl" in name else "txt"))
    records = content(output).decode().split("\n")[:-1]
    assert len(records) == len(lines)
    if "jsonl" in name:
        found = [json.loads(record) for record in records]
        assert [record["line"] for record in found] == list(range(1, 20_001))
        assert [record["source"] for record in found] == lines
    assert files(tmp_path) == {"in", name}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tiny_run: Path, tmp_path: Path, number: int, code: int) -> None:
    """Standard input that stays open: what has come is translated, and read again by the run that goes on."""
    output = tmp_path / "out"
    arguments = ["translate", RUN, "--output", output]
    with Nmt(tiny_run).fork(*arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"A dog.\n\nA cat.\n")
        process.stdin.flush()
        while lines_in(output) < 3 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.stderr.read().decode()
    word = {130: "interrupted", 143: "terminated"}[code]
    assert said == (
        f"nmt: {word}; 3 lines are translated, in {output}.partial: the same command goes on after that\n"
    )
    assert process.returncode == code
    assert files(tmp_path) == {"out.partial", "out.partial.json"}
    nmt = Nmt(tiny_run)
    text = b"A dog.\n\nA cat.\nA bird.\n"
    assert "continuing after 3 lines" in nmt(*arguments, stdin=text).stderr
    assert output.read_bytes() == nmt("translate", RUN, stdin=text).stdout


def test_terminated_without_an_output_file(tiny_run: Path) -> None:
    with Nmt(tiny_run).fork(
        "translate", RUN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"A dog.\n")
        process.stdin.flush()
        process.stdout.readline()
        process.terminate()
        assert process.stderr.read() == b"nmt: terminated\n"
    assert process.returncode == 143


def test_a_bad_line_is_named_and_after_its_correction_the_rest_is_done(
    tiny_run: Path, tmp_path: Path
) -> None:
    lines = [line.encode() for line in LINES[:90]]
    source, output, nmt = tmp_path / "in", tmp_path / "out", Nmt(tiny_run)
    source.write_bytes(b"\n".join([*lines[:69], b"bad \xff", *lines[70:]]) + b"\n")
    message = nmt.error(*command(source, output))
    assert f"{source}:70: byte 5 is not valid UTF-8" in message
    assert f"69 lines are translated, in {output}.partial: once that is mended, the same command" in message
    source.write_bytes(b"\n".join(lines) + b"\n")
    assert "continuing after 69 lines" in nmt(*command(source, output)).stderr
    nmt(*command(source, tmp_path / "whole"))
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    # Of a bad first line nothing is left.
    source.write_bytes(b"\xff\n")
    assert "translated, in" not in nmt.error(*command(source, tmp_path / "new"))
    assert files(tmp_path) == {"in", "out", "whole"}


def test_continued_only_with_the_same_model_settings_and_lines(tiny_run: Path, tmp_path: Path) -> None:
    source, output, nmt = tmp_path / "in", tmp_path / "out", Nmt(tiny_run)
    source.write_bytes(b"A dog.\nA cat.\n\xff\n")
    nmt.error(*command(source, output))
    write_lines(source, ["A dog.", "A cat.", "A bird."])
    half = (tmp_path / "out.partial").read_bytes()

    def refused(*options: str, model: str = RUN) -> str:
        arguments = ["translate", model, source, "--output", output, "--beam-size", "1", *options]
        message = nmt.error(*arguments)
        assert message.startswith(f"nmt: {output}.partial: ")
        assert message.endswith("delete out.partial, or use --restart, to begin anew")
        return message

    assert "begun with beam size 1, not 2; use the same settings" in refused("--beam-size", "2")
    assert "format text, not jsonl" in refused("--format", "jsonl")
    assert "n best 1, not 2" in refused("--format", "jsonl", "--n-best", "2", "--beam-size", "2")
    assert "length penalty" in refused("--length-penalty", "0.25")
    assert "alignment false, not true" in refused("--format", "jsonl", "--alignment")
    assert "ensemble [], not [" in refused("--ensemble", RUN)
    assert "processes 1, not 2" in refused("--processes", "2")
    best = (tiny_run / RUN / "best").resolve()
    other = next(path for path in (tiny_run / RUN / "checkpoints").glob("step-*") if path != best)
    assert "begun with model " in refused(model=str(other))
    write_lines(source, ["A dog.", "A rat.", "A bird."])
    assert "the first 2 of the input have changed" in refused()
    write_lines(source, ["A dog."])
    assert "holds 2 lines, and the input has 1" in refused()
    assert (tmp_path / "out.partial").read_bytes() == half
    # How lines are batched does not decide what becomes of them, nor does what comes after.
    write_lines(source, ["A dog.", "A cat.", "A bird.", "A rat."])
    assert "continuing after 2 lines" in nmt(*command(source, output), "--batch-tokens", "7").stderr
    assert output.read_bytes().count(b"\n") == 4
    assert files(tmp_path) == {"in", "out"}


def test_a_file_of_wishes_that_is_wrong_needs_another_beginning(tiny_run: Path, tmp_path: Path) -> None:
    """What was translated is of the file as it was, so with another one the same command does not go on."""
    source, wanted, output = tmp_path / "in", tmp_path / "terms", tmp_path / "out"
    write_lines(source, ["A dog."] * 40)
    write_lines(wanted, [*[""] * 35, "Haus " * 60, *[""] * 4])
    arguments = [*command(source, output), "--constraints", wanted]
    message = Nmt(tiny_run).error(*arguments)
    assert f"{wanted}:36: " in message
    assert message.endswith(
        f"lines are translated, in {output}.partial: with that file changed, --restart begins anew"
    )
    write_lines(wanted, [""] * 40)
    assert "begun with constraints" in Nmt(tiny_run).error(*arguments)
    Nmt(tiny_run)(*arguments, "--restart")


def test_restart_and_overwriting(tiny_run: Path, tmp_path: Path) -> None:
    source, output, nmt = tmp_path / "in", tmp_path / "out", Nmt(tiny_run)
    source.write_bytes(b"A dog.\nA cat.\n\xff\n")
    nmt.error(*command(source, output))
    write_lines(source, ["A bird."])
    said = nmt(*command(source, output, "--restart", "--beam-size", "2")).stderr
    assert "continuing" not in said
    first = output.read_bytes()
    assert first.count(b"\n") == 1
    # What is finished is written anew.
    write_lines(source, ["", ""])
    nmt(*command(source, output))
    assert output.read_bytes() == b"\n\n"
    assert "--output" in nmt.error("translate", RUN, "--restart", stdin=b"a\n")
    # A file of that name that is none of ours is left alone.
    (tmp_path / "out.partial").write_text("mine")
    assert "is not an unfinished translation" in nmt.error(*command(source, output))
    assert (tmp_path / "out.partial").read_text() == "mine"
    taken = nmt.error("translate", RUN, tmp_path / "out.partial", "--output", output, "--restart")
    assert "is the input too" in taken
    assert (tmp_path / "out.partial").read_text() == "mine"


def test_two_processes_do_not_write_one_file(tiny_run: Path, tmp_path: Path) -> None:
    output, nmt = tmp_path / "out", Nmt(tiny_run)
    with nmt.fork("translate", RUN, "--output", output, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"A dog.\n")
        process.stdin.flush()
        while lines_in(output) < 1 and process.poll() is None:
            time.sleep(0.01)
        for options in ([], ["--restart"]):
            message = nmt.error("translate", RUN, "--output", output, *options, stdin=b"A cat.\n")
            assert "out.partial: another process is writing it" in message
        process.stdin.close()
    assert process.returncode == 0
    assert output.read_bytes() == nmt("translate", RUN, stdin=b"A dog.\n").stdout
    assert files(tmp_path) == {"out"}


def test_gzip_and_links(tiny_run: Path, tmp_path: Path) -> None:
    nmt, text = Nmt(tiny_run), b"A dog.\n\n\xe2\x80\xa8 A cat.\n"
    expected = nmt("translate", RUN, stdin=text).stdout
    (tmp_path / "real.gz").touch()
    (tmp_path / "link.gz").symlink_to("real.gz")
    nmt("translate", RUN, "--output", tmp_path / "link.gz", stdin=text)
    assert (tmp_path / "link.gz").is_symlink()
    assert gzip.decompress((tmp_path / "real.gz").read_bytes()) == expected
    nmt("translate", RUN, "--output", tmp_path / "empty.gz", stdin=b"")
    assert gzip.decompress((tmp_path / "empty.gz").read_bytes()) == b""
    assert nmt("translate", RUN, tmp_path / "empty.gz").stdout == b""
    assert nmt("translate", RUN, "--output", "/dev/null", stdin=text).stdout == b""
