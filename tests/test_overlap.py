"""Held-out lines whose source is trained on too: counted in each preparation, said where they are many."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Nmt, prepare_folder

from nmt.config_file import parse_config
from nmt.data import blocks, unfinished
from nmt.data.filter import HeldOut
from nmt.data.prepare import prepare
from nmt.data.scan import Scanner

# Each is one line. Those of a row are the same line to preparation, those of different rows are not.
SAME = [
    ["Yes.", " Yes. ", "Yes.\t", "\u3000Yes.\u00a0"],
    ["yes."],
    ["Yes ."],
    ["caf\u00e9"],
    ["cafe\u0301"],
    ["a\u2028b", "a\u2028b\u2028"],
    ["a\x85b"],
    ["\x00", "\x00 "],
    ["\ufeffbom"],
    ["bom"],
    ["<unk> <s> <back>"],
    ['"; data.drop_overlap = true'],
    ["\U0001f468\u200d\U0001f469"],
    ["x" * 4000],
]


def write(folder: Path, name: str, lines: list[str], end: str = "\n") -> None:
    for language in ("en", "de"):
        text = "".join(f"{line}{end}" for line in ["first", *lines])
        (folder / f"{name}.{language}").write_bytes(text.encode())


def prepared(folder: Path, *overrides: str, root: str = "prepared") -> tuple[list[str], Path]:
    """What it warns of, and the folder."""
    config = parse_config(
        f"""
