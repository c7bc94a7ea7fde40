"""What is done with a trained model, a tokenizer and a corpus on disk, by the commands users type."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support import Nmt, prepare_folder

from nmt import __version__
from nmt.data.corpus import read_lines
from nmt.data.synthetic import SPLITS
from nmt.run import list_checkpoints

RUN = "runs/tiny"
COMMANDS = [
    "init",
    "config",
    "train",
    "translate",
    "evaluate",
    "score",
    "info",
    "average",
    "export",
    "align",
    "attention",
    "heads",
    "report",
    "tokenizer",
    "data",
]

# The command line itself


def test_help_and_version(nmt: Nmt) -> None:
    text = nmt("--help").stdout.decode()
    assert [
        line.split()[0] for line in text.partition("Commands:\n")[2].split("\n")[: len(COMMANDS)]
    ] == COMMANDS
    assert "Exit codes" in text
    for command in COMMANDS:
        assert f"{command} " in nmt(command, "--help").lines[0]
    for group, commands in {
        "tokenizer": ["train", "encode", "decode"],
        "data": ["list", "get", "check", "synthesize"],
    }.items():
        for command in commands:
            assert "--help" in nmt(group, command, "--help").stdout.decode()
    assert nmt("--version").stdout == f"nmt {__version__}\n".encode()


def test_commands_that_are_none(nmt: Nmt) -> None:
    assert "'translat'" in nmt.error("translat")
    assert "MODEL" in nmt.error("info")
    assert "--nonsense" in nmt.error("info", "--nonsense")
    assert "no such model" in nmt.error("info", "absent")
    assert "Usage" in nmt(expect=2).stderr


# nmt average


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_average_is_the_mean_of_the_last_checkpoints(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    done = nmt("average", RUN, "--last", "2", "--output", tmp_path / "mean")
    assert done.stderr.endswith("mean of steps 8, 12\n")
    chosen = [c.folder for c in list_checkpoints(tiny_run / RUN) if c.step in (8, 12)]
    first, second = map(weights_in, chosen)
    mean = weights_in(tmp_path / "mean")
    assert mean.keys() == first.keys()
    for name in mean:
        assert torch.equal(mean[name], ((first[name].double() + second[name].double()) / 2).float())
        assert mean[name].dtype == torch.float32
    assert any(not torch.equal(mean[name], second[name]) for name in mean)

    manifest = json.loads((tmp_path / "mean" / "manifest.json").read_text())
    assert manifest["averaged"] == [8, 12]
    assert manifest["step"] == 12
    assert not (tmp_path / "mean" / "training_state.pt").exists()
    assert "trained: mean of steps 8, 12" in nmt("info", tmp_path / "mean").stdout.decode()
    assert len(nmt("translate", tmp_path / "mean", "corpus/test.en").lines) == 40
    # Once more into the same folder: replaced.
    nmt("average", RUN, "--last", "1", "--output", tmp_path / "mean")
    assert all(torch.equal(tensor, second[name]) for name, tensor in weights_in(tmp_path / "mean").items())


def test_average_leaves_out_the_checkpoint_of_an_interruption(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / RUN, tmp_path / "run", symlinks=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-00000012", checkpoints / "step-00000013")
    manifest = checkpoints / "step-00000013" / "manifest.json"
    changed = json.loads(manifest.read_text()) | {"step": 13, "scheduled": False, "scores": {}}
    manifest.write_text(json.dumps(changed))
    Nmt(tmp_path)("average", "run", "--last", "2", "--output", "mean")
    assert json.loads((tmp_path / "mean" / "manifest.json").read_text())["averaged"] == [8, 12]


def test_average_refuses(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    count = len(list_checkpoints(tiny_run / RUN))
    message = nmt.error("average", RUN, "--output", tmp_path / "mean")
    assert f"has {count} checkpoints, not 5; use --last {count}" in message
    assert "is no run folder" in nmt.error("average", "absent", "--output", tmp_path / "mean")
    assert "--last" in nmt.error("average", RUN, "--last", "0", "--output", tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert "is no mean of checkpoints" in nmt.error("average", RUN, "--last", "2", "--output", "corpus")
    inside = f"{RUN}/checkpoints/step-00000012"
    assert "is a checkpoint of a run" in nmt.error("average", RUN, "--last", "2", "--output", inside)
    assert "is a checkpoint of a run" in nmt.error("average", RUN, "--last", "2", "--output", f"{RUN}/best")


# nmt info


def test_info(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    document = json.loads(nmt("info", RUN, "--json").stdout)
    counts = dict(document["parameters"])
    total = counts.pop("total")
    assert sum(counts.values()) == total
    stored = sum(tensor.numel() for tensor in weights_in(tiny_run / RUN / "best").values())
    assert total == stored
    assert document["languages"] == ["en", "de"]
    assert document["vocabularies"] == [400, 400]
    assert document["config"]["model"]["width"] == 32
    assert document["manifest"]["scores"].keys() == {"loss", "perplexity", "bleu"}

    text = nmt("info", RUN).stdout.decode()
    for part, count in document["parameters"].items():
        assert any(line.split() == [part, f"{count:,}"] for line in text.split("\n"))
    assert "en to de" in text
    assert "transformer: " in text
    assert "vocabulary: 400 shared, bpe" in text
    sha256 = hashlib.sha256((tiny_run / "corpus" / "train.en").read_bytes()).hexdigest()
    assert f"trained on corpus/train.en (sha256 {sha256[:12]}...)" in text


def test_info_of_a_checkpoint_and_of_the_run_that_names_it(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    best = json.loads(nmt("info", RUN, "--json").stdout)
    assert best["folder"] == f"{RUN}/best"
    step = best["manifest"]["step"]
    same = json.loads(nmt("info", f"{RUN}/checkpoints/step-{step:08d}", "--json").stdout)
    assert same | {"folder": ""} == best | {"folder": ""}


# nmt tokenizer

HOSTILE = [
    "The dog sees the old house.",
    "",
    " ",
    "  two  blanks  ",
    "a\u2028b\u2029c\u0085d \x0b\x0c\x1c",
    "nul\0nul\ttab",
    "a\rb",
    "😀👩‍👩‍👧‍👦 שלום 漢字 e\u0301\u200b",
    "▁under▁ ▁",
    "<s> </s> <pad> <unk> <0x0A>",
    "5 17 -1",
    "x" * 300,
]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_tokenizer_round_trip(tiny_run: Path, tmp_path: Path, kind: str) -> None:
    nmt = Nmt(tmp_path)
    corpus = [tiny_run / "corpus" / "train.en", tiny_run / "corpus" / "train.de"]
    done = nmt(
        "tokenizer", "train", *corpus, "--output", "new/t.model", "--type", kind, "--vocabulary-size=400"
    )
    entries = int(done.stderr.split()[-2])
    assert entries == 400 if kind != "char" else 260 < entries <= 400
    text = "".join(f"{line}\n" for line in HOSTILE).encode()
    (tmp_path / "text").write_bytes(text)
    pieces = nmt("tokenizer", "encode", "new/t.model", "text").stdout
    assert pieces == nmt("tokenizer", "encode", "new/t.model", stdin=text).stdout
    assert nmt("tokenizer", "decode", "new/t.model", stdin=pieces).stdout == text
    ids = nmt("tokenizer", "encode", "new/t.model", "--ids", stdin=text)
    assert nmt("tokenizer", "decode", "new/t.model", "--ids", stdin=ids.stdout).stdout == text
    assert all(0 <= int(word) < entries for line in ids.lines for word in line.split())
    assert [len(a.split(" ")) for a in ids.lines] == [
        len(b.split(" ")) for b in pieces.decode().split("\n")[:-1]
    ]


def test_tokenizer_of_words(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tmp_path)
    nmt("tokenizer", "train", tiny_run / "corpus" / "train.en", "--output", "w.model", "--type", "word")
    assert nmt("tokenizer", "encode", "w.model", stdin=b"The dog qqq\n").lines == ["▁The ▁dog <unk>"]
    ids = nmt("tokenizer", "encode", "w.model", "--ids", stdin=b"The dog qqq\n").stdout
    assert nmt("tokenizer", "decode", "w.model", "--ids", stdin=ids).lines == ["The dog <unk>"]


def test_tokenizer_of_a_model_is_one(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    pieces = nmt("tokenizer", "encode", f"{RUN}/best/tokenizer.model", stdin=b"The dog.\n").stdout
    assert nmt("tokenizer", "decode", f"{RUN}/best/tokenizer.model", stdin=pieces).lines == ["The dog."]


@pytest.mark.parametrize("wrong", ["400", "-1", "x", "1.5", "²", "99999999999999999999"])
def test_what_is_no_id_is_refused_after_the_lines_before_it(tiny_run: Path, wrong: str) -> None:
    given = ["tokenizer", "decode", f"{RUN}/best/tokenizer.model", "--ids"]
    done = Nmt(tiny_run)(*given, stdin=f"399\n5 {wrong}\n7\n".encode(), expect=2)
    assert len(done.lines) == 1
    assert (
        done.stderr
        == f"nmt: <stdin>:2: {wrong} is no id of this tokenizer (0 to 399); drop --ids for pieces\n"
    )


def test_tokenizer_refuses(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    train = ["tokenizer", "train", "corpus/train.en", "--output", tmp_path / "t.model"]
    assert "use bpe, unigram, word or char" in nmt.error(*train, "--type", "wordpiece")
    assert "is not between 0.98 and 1" in nmt.error(*train, "--character-coverage", "0.5")
    assert "set it to 360 or more" in nmt.error(*train, "--vocabulary-size", "100")
    assert "or less" in nmt.error(*train, "--vocabulary-size", "400000")
    assert not (tmp_path / "t.model").exists()
    assert "no such tokenizer model" in nmt.error("tokenizer", "encode", tmp_path / "t.model")
    assert "not a SentencePiece model" in nmt.error("tokenizer", "encode", "corpus/train.en")


@pytest.mark.parametrize("files", [["absent.en"], ["train.en", "absent.en"], ["bad.en"]])
def test_text_that_cannot_be_read_is_named(tiny_run: Path, tmp_path: Path, files: list[str]) -> None:
    text = (tiny_run / "corpus" / "train.en").read_bytes()
    (tmp_path / "train.en").write_bytes(text)
    (tmp_path / "bad.en").write_bytes(text + b"caf\xe9\n")
    train = ["tokenizer", "train", *files, "--output", "t.model", "--vocabulary-size", "400"]
    message = Nmt(tmp_path).error(*train)
    assert message.startswith(f"nmt: {files[-1]}:")
    assert not (tmp_path / "t.model").exists()


def test_decoding_gives_a_line_for_a_line(tiny_run: Path) -> None:
    given = ["tokenizer", "decode", f"{RUN}/best/tokenizer.model"]
    assert len(Nmt(tiny_run)(*given, stdin=b"a <0x0A> b\n").lines) == 1


# nmt data


def test_data_list(nmt: Nmt) -> None:
    text = nmt("data", "list").lines
    document: list[dict[str, Any]] = json.loads(nmt("data", "list", "--json").stdout)
    assert [line.split()[0] for line in text[1:]] == [corpus["name"] for corpus in document]
    multi30k = next(corpus for corpus in document if corpus["name"] == "multi30k")
    assert multi30k["languages"] == ["en", "de", "fr"]
    assert multi30k["files"][0].keys() >= {"name", "url", "sha256", "split", "language", "bytes"}


def describe(folder: Path) -> None:
    """`mine.toml` of a corpus in two languages, whose files are in `mirror`."""
    (folder / "mirror").mkdir()
    text = 'name = "mine"\ndescription = "d"\nhomepage = "h"\nlicence = "l"\nlanguages = ["en", "de"]\n'
    for language in ("en", "de"):
        content = f"text in {language}\n".encode()
        (folder / "mirror" / f"train.{language}").write_bytes(content)
        text += (
            f'[[files]]\nname = "train.{language}"\nsplit = "train"\nlanguage = "{language}"\n'
            f'url = "http://127.0.0.1:9/"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        )
    (folder / "mine.toml").write_text(text)


def test_data_get_from_a_mirror(nmt: Nmt) -> None:
    describe(nmt.folder)
    get = ["data", "get", "mine.toml", "--mirror", "mirror", "--output"]
    done = nmt(*get, "new/all")
    assert done.stdout == b""
    assert done.stderr == "train.en\ntrain.de\nnew/all: 2 files, all as they should be\n"
    for language in ("en", "de"):
        name = f"train.{language}"
        assert (nmt.folder / "new" / "all" / name).read_bytes() == (nmt.folder / "mirror" / name).read_bytes()
    nmt(*get, "german", "--language", "de")
    assert sorted(p.name for p in (nmt.folder / "german").iterdir() if p.name != ".lock") == ["train.de"]

    assert "no files in fr; choose from en, de" in nmt.error(*get, "french", "--language", "fr")
    (nmt.folder / "mirror" / "train.de").write_text("something else\n")
    assert "is not the expected file" in nmt.error(*get, "wrong")
    assert not (nmt.folder / "wrong" / "train.de").exists()
    assert "did you mean multi30k" in nmt.error("data", "get", "multi30", "--mirror", "mirror")


def test_data_get_of_a_description_goes_to_the_folder_of_its_name(nmt: Nmt) -> None:
    describe(nmt.folder)
    nmt("data", "get", nmt.folder / "mine.toml", "--mirror", "mirror")
    assert (nmt.folder / "corpora" / "mine" / "train.de").exists()


def test_data_check(nmt: Nmt) -> None:
    nmt("data", "synthesize", "--output", "corpus", "--train", "30", "--held-out", "5")
    clean = nmt("data", "check", "corpus/train", "--held-out", "corpus/test")
    assert clean.lines[-1] == "preparation keeps 30 of 30 pairs"
    both = ["--source", "corpus/train.en", "--target", "corpus/train.de"]
    assert nmt("data", "check", *both).stdout == nmt("data", "check", "corpus/train").stdout
    document = json.loads(nmt("data", "check", *both, "--json").stdout)
    assert (document["source_lines"], document["pairs_kept"], document["findings"]) == (30, 30, [])

    # A test set in the training text is a warning.
    overlap = nmt("data", "check", "corpus/train", "--held-out", "corpus/train").stdout.decode()
    assert "warning: 30 " in overlap
    # One line more and a byte that is no UTF-8 are errors.
    with (nmt.folder / "corpus" / "train.en").open("ab") as file:
        file.write(b"caf\xe9\n")
    done = nmt("data", "check", "corpus/train", expect=2)
    assert "error: 1 invalid UTF-8" in done.stdout.decode()
    assert "corpus/train.en:31" in done.stdout.decode()
    assert done.lines[-1] == "preparation would refuse these files"
    assert done.stderr == ""
    document = json.loads(nmt("data", "check", "corpus/train", "--json", expect=2).stdout)
    errors = [finding["kind"] for finding in document["findings"] if finding["severity"] == "error"]
    assert "invalid UTF-8" in errors
    assert len(errors) == 2


def test_data_check_of_other_languages_and_of_one_file(nmt: Nmt) -> None:
    (nmt.folder / "t.fr").write_text("un chien\nun chat\n")
    (nmt.folder / "t.it").write_text("un cane\nun gatto\n")
    given = ["--source-language", "fr", "--target-language", "it"]
    assert nmt("data", "check", "t", *given).lines[-1] == "preparation keeps 2 of 2 pairs"
    (nmt.folder / "t.tsv").write_text("un chien\tun cane\nun chat\tun gatto\n")
    assert nmt("data", "check", "t.tsv").lines[-1] == "preparation keeps 2 of 2 pairs"
    for wrong in ([], ["t", "t"], ["--source", "t.fr"], ["t", "--source", "t.fr", "--target", "t.it"]):
        assert "name one PREFIX, or both --source FILE and --target FILE" in nmt.error(
            "data", "check", *wrong
        )
    assert "t.en" in nmt.error("data", "check", "t")


def test_data_synthesize(nmt: Nmt) -> None:
    sizes = ["--train", "20", "--held-out", "7"]
    done = nmt("data", "synthesize", "--output", "a", *sizes)
    assert done.stderr == "a: 12 files, 41 pairs\n"
    for split in SPLITS:
        for suffix in ("en", "de", "align"):
            lines = list(read_lines(nmt.folder / "a" / f"{split}.{suffix}"))
            assert len(lines) == (20 if split == "train" else 7)
    nmt("data", "synthesize", "--output", "b", *sizes)
    nmt("data", "synthesize", "--output", "c", *sizes, "--seed", "2")
    text = [(nmt.folder / folder / "train.en").read_bytes() for folder in "abc"]
    assert text[0] == text[1] != text[2]
    assert "--train" in nmt.error("data", "synthesize", "--output", "d", "--train", "0")


def test_weights_that_are_no_numbers(tiny_run: Path, tmp_path: Path) -> None:
    """Told by name when the model is loaded, however the file's sum was made to fit."""
    folder = tmp_path / "model"
    shutil.copytree((tiny_run / RUN / "best").resolve(), folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = sorted(weights)[1]
    weights[name].view(-1)[-1] = float("nan")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "model.safetensors").read_bytes()
    manifest["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    error = Nmt(tmp_path).error("translate", folder, stdin=b"a\n")
    assert f"model.safetensors: has what is no number (1 tensors, the first is {name})" in error


def test_a_precision_for_another_device_is_for_search_alone(nmt: Nmt) -> None:
    """It is trained, validated and aligned with; only search says that it cannot be had here."""
    prepare_folder(nmt.folder)
    short = ("training.max_steps=4", "training.validate_every=2", 'search.precision="float16"')
    nmt(
        "train",
        "tiny.toml",
        "--set",
        short[0],
        "--set",
        short[1],
        "--set",
        short[2],
        "--set",
        "training.device=cpu",
    )
    test = ("corpus/test.en", "corpus/test.de")
    assert len(nmt("align", RUN, *test).lines) == 40
    assert len(nmt("score", RUN, *test).lines) == 40
    for command in (
        ["translate", RUN, test[0]],
        ["evaluate", RUN, "--source", test[0], "--reference", test[1]],
    ):
        assert "precision float16 is for GPUs" in nmt.error(*command, "--device", "cpu")
        nmt(*command, "--device", "cpu", "--precision", "float32")


@pytest.mark.slow
def test_a_standard_input_that_is_closed(tiny_run: Path) -> None:
    command = [sys.executable, "-P", "-c", "from nmt.cli.main import main; main()", "translate", RUN]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        cwd=tiny_run,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "nmt: standard input is closed; name a file"


PROGRAM = [sys.executable, "-P", "-c", "from nmt.cli.main import main; main()"]
CLOSED = "nmt: standard output is closed; open it, or name a file to write to"


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "said"),
    [
        (">&-", ["--version"], 2, CLOSED),
        (">&-", ["tokenizer", "encode", "t.model"], 2, CLOSED),
        (
            ">&-",
            ["data", "synthesize", "--output", "new", "--train", "3", "--held-out", "3"],
            0,
            "new: 12 files, ",
        ),
        ("2>&-", ["--version"], 0, ""),
        ("2>&-", ["info", "nothing"], 2, ""),
        (">&- 2>&-", ["data", "synthesize", "--output", "new", "--train", "3", "--held-out", "3"], 0, ""),
    ],
)
def test_streams_that_are_closed(
    tiny_run: Path, tmp_path: Path, closed: str, arguments: list[str], code: int, said: str
) -> None:
    shutil.copy(tiny_run / "runs/tiny/best/tokenizer.model", tmp_path / "t.model")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *arguments],
        cwd=tmp_path,
        input="a line\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(said) or None].strip()) == (code, said.strip())
    assert (tmp_path / "new").exists() == ("new" in arguments)


