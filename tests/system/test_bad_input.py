"""Everything a user can get wrong: one line that says what, where and what to do."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import TINY, Nmt, prepare_folder

RUN = "runs/tiny"


@pytest.fixture
def project(nmt: Nmt, tmp_path: Path) -> Nmt:
    """A folder with a corpus and a configuration, ready to train."""
    prepare_folder(tmp_path)
    return nmt


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# Training data


def test_missing_corpus_names_what_is_there(project: Nmt) -> None:
    text = project.error("train", "tiny.toml", "--set", "data.train=corpus/trian")
    assert "corpus/trian: neither trian.en nor trian.en.gz exists" in text


def test_wrong_language_suffix(project: Nmt) -> None:
    text = project.error("train", "tiny.toml", "--set", "data.target_language=fr")
    assert "validation.fr" in text
    assert "found validation.align, validation.de, validation.en: check the language codes" in text


def test_empty_training_file(project: Nmt) -> None:
    (project.folder / "corpus/train.en").write_text("")
    (project.folder / "corpus/train.de").write_text("")
    assert "corpus/train" in project.error("train", "tiny.toml")


def test_misaligned_files(project: Nmt) -> None:
    file = project.folder / "corpus/train.en"
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:150], *lines[151:]]))
    text = project.error("train", "tiny.toml")
    assert "299" in text
    assert "300" in text


def test_one_sided_blank_lines_are_dropped_and_counted(project: Nmt) -> None:
    file = project.folder / "corpus/train.en"
    lines = file.read_text().split("\n")
    lines[7] = ""
    lines[9] = "  \t"
    file.write_text("\n".join(lines))
    said = project("train", "tiny.toml", "--set", "training.max_steps=1").stderr
    assert "298 of 300 pairs kept" in said
    assert "dropped   2 (0.67%) blank source; first: train:8, train:10" in said


def test_invalid_utf8_in_training_data(project: Nmt) -> None:
    file = project.folder / "corpus/train.de"
    lines = file.read_bytes().split(b"\n")
    lines[41] = b"caf\xe9"
    file.write_bytes(b"\n".join(lines))
    assert "corpus/train.de:42: byte 4" in project.error("train", "tiny.toml")


def test_folder_in_place_of_a_file(project: Nmt) -> None:
    file = project.folder / "corpus/validation.en"
    file.unlink()
    file.mkdir()
    assert "corpus/validation.en" in project.error("train", "tiny.toml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(project: Nmt) -> None:
    (project.folder / "corpus/train.en").chmod(0)
    assert "corpus/train.en" in project.error("train", "tiny.toml")


def test_empty_validation(project: Nmt) -> None:
    for language in ("en", "de"):
        (project.folder / f"corpus/validation.{language}").write_text("")
    text = project.error("train", "tiny.toml")
    assert "corpus/validation" in text
    assert "empty" in text


def test_vocabulary_larger_than_the_corpus_allows(project: Nmt) -> None:
    text = project.error("train", "tiny.toml", "--set", "tokenizer.vocabulary_size=30000")
    assert "tokenizer.vocabulary_size = 30000" in text
    assert "or less" in text


def test_truncated_gzip(project: Nmt) -> None:
    file = project.folder / "corpus/train.en"
    packed = gzip.compress(file.read_bytes())
    file.unlink()
    (project.folder / "corpus/train.en.gz").write_bytes(packed[: len(packed) // 2])
    assert "corpus/train.en.gz" in project.error("train", "tiny.toml")


# Configuration


def test_unknown_key_names_file_line_and_neighbour(project: Nmt) -> None:
    replace(project.folder / "tiny.toml", "batch_tokens", "bacth_tokens")
    line = (project.folder / "tiny.toml").read_text().split("\n").index("bacth_tokens = 512") + 1
    text = project.error("train", "tiny.toml")
    assert text == f"nmt: tiny.toml:{line}: unknown key training.bacth_tokens; did you mean batch_tokens?"


def test_missing_configuration(nmt: Nmt) -> None:
    assert "nmt init" in nmt.error("train", "none.toml")


def test_run_folder_is_something_else(project: Nmt) -> None:
    (project.folder / "mine").mkdir()
    (project.folder / "mine/thesis.tex").write_text("precious")
    assert "thesis.tex" in project.error("train", "tiny.toml", "--run", "mine")
    assert (project.folder / "mine/thesis.tex").read_text() == "precious"
    assert "is a file" in project.error("train", "tiny.toml", "--run", "mine/thesis.tex")


def test_unknown_device(project: Nmt) -> None:
    assert "cuda:99" in project.error("train", "tiny.toml", "--set", "training.device=cuda:99")
    assert "nonsense" in project.error("train", "tiny.toml", "--set", "training.device=nonsense")


def test_unknown_option_and_command(nmt: Nmt) -> None:
    assert "--nonsense" in nmt.error("train", "x.toml", "--nonsense")
    assert "trian" in nmt.error("trian")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("translate --nonsense", "--nonsense"),
        ("translate", "'MODEL'; see nmt translate --help"),
        ("tokenizer encode --nonsense x", "--nonsense"),
        ("translate M in.txt out.txt", "(out.txt); perhaps you mean --output out.txt; see"),
        ("score M in.en in.de out.txt", "perhaps you mean --output out.txt; see"),
        ("train my.toml runs/other", "perhaps you mean --run runs/other; see"),
        ("evaluate M a.en a.de", "perhaps you mean --source a.en --reference a.de; see"),
        ("evaluate M a.de --source a.en", "(a.de); perhaps you mean --reference a.de; see"),
        ("heads M a.en a.de a.html", "perhaps you mean --output a.html; see"),
        ("info M N", "(N); see nmt info --help"),
        ("translate M a b c", "(b c); see nmt translate --help"),
    ],
)
def test_help_is_that_of_the_command(nmt: Nmt, given: str, said: str) -> None:
    text = nmt.error(*given.split())
    command = " ".join(given.split()[: 2 if given.startswith("tokenizer") else 1])
    assert said in text
    assert text.endswith(f"; see nmt {command} --help")


@pytest.mark.parametrize("command", ["translate", "score", "align", "attention", "heads"])
def test_text_before_the_model(nmt: Nmt, command: str) -> None:
    (nmt.folder / "in.txt").write_text("A dog.\n")
    (nmt.folder / "runs").mkdir()
    rest = ["in.txt"] if command in ("score", "align") else []
    text = nmt.error(command, "in.txt", "runs", *rest)
    assert text.endswith(f"the model comes first: nmt {command} runs in.txt")


# Training


def test_loss_that_is_not_finite(project: Nmt) -> None:
    options = ["--set", "training.learning_rate=1e30", "--set", "training.max_steps=40"]
    text = project.error("train", "tiny.toml", *options)
    assert "not finite" in text
    assert "training.learning_rate" in text
    # What was good before stays good, and what was not is no number in what others read.
    run = project.folder / RUN
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        project("info", checkpoint)


def test_disk_full(project: Nmt) -> None:
    """A file system of 3 MB takes the first checkpoints and then no more."""
    small = project.folder / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        options = ["--set", "training.keep_last=100", "--set", "training.max_steps=48"]
        text = project.error("train", "tiny.toml", "--run", "small/run", *options)
        assert "No space left on device" in text
        assert "run the same command to go on" in text
        assert "the last checkpoint is small/run/checkpoints/step-" in text
        whole = sorted((small / "run/checkpoints").glob("step-*"))
        assert whole
        for checkpoint in whole:
            project("info", checkpoint)
    finally:
        subprocess.run(["umount", small], check=True)


# Models


@pytest.fixture
def model(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be spoilt."""
    return Path(shutil.copytree(tiny_run / RUN / "best", tmp_path / "model"))