[data]
train = "{folder}/train"
validation = "{folder}/validation"
test = ["{folder}/test"]
source_language = "en"
target_language = "de"
workers = 0
[tokenizer]
type = "char"
""",
        overrides=overrides,
    )
    warnings: list[str] = []
    return warnings, prepare(config, folder / root, warn=warnings.append).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_one_line_says_which_sets_how_many_and_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, "train", [f"line {n}" for n in range(2000)])
    write(tmp_path, "validation", [f"line {n}" for n in range(312)] + [f"new {n}" for n in range(1687)])
    write(tmp_path, "test", [f"line {n}" for n in range(20)])
    warnings, _ = prepared(tmp_path)
    assert warnings == [
        f"313 of 2,000 lines of data.validation ({tmp_path}/validation) and 21 of 21 lines of data.test "
        f"({tmp_path}/test) have their source in the training text too, and scores there are better than on "
        "new text; data.drop_overlap = true leaves such pairs out of training"
    ]
    assert prepared(tmp_path)[0] == []  # it is prepared


@pytest.mark.parametrize(("known", "lines", "is_said"), [(4, 4, 0), (5, 5, 1), (9, 1000, 0), (10, 1000, 1)])
def test_a_few_are_no_news(tmp_path: Path, known: int, lines: int, is_said: bool) -> None:
    write(tmp_path, "train", [f"line {n}" for n in range(50)])
    write(tmp_path, "test", ["another"])
    more = [f"line {n}" for n in range(known - 1)] + [f"new {n}" for n in range(lines - known)]
    write(tmp_path, "validation", more)
    assert len(prepared(tmp_path)[0]) == is_said


def test_what_is_left_out_of_training_is_not_counted(tmp_path: Path) -> None:
    """Pairs that overlap, or that another rule drops."""
    write(tmp_path, "train", [f"a longer line {n}" for n in range(50)])
    write(tmp_path, "validation", [f"a longer line {n}" for n in range(50)])
    write(tmp_path, "test", ["another"])
    assert len(prepared(tmp_path)[0]) == 1
    (tmp_path / "train.en").write_text("kept\n" + "".join(f"a longer line {n}\n" for n in range(50)))
    assert prepared(tmp_path, "data.max_words=3")[0] == []
    warnings, _ = prepared(tmp_path, "data.drop_overlap=true")
    assert warnings == []


def test_nothing_of_it_is_in_what_is_prepared(tmp_path: Path) -> None:
    """The folder has the same name and the same bytes, whatever is held out."""
    write(tmp_path, "train", [f"line {n}" for n in range(50)])
    write(tmp_path, "test", ["another"])
    write(tmp_path, "validation", [f"line {n}" for n in range(50)])
    warnings, overlapping = prepared(tmp_path)
    write(tmp_path, "validation", [f"new {n}" for n in range(50)])
    silent, other = prepared(tmp_path, root="other")
    assert (len(warnings), silent) == (1, [])
    assert overlapping.name == other.name
    assert contents(overlapping) == contents(other)


def test_lines_are_the_same_but_for_blanks_at_their_ends() -> None:
    for row, variants in enumerate(SAME):
        held_out = HeldOut().add("test", [(variants[0], "")])
        for other, lines in enumerate(SAME):
            assert all((held_out.number(line) is not None) == (row == other) for line in lines)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.text(max_size=3), max_size=8), max_size=3),
    st.lists(st.text(max_size=3), max_size=8),
)
def test_counts(sets: list[list[str]], training: list[str]) -> None:
    held_out = HeldOut()
    for number, lines in enumerate(sets):
        held_out.add(f"set {number}", [(line, "") for line in lines])
    numbers = [number for line in training if (number := held_out.number(line)) is not None]
    known = {line.strip() for line in training} - {""}
    assert held_out.counts(numbers) == [
        (f"set {number}", sum(line.strip() in known for line in lines), len(lines))
        for number, lines in enumerate(sets)
    ]
    for line in training:
        place = held_out.find(line)
        if place is None:
            assert not any(line.strip() == other.strip() != "" for lines in sets for other in lines)
        else:
            name, _, at = place.rpartition(":")
            assert sets[int(name.split()[1])][int(at) - 1].strip() == line.strip()


@pytest.mark.parametrize("workers", [0, 2])
def test_hostile_text_in_blocks(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any blocks and processes; line ends of Windows, packed files, a line that comes often."""
    monkeypatch.setattr(blocks, "LINES", 3)
    write(tmp_path, "train", [row[-1] for row in SAME] * 3 + [""], end="\r\n")
    for language in ("en", "de"):
        plain = tmp_path / f"train.{language}"
        (tmp_path / f"train.{language}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    write(tmp_path, "validation", [row[0] for row in SAME] + ["", " ", "Yes.", "new"])
    write(tmp_path, "test", [row[0].upper() + "?" for row in SAME])
    warnings, _ = prepared(tmp_path, f"data.workers={workers}")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{len(SAME) + 2} of {len(SAME) + 5} lines of data.validation (")
    assert "data.test" not in warnings[0]
    assert "\n" not in warnings[0]


def test_interrupted_it_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LINES", 10)
    monkeypatch.setattr(unfinished, "_SECONDS", 0.0)
    write(tmp_path, "train", [f"line {n}" for n in range(99)])
    write(tmp_path, "validation", [f"line {n}" for n in range(0, 99, 2)])
    write(tmp_path, "test", ["another"])
    expected, _ = prepared(tmp_path, root="whole")
    real = Scanner.__call__
    judged: list[int] = []

    def interrupted(self: Scanner, block: blocks.Block) -> object:
        judged.append(block.first)
        if len(judged) == 6:
            raise KeyboardInterrupt
        return real(self, block)

    monkeypatch.setattr(Scanner, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path)
    assert prepared(tmp_path)[0] == expected
    assert judged == [1, 11, 21, 31, 41, 51, 51, 61, 71, 81, 91]
    assert expected[0].startswith("51 of 51 lines of data.validation")


def test_training_says_it(nmt: Nmt) -> None:
    prepare_folder(nmt.folder)
    done = nmt(
        *("train", "tiny.toml", "--set", "data.validation=corpus/train"),
        *("--set", "training.max_steps=1", "--set", "training.validate_every=1"),
    )
    (line,) = [line for line in done.stderr.split("\n") if "data.drop_overlap" in line]
    assert line.startswith(
        "nmt: warning: 300 of 300 lines of data.validation (corpus/train) have their source"
    )


@pytest.mark.slow
def test_public_corpora_have_none_to_speak_of(multi30k: Path, tmp_path: Path) -> None:
    for name, place in (("train", "train"), ("val", "validation"), ("test_2017_flickr", "test")):
        for language in ("en", "de"):
            text = gzip.decompress((multi30k / f"{name}.{language}.gz").read_bytes())
            (tmp_path / f"{place}.{language}").write_bytes(text)
    assert prepared(tmp_path)[0] == []
