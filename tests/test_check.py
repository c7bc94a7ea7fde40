"""The doctor: each trouble planted is found at its place; a clean corpus is clean."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from nmt.data.check import Report, examine, examine_files
from nmt.data.filter import Dropper, Filter, HeldOut
from nmt.errors import UserError

SOURCE = [f"sentence number {i} is here ." for i in range(1, 31)]
TARGET = [f"Satz Nummer {i} ist hier ." for i in range(1, 31)]


def write(folder: Path, source: list[str] | bytes, target: list[str] | bytes) -> Path:
    for language, side in (("en", source), ("de", target)):
        content = side if isinstance(side, bytes) else "".join(f"{line}\n" for line in side).encode()
        (folder / f"t.{language}").write_bytes(content)
    return folder / "t"


def places(report: Report, kind: str) -> list[tuple[str, int]]:
    return [
        (Path(place.file).suffix[1:], place.line)
        for finding in report.findings
        if finding.kind == kind
        for place in finding.places
    ]


def test_clean(tmp_path: Path) -> None:
    report = examine(write(tmp_path, SOURCE, TARGET), "en", "de")
    assert report.findings == ()
    assert report.dropped == ()
    assert report.rows() == []
    assert (report.source_lines, report.target_lines, report.pairs_kept) == (30, 30, 30)
    assert (report.source_words, report.target_words) == (180, 180)


PLANTED = {
    "invalid UTF-8": (7, b"caf\xe9 here", None, ["en"]),
    "Windows line end": (7, b"one two three\r", None, ["en"]),
    "byte order mark": (7, "\ufeffone two three".encode(), None, ["en"]),
    "line separator": (7, None, "eins\u2028zwei".encode(), ["de"]),
    "control character": (7, b"one\x00two three", None, ["en"]),
    "tab": (7, b"one\ttwo three", None, ["en"]),
    "replacement character": (7, None, "M\ufffdnner gehen".encode(), ["de"]),
    "doubly encoded": (7, None, "MÃ¤nner gehen".encode(), ["de"]),
    "blanks at the ends": (7, b" one two three", None, ["en"]),
    "blank source": (7, b"  ", None, ["en"]),
    "blank target": (7, None, b"", ["de"]),
    "blank on both sides": (7, b"", b"", ["en"]),
    "too long": (7, b"word " * 251 + b"end", b"wort " * 251 + b"ende", ["en", "de"]),
    "length ratio": (7, b"no", b"auf gar keinen Fall, nein", ["en"]),
    "copy": (7, b"the same text", b"the same text", ["en"]),
    "duplicate": (7, SOURCE[2].encode(), TARGET[2].encode(), ["en"]),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted(tmp_path: Path, kind: str) -> None:
    line, source, target, sides = PLANTED[kind]
    sources, targets = [text.encode() for text in SOURCE], [text.encode() for text in TARGET]
    if source is not None:
        sources[line - 1] = source
    if target is not None:
        targets[line - 1] = target
    report = examine(write(tmp_path, b"\n".join(sources) + b"\n", b"\n".join(targets)), "en", "de")
    assert [finding.kind for finding in report.findings] == [kind]
    assert places(report, kind) == [(side, line) for side in sides]
    assert report.findings[0].advice
    assert bool(report.errors) == (kind == "invalid UTF-8")
    json.dumps(report.to_json())


def test_every_place_is_found_and_the_first_kept(tmp_path: Path) -> None:
    content = b"".join(b"good\n" + b"bad\xff\n" for _ in range(10))
    report = examine(write(tmp_path, content, b"".join(b"gut %d\n" % i for i in range(20))), "en", "de")
    (finding,) = report.errors
    assert (finding.kind, finding.count) == ("invalid UTF-8", 10)
    assert places(report, "invalid UTF-8") == [("en", line) for line in (2, 4, 6, 8, 10)]
    assert "byte 4" in str(finding.places[0])
    assert report.rows()[0][:3] == ("error", "invalid UTF-8", 10)


@pytest.mark.parametrize("pipe", ["t.en", "t.de"])
def test_pipes_are_refused_unread(tmp_path: Path, pipe: str) -> None:
    """What is read of them to look whether they can be opened would be gone."""
    prefix = write(tmp_path, SOURCE, TARGET)
    (tmp_path / pipe).unlink()
    os.mkfifo(tmp_path / pipe)
    with pytest.raises(
        UserError, match=f"{pipe}: is no regular file, and the doctor reads a corpus more than"
    ):
        examine(prefix, "en", "de")


def test_words_of_lines_without_another_side(tmp_path: Path) -> None:
    report = examine(write(tmp_path, b"a b c\n" * 3, b"x y\n"), "en", "de")
    assert (report.source_words, report.target_words) == (9, 2)
    report = examine(write(tmp_path, b"a b c\n" * 2, b"x y\ncaf\xe9\n"), "en", "de")
    assert (report.source_words, report.target_words) == (6, 2)


def test_unequal_counts(tmp_path: Path) -> None:
    report = examine(write(tmp_path, SOURCE, [*TARGET[:10], *TARGET[11:]]), "en", "de")
    finding = next(finding for finding in report.errors if finding.kind == "unequal line counts")
    assert "30 lines, but 29 in" in finding.places[0].detail
    assert abs(finding.places[0].line - 11) <= 2
    assert (report.source_lines, report.target_lines) == (30, 29)


def test_shifted_at_equal_counts(tmp_path: Path) -> None:
    source = [f"{'word ' * (i * i % 17 + 1)}{i} ." for i in range(200)]
    target = [f"{'wort ' * (i * i % 17 + 1)}{i} ." for i in range(200)]
    del source[50], target[150]
    report = examine(write(tmp_path, source, target), "en", "de")
    assert [finding.kind for finding in report.findings] == ["shifted"]
    assert abs(places(report, "shifted")[0][1] - 51) <= 2


def test_empty(tmp_path: Path) -> None:
    report = examine(write(tmp_path, b"", TARGET), "en", "de")
    assert places(report, "empty") == [("en", 0)]
    both = examine(write(tmp_path, b"", b""), "en", "de")
    assert places(both, "empty") == [("en", 0), ("de", 0)]


def test_cut_gzip_is_a_finding_and_a_missing_file_an_error(tmp_path: Path) -> None:
    prefix = write(tmp_path, SOURCE, TARGET)
    packed = gzip.compress((tmp_path / "t.de").read_bytes())
    (tmp_path / "t.de").write_bytes(packed[:-12])
    report = examine(prefix, "en", "de")
    assert [finding.kind for finding in report.errors] == ["unreadable"]
    with pytest.raises(UserError, match="neither"):
        examine(prefix, "en", "fr")
    with pytest.raises(UserError, match="no such file"):
        examine_files(tmp_path / "t.en", tmp_path / "t.fr")
    with pytest.raises(UserError, match="standard input"):
        examine_files("-", tmp_path / "t.en")


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"one\teins\ntwo\ta\tb\nthree\n\xff\tvier\nfive\t\n")
    report = examine(path, "en", "de")
    found = {finding.kind: [place.line for place in finding.places] for finding in report.findings}
    assert found == {"not two columns": [2, 3], "invalid UTF-8": [4], "blank target": [5]}
    assert (report.source_lines, report.target_lines, report.pairs_kept) == (5, 5, 1)


def test_overlap_names_both_places(tmp_path: Path) -> None:
    held_out = HeldOut().add("val", [("something else", "etwas"), (SOURCE[4], "anders")])
    rules = Filter(drop_overlap=True)
    report = examine(write(tmp_path, SOURCE, TARGET), "en", "de", rules=rules, held_out=held_out)
    (finding,) = report.findings
    assert finding.kind == "overlap"
    assert str(finding.places[0]) == f"{tmp_path / 't.en'}:5 (as val:2)"
    assert [(row.reason, row.count) for row in report.dropped] == [("overlap", 1)]


def test_doctor_and_dropper_agree(tmp_path: Path) -> None:
    source = [*SOURCE, "", "x " * 300, "same", SOURCE[0]]
    target = [*TARGET, "leer", "y " * 300, "same", TARGET[0]]
    rules = Filter(drop_copies=True, drop_duplicates=True)
    report = examine(write(tmp_path, source, target), "en", "de", rules=rules)
    dropper = Dropper(rules)
    for number, (left, right) in enumerate(zip(source, target, strict=True), start=1):
        dropper.reason(left, right, file=tmp_path / "t.en", line=number)
    assert report.dropped == dropper.drop_table()
    assert report.pairs_kept == 30