def test_a_tokenizer_is_not_written_over_its_text(tmp_path: Path) -> None:
    text = "".join(f"{line}\n" for line in range(1000))
    (tmp_path / "t.en").write_text(text)
    assert "t.en: is the input too" in Nmt(tmp_path).error("tokenizer", "train", "t.en", "--output", "t.en")
    assert (tmp_path / "t.en").read_text() == text


def test_a_tokenizer_speaks_of_options(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("a line of text\n")
    train = ("tokenizer", "train", "t.en", "--output", "t.model", "--vocabulary-size")
    assert "nmt: --vocabulary-size = 200 leaves no room" in Nmt(tmp_path).error(*train, 200)
    assert "nmt: --vocabulary-size = 9000 is more than the corpus" in Nmt(tmp_path).error(*train, 9000)


def test_lines_that_sentencepiece_passes_over(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("word " * 20_000 + "\n")
    said = Nmt(tmp_path).error("tokenizer", "train", "t.en", "--output", "t.model", "--vocabulary-size", 400)
    assert "each of 1 line has more than 65,536 bytes, which SentencePiece passes over; cut them" in said


def test_ids_of_thousands_of_digits(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("9" * 5000 + "\n")
    model = tiny_run / "runs/tiny/best/tokenizer.model"
    assert "ids:1: 999" in Nmt(tmp_path).error("tokenizer", "decode", model, "ids", "--ids")