def test_model_that_is_none(nmt: Nmt, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert "holds no model" in nmt.error("translate", "empty")
    assert "is a file" in nmt.error("translate", "file")
    assert "no such model" in nmt.error("translate", "nothing")


def test_truncated_model(nmt: Nmt, model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model/model.safetensors: is not the file that was saved" in nmt.error("translate", model)


def test_changed_file(nmt: Nmt, model: Path) -> None:
    replace(model / "config.toml", "beam_size = 2", "beam_size = 3")
    assert "config.toml: is not the file that was saved" in nmt.error("info", model)


def test_missing_file(nmt: Nmt, model: Path) -> None:
    (model / "tokenizer.model").unlink()
    assert "tokenizer.model: is missing" in nmt.error("info", model)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "null"])
def test_damaged_manifest(nmt: Nmt, model: Path, content: str) -> None:
    (model / "manifest.json").write_text(content)
    assert "manifest.json: is damaged" in nmt.error("info", model)


def test_newer_format(nmt: Nmt, model: Path) -> None:
    replace(model / "manifest.json", '"format": 1', '"format": 2')
    text = nmt.error("info", model)
    assert "format 2" in text
    assert "upgrade nmt" in text


# Translation and evaluation


def test_translate_options(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    assert "--format jsonl" in nmt.error("translate", RUN, "--n-best", "3")
    assert "beam" in nmt.error("translate", RUN, "--n-best", "3", "--format", "jsonl")
    assert "xml" in nmt.error("translate", RUN, "--format", "xml")
    assert "none.txt" in nmt.error("translate", RUN, "none.txt")
    assert "corpus" in nmt.error("translate", RUN, "corpus")
    assert "folder" in nmt.error("translate", RUN, "--output", "nowhere/x", stdin=b"a\n")
    assert "cuda" in nmt.error("translate", RUN, "--device", "cuda:99")
    nmt("translate", RUN, "--beam-size", "0", expect=2)


def test_evaluate_options(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    en, de = "corpus/test.en", "corpus/test.de"
    assert "--reference" in nmt.error("evaluate", RUN, "--source", en)
    assert "--source" in nmt.error("evaluate", RUN, "--reference", de)
    assert "--system" in nmt.error("evaluate", "--reference", de)
    assert "300" in nmt.error("evaluate", RUN, "--source", "corpus/train.en", "--reference", de)
    assert "300" in nmt.error("evaluate", "--system", "x=corpus/train.de", "--reference", de)
    assert "NAME=FILE" in nmt.error("evaluate", "--system", "x", "--reference", de)
    assert "tokenize" in nmt.error("evaluate", "--system", f"x={de}", "--reference", de, "--tokenize", "12a")


def test_average_options(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    assert "not 50" in nmt.error("average", RUN, "--last", "50", "--output", tmp_path / "m")
    assert "no run" in nmt.error("average", "none", "--output", tmp_path / "m")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/letter").write_text("Dear")
    assert "no mean of" in nmt.error("average", RUN, "--last", "2", "--output", tmp_path / "precious")
    nmt("average", RUN, "--last", "2", "--output", tmp_path / "m")
    nmt("average", RUN, "--last", "1", "--output", tmp_path / "m")
    manifest = (tmp_path / "m/manifest.json").read_text()
    (tmp_path / "m/manifest.json").write_text(manifest.replace('"averaged"', '"other"'))
    assert "no mean of" in nmt.error("average", RUN, "--last", "2", "--output", tmp_path / "m")
    assert (tmp_path / "m/manifest.json").exists()


def test_a_file_that_takes_no_more(tiny_run: Path) -> None:
    said = Nmt(tiny_run).error("translate", RUN, "--output", "/dev/full", stdin=b"A dog.\n")
    assert said.startswith("nmt: /dev/full: cannot be written (No space left on device); make room")


@pytest.mark.slow
def test_a_standard_output_that_takes_no_more(tiny_run: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        run = Nmt(tiny_run).start(
            "translate", RUN, stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE
        )
        with run as process:
            _, said = process.communicate(b"A dog.\n")
    assert said.startswith(b"nmt: standard output: cannot be written (No space left on device); make room")
    assert said.count(b"\n") == 1
    assert process.returncode == 2


def test_standard_output_by_name(tiny_run: Path, tmp_path: Path) -> None:
    """Where a command writes there anyway; elsewhere it is refused, and there is no file of that name."""
    nmt = Nmt(tmp_path)
    run, corpus = tiny_run / RUN, tiny_run / "corpus"
    both = [corpus / "test.en", corpus / "test.de"]
    for command in (["translate", run, both[0]], ["score", run, *both], ["align", run, *both]):
        given = [*command, "--beam-size", 1] if command[0] == "translate" else command
        assert nmt(*given, "--output", "-").stdout == nmt(*given).stdout != b""
    for command in (
        ["average", run, "--output", "-"],
        ["export", run, "--output", "-"],
        ["evaluate", run, "--source", both[0], "--reference", both[1], "--output", "-"],
        ["evaluate", "--system", f"x={both[1]}", "--reference", both[1], "--sentences", "-"],
        ["tokenizer", "train", both[0], "--output", "-"],
        ["data", "synthesize", "--output", "-"],
        ["init", "-", "--source", both[0], "--target", both[1]],
        ["heads", run, both[0], "--output", "-"],
        ["report", run, "--output", "-"],
    ):
        assert " -" in nmt.error(*command)
    assert not list(tmp_path.iterdir())


def test_the_template_is_valid() -> None:
    from nmt.config_file import parse_config

    assert parse_config(TINY).training.max_steps == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Three updates are not finite, and skipped, before the first validation.
        (["learning_rate=1e20"], "validation after step 4: its loss is not finite"),
        (["learning_rate=1e5", "warmup_steps=0"], ": its "),  # loss or scores, as machines round
    ],
)
def test_a_validation_that_tells_of_a_model_past_mending(project: Nmt, changes: list[str], said: str) -> None:
    text = project.error("train", "tiny.toml", *(f"--set=training.{change}" for change in changes))
    assert said in text
    assert "lower training.learning_rate" in text
