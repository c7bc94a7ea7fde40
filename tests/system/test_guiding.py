"""nmt translate with prefixes, required and forbidden phrases, and options of the beam."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support import Nmt
from translating import RUN, lines_in, write_lines

from nmt.checkpoint import load_model

SOURCE = ["A dog.", "The cat sees the old house.", "", "A bird.", "The man reads a book."]


def translated(nmt: Nmt, *options: object) -> list[str]:
    text = "".join(f"{line}\n" for line in SOURCE).encode()
    return nmt("translate", RUN, "--max-length", 40, *options, stdin=text).lines


def test_prefixes(tiny_run: Path, tmp_path: Path) -> None:
    prefixes = ["Ein Hund", "", "", "Ein Vo", "Der „Mann“ "]
    lines = translated(Nmt(tiny_run), "--prefix", write_lines(tmp_path / "p", prefixes))
    free = translated(Nmt(tiny_run))
    for line, prefix, unasked in zip(lines, prefixes, free, strict=True):
        assert line.startswith(prefix.strip())
        assert prefix or line == unasked
    assert lines[2] == ""


def test_required_phrases(tiny_run: Path, tmp_path: Path) -> None:
    required = ["Haus\tblaue Katze", "東京", "", "", "„Straße“, so"]
    for beam in (1, 4):
        path = write_lines(tmp_path / "c", required)
        lines = translated(Nmt(tiny_run), "--constraints", path, "--beam-size", beam)
        for line, phrases in zip(lines, required, strict=True):
            assert all(phrase in line for phrase in phrases.split("\t"))


def test_what_is_asked_of_a_long_line_is_had(tiny_run: Path, tmp_path: Path) -> None:
    """It stays whole; what can be said of whole lines alone is refused by the line where it does not fit."""
    nmt = Nmt(tiny_run)
    loaded = load_model(tiny_run / RUN)
    long = "The dog runs. "
    while len(loaded.source_tokenizer.encode(long)) <= loaded.manifest["longest_source"]:
        long += "The dog runs. "
    assert len(loaded.source_tokenizer.encode(long)) <= loaded.config.search.max_source_tokens
    source = write_lines(tmp_path / "s", ["A dog.", long])
    path = write_lines(tmp_path / "c", ["", "blaue Katze"])
    assert "parts" in nmt("translate", RUN, source).stderr
    done = nmt("translate", RUN, source, "--constraints", path)
    assert "blaue Katze" in done.lines[1]
    assert "parts" not in done.stderr
    options = ["--forbid-everywhere", "zwei Hunde", "--max-source-tokens", 20]
    assert "input line 2: the line is longer" in nmt.error("translate", RUN, source, *options)


def test_lengths_by_the_source(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    text = "".join(f"{line}\n" for line in SOURCE).encode()
    options = ["--format", "jsonl", "--min-length-factor", 2.0, "--max-length-factor", 3.0]
    for line in nmt("translate", RUN, *options, stdin=text).lines:
        record = json.loads(line)
        found = record["translations"][0]["tokens"]
        encoded = len(load_model(tiny_run / RUN).source_tokenizer.encode(record["source"]))
        assert not encoded or len(found) + 1 >= 2 * (encoded + 1)
    both = nmt.error("translate", RUN, "--max-length", 5, "--max-length-factor", 2.0, stdin=text)
    assert "--max-length is in place of --max-length-factor" in both


def test_what_cannot_be(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    os.mkfifo(tmp_path / "pipe")
    assert "needs a file, not a pipe" in nmt.error("translate", RUN, "--prefix", tmp_path / "pipe", stdin=b"")
    assert "more than the" in nmt.error("translate", RUN, "--beam-size", 100_000, stdin=b"A dog.\n")
    assert "not available" in nmt.error("translate", RUN, "--device", "meta", stdin=b"A dog.\n")


def test_forbidden_phrases(tiny_run: Path, tmp_path: Path) -> None:
    """What the model likes most must not come, and then not what it likes next."""
    free = translated(Nmt(tiny_run))
    liked = max(set("".join(free)) - {" "}, key="".join(free).count)
    second = translated(Nmt(tiny_run), "--forbid-everywhere", liked)
    assert liked not in "".join(second)
    others = "\t".join(set(second[0]) - {" "})
    path = write_lines(tmp_path / "f", [others, "", "", "", ""])
    third = translated(Nmt(tiny_run), "--forbid", path, "--forbid-everywhere", liked)
    assert not set(third[0]) & {liked, *others.split("\t")}
    assert third[1:] == second[1:]


def test_options_of_the_beam(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    options = ["--format", "jsonl", "--n-best", 4, "--beam-size", 4, "--max-length", 30]
    text = "".join(f"{line}\n" for line in SOURCE).encode()

    def tokens(*more: object) -> list[list[list[str]]]:
        done = nmt("translate", RUN, *options, *more, stdin=text)
        return [[c["tokens"] for c in json.loads(line)["translations"]] for line in done.lines]

    for line in tokens("--min-length", 20, "--no-repeat-ngram", 2):
        for found in line:
            assert not found or 20 <= len(found) <= 30
            pairs = list(pairwise(found))
            assert len(pairs) == len(set(pairs))
    groups = tokens("--beam-groups", 4, "--diversity", 1e6)
    for line in groups:
        firsts = [found[0] if found else "" for found in line]
        assert len(set(firsts)) == len(firsts)
    covered = nmt("translate", RUN, *options, "--coverage-penalty", 5, stdin=text).lines
    assert covered != nmt("translate", RUN, *options, stdin=text).lines
    assert len(tokens("--normalization", "average")) == len(SOURCE)


@pytest.mark.slow
def test_continued_and_with_several_processes(tiny_run: Path, tmp_path: Path) -> None:
    """Each line keeps its own prefix when the lines before it are skipped or belong to another process."""
    nmt = Nmt(tiny_run)
    source = write_lines(tmp_path / "in", [f"The dog {n}." for n in range(2600)])
    prefixes = write_lines(tmp_path / "prefix", [f"{n} mal " for n in range(2600)])
    options = ["--prefix", prefixes, "--beam-size", "1", "--max-length", "8"]
    command = ["translate", RUN, source, "--output", tmp_path / "out", *options]
    with nmt.start(*command, stderr=subprocess.DEVNULL) as process:
        while lines_in(tmp_path / "out") < 2000 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert 2000 <= lines_in(tmp_path / "out") < 2600
    write_lines(prefixes, [f"{n} mal" for n in range(2600)])
    assert "was begun with prefix" in nmt.error(*command)
    write_lines(prefixes, [f"{n} mal " for n in range(2600)])
    assert "beam size" not in nmt(*command).stderr
    expected = (tmp_path / "out").read_text()
    assert [line.startswith(f"{n} mal") for n, line in enumerate(expected.split("\n")[:-1])] == [True] * 2600
    with nmt.start(*command[:3], "--output", tmp_path / "two", *options, "--processes", "2") as process:
        process.wait()
    assert process.returncode == 0
    assert (tmp_path / "two").read_text() == expected


@pytest.mark.parametrize("option", ["--prefix", "--constraints", "--forbid"])
@pytest.mark.parametrize("count", [0, 4, 6])
def test_other_numbers_of_lines(tiny_run: Path, tmp_path: Path, option: str, count: int) -> None:
    nmt = Nmt(tiny_run)
    path = write_lines(tmp_path / "wishes", ["Haus"] * count)
    source = write_lines(tmp_path / "in", SOURCE)
    has = f"has {count} lines, and the input has "
    assert f"{path}: {has}5; give one for each" in nmt.error("translate", RUN, source, option, path)
    text = source.read_bytes()
    assert has in nmt.error("translate", RUN, option, path, stdin=text)
    two = ["--output", tmp_path / "out", "--processes", 2]
    assert has in nmt.error("translate", RUN, source, option, path, *two)
    assert not (tmp_path / "out").exists()


def test_bad_input(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    source = write_lines(tmp_path / "in", SOURCE)
    long = write_lines(tmp_path / "long", ["", "Haus " * 50, "", "", ""])
    plain = ["translate", RUN, source]
    error = nmt.error(*plain, "--prefix", long, "--max-length", 20)
    assert f"{long}:2: the prefix of " in error
    assert "is longer than the maximum of 20" in error
    error = nmt.error(*plain, "--constraints", long, "--max-length", 20)
    assert f"{long}:2: what is required needs " in error
    haus = write_lines(tmp_path / "haus", ["", "", "", "das Haus", ""])
    error = nmt.error(*plain, "--constraints", haus, "--forbid-everywhere", "Haus")
    assert f'{haus}:4: "das Haus" is required, and holds "Haus", which is forbidden' in error
    (tmp_path / "bad").write_bytes(b"\n\n\xff\n\n\n")
    assert "bad:3: byte 1 is not valid UTF-8" in nmt.error(*plain, "--forbid", tmp_path / "bad")
    assert "no such file" in nmt.error(*plain, "--prefix", tmp_path / "none").lower()
    cases: list[tuple[list[object], str]] = [
        (["--min-length", 9, "--max-length", 8], "--min-length 9 is above --max-length 8"),
        (
            ["--min-length", 500, "--max-length", 600, "--no-repeat-ngram", 1],
            f"{source}:2: no translation of",
        ),
        (["--max-length", 10**20], "search.max_length_offset"),
        (["--max-length-factor", 1e18], "search.max_length_factor"),
        (["--coverage-penalty", 1e300], "search.coverage_penalty"),
        (["--min-length", 900], "the minimum length is above the maximum"),
        (["--beam-size", 4, "--beam-groups", 3], "search.beam_groups = 3 does not divide"),
        (["--beam-size", 2, "--n-best", 3, "--format", "jsonl"], "--n-best 3 is more than the beam of 2"),
        (["--beam-size", 0], "--beam-size"),
        (["--normalization", "mean"], "search.normalization"),
        (["--prefix", "-"], "--prefix needs a file"),
        (["--forbid-everywhere", " "], "--forbid-everywhere is empty"),
        (["--sample", "--prefix", haus], "--prefix is for beam search"),
        (["--engine", "ctranslate2", "--no-repeat-ngram", 2], "--no-repeat-ngram is not for --engine"),
        (["--constraints", haus, "--beam-size", 4, "--beam-groups", 2], "does not go with beam groups"),
        (["--output", haus, "--prefix", haus], "is the input too"),
    ]
    for options, message in cases:
        assert message in nmt.error(*plain, *options), options
