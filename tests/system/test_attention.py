"""nmt attention and nmt heads, as a user types them; test_attention_page.py has the page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib import image
from support import TINY, Nmt

RUN = "runs/tiny"
TEXT = ("corpus/test.en", "corpus/test.de")


@pytest.fixture(scope="module")
def recurrent(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        tiny_run, tmp_path_factory.mktemp("recurrent"), "recurrent", "hidden_width = 8\nlayers = 1\n"
    )


@pytest.fixture(scope="module")
def bahdanau(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = "hidden_width = 8\nattention_width = 8\nmaxout_width = 8\n"
    return train(tiny_run, tmp_path_factory.mktemp("bahdanau"), "bahdanau", sizes)


def train(tiny_run: Path, folder: Path, architecture: str, sizes: str) -> Path:
    config = TINY.replace(TINY[TINY.index("[model]") : TINY.index("[training]")], "")
    model = f'\n[model]\narchitecture = "{architecture}"\nembedding_width = 8\n{sizes}'
    (folder / "a.toml").write_text(config + model)
    Nmt(tiny_run)("train", folder / "a.toml", "--run", folder / "run")
    return folder / "run"


# nmt attention


def test_a_page(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    done = nmt("attention", RUN, *TEXT, "--output", tmp_path / "new" / "a.html")
    assert done.stdout == b""
    assert "a.html: 40 sentences, " in done.stderr
    page = (tmp_path / "new" / "a.html").read_text()
    assert page.count('"line":') == 40
    # The model's own translations, of some.
    done = nmt("attention", RUN, TEXT[0], "--max-sentences", "3", "--output", tmp_path / "b.html")
    assert "the first 3 of 40 sentences; raise --max-sentences" in done.stderr
    page = (tmp_path / "b.html").read_text()
    assert page.count('"line":') == 3
    # One line, and what is seen first.
    options = ["--line", "4", "--type", "encoder", "--layer", "1", "--head", "2", "--merge-words"]
    nmt("attention", RUN, *TEXT, *options, "--output", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text()
    assert '"line":4' in page
    assert '"state":{"kind":"encoder","layer":1,"head":2,"words":true}' in page
    # The same page from the same command.
    nmt("attention", RUN, *TEXT, *options, "--output", tmp_path / "d.html")
    assert (tmp_path / "d.html").read_text() == page


def test_standard_input_and_blank_lines(tiny_run: Path, tmp_path: Path) -> None:
    text = b"\nA dog.\n \nA woman.\n"
    Nmt(tiny_run)("attention", RUN, "-", "--output", tmp_path / "a.html", stdin=text)
    page = (tmp_path / "a.html").read_text()
    assert ('"line":2' in page, '"line":4' in page, page.count('"line":')) == (True, True, 2)


def test_a_sentence_that_is_too_long_is_left_out(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("A dog.\n" + "x" * 10_000 + "\n")
    done = Nmt(tiny_run)("attention", RUN, tmp_path / "s", "--output", tmp_path / "a.html")
    assert "s:2: the pair is too long for the model; left out" in done.stderr
    (tmp_path / "s").write_text("x" * 10_000 + "\n")
    message = Nmt(tiny_run).error("attention", RUN, tmp_path / "s", "--output", tmp_path / "b.html")
    assert "every sentence is too long" in message


@pytest.mark.slow
def test_a_picture(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    done = nmt("attention", RUN, *TEXT, "--line", "3", "--output", tmp_path / "a.png")
    assert "a.png: line 3, attention over the source, mean of layers, mean of heads" in done.stderr
    assert min(image.imread(tmp_path / "a.png").shape[:2]) > 100
    options = ["--type", "decoder", "--layer", "1", "--head", "2"]
    nmt("attention", RUN, TEXT[0], *options, "--output", tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_bytes()
    assert ElementTree.fromstring(drawn).tag.endswith("}svg")
    for name, other in (("b", ["--head", "1"]), ("c", ["--merge-words"]), ("d", ["--type", "encoder"])):
        nmt("attention", RUN, TEXT[0], *options, *other, "--output", tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").read_bytes() != drawn


def test_an_attention_that_there_is_one_of(bahdanau: Path, tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    nmt("attention", bahdanau, *TEXT, "--layer", "1", "--output", tmp_path / "a.html")
    assert '"encoder":{' not in (tmp_path / "a.html").read_text()
    message = nmt.error("attention", bahdanau, *TEXT, "--type", "encoder", "--output", tmp_path / "b.html")
    assert '"bahdanau" has no encoder self-attention; use --type cross' in message
    found = json.loads(nmt("heads", bahdanau, *TEXT, "--json").stdout)["heads"]
    assert [(head["kind"], head["layer"], head["head"]) for head in found] == [("cross", 1, 1)]
    assert "leave out --importance" in nmt.error("heads", bahdanau, *TEXT, "--importance")


@pytest.mark.parametrize("command", ["attention", "heads"])
def test_a_model_without_attention(recurrent: Path, tiny_run: Path, tmp_path: Path, command: str) -> None:
    output = ["--output", tmp_path / "a.html"]
    message = Nmt(tiny_run).error(command, recurrent, *TEXT, *output)
    assert 'model.architecture = "recurrent" has no attention over the source' in message
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("command", ["attention", "heads"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent.en", "absent.en: no such file"),
        ("empty", "empty: holds no sentence; give a file with text"),
        ("blank", "blank: holds no sentence; give a file with text"),
        ("- -", "cannot both be standard input"),
        ("corpus/test.en corpus/train.de", "40 lines, but corpus/train.de has 300"),
        ("corpus/test.en empty", "empty: the file is empty beside 40 lines in corpus/test.en"),
        ("corpus/test.en --output a.jpg", "use .html, .png, .svg or .pdf"),
        ("corpus/test.en --output corpus", "the format is not known"),
        ("corpus/test.en --output folder.html", "folder.html: is a folder"),
        ("text.html --output text.html", "text.html: is an input too"),
    ],
)
def test_refuses(tiny_run: Path, tmp_path: Path, command: str, given: str, message: str) -> None:
    refused(tiny_run, tmp_path, command, given, message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("corpus/test.en --line 41", "corpus/test.en: has no line 41; choose another --line"),
        ("mixed --line 2", "mixed:2: is blank; choose another --line"),
        ("corpus/test.en --type x", "--type x is not known; use encoder, decoder or cross"),
        ("corpus/test.en --head 1", "--head 1 needs --layer"),
        ("corpus/test.en --layer mean --head 1", "--head 1 needs --layer"),
        ("corpus/test.en --layer 0", "--layer 0 is not a number from 1, nor mean"),
        ("corpus/test.en --layer ²", "--layer ² is not a number from 1, nor mean"),
        ("corpus/test.en --layer 2", "no attention layer 2; leave it out"),
        ("corpus/test.en --layer 1 --head 3", "no attention head 3; choose 1 to 2"),
    ],
)
def test_attention_refuses(tiny_run: Path, tmp_path: Path, given: str, message: str) -> None:
    refused(tiny_run, tmp_path, "attention", given, message)


def refused(tiny_run: Path, folder: Path, command: str, given: str, message: str) -> None:
    (folder / "corpus").symlink_to(tiny_run / "corpus")
    (folder / "empty").touch()
    (folder / "blank").write_text("\n \n")
    (folder / "mixed").write_text("A dog.\n\n")
    (folder / "text.html").write_text("A dog.\n")
    (folder / "folder.html").mkdir()
    before = {path.name for path in folder.iterdir()}
    assert message in Nmt(folder).error(command, tiny_run / RUN, *given.split())
    assert {path.name for path in folder.iterdir()} == before
    assert (folder / "text.html").read_text() == "A dog.\n"


# nmt heads


def test_heads(tiny_run: Path) -> None:
    nmt = Nmt(tiny_run)
    lines = nmt("heads", RUN, *TEXT).lines
    assert lines[0].split()[:4] == ["attention", "layer", "head", "entropy"]
    names = [("encoder", 1), ("encoder", 2), ("decoder", 1), ("decoder", 2), ("cross", 1), ("cross", 2)]
    assert [(line.split()[0], int(line.split()[2])) for line in lines[1:7]] == names
    assert [line.split(":")[0] for line in lines[7:12]] == [
        *("most positional", "most rare words", "most copying", "most induction", "most confidence")
    ]
    # Every column that is shown is explained, in that order.
    columns = re.split(r"  +", lines[0])[3:]
    assert [name for line in lines[12:] for name in line.split(": ")[0].split(", ")] == columns
    found = json.loads(nmt("heads", RUN, *TEXT, "--json").stdout)
    assert found["sentences"] == 40
    by_table = [line.split()[3] for line in lines[1:7]]
    assert by_table == [f"{head['entropy']:.2f}" for head in found["heads"]]
    best = found["ranking"]["induction"][0]
    scores = {(h["kind"], h["head"]): h["induction"] for h in found["heads"] if h["induction"] is not None}
    assert max(scores, key=lambda name: scores[name]) == (best["kind"], best["head"])
    assert f"most induction: {best['kind']} layer 1, head {best['head']} (" in "\n".join(lines)
    assert 0 < found["spread_evenly"]["decoder"]["induction"] < 1
    order = nmt("heads", RUN, *TEXT, "--sort", "induction").lines[1:7]
    assert [(line.split()[0], int(line.split()[2])) for line in order[:4]] == sorted(
        scores, key=lambda name: -scores[name]
    )
    # What is rare is another thing by the counts of another text, and nothing else is.
    counted = json.loads(nmt("heads", RUN, *TEXT, "--training", "corpus/train.en", "--json").stdout)
    for one, two in zip(found["heads"], counted["heads"], strict=True):
        assert {**one, "rare": 0} == {**two, "rare": 0}
    assert [h["rare"] for h in found["heads"][:2]] != [h["rare"] for h in counted["heads"][:2]]


def test_importance(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    small = []
    for path in TEXT:
        lines = (tiny_run / path).read_text().split("\n")[:4]
        small.append(tmp_path / Path(path).name)
        small[-1].write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")
    given = ["heads", RUN, *small, "--importance"]
    found = json.loads(nmt(*given, "--reference", small[1], "--json").stdout)
    assert all(head["loss_without"] > 0 and head["bleu_without"] >= 0 for head in found["heads"])
    assert len({head["loss_without"] for head in found["heads"]}) == 6
    for column, key, sign in (("loss", "loss_without", -1), ("BLEU", "bleu_without", 1)):
        given_order = [*given, "--reference", small[1], "--sort", column, "--json"]
        values = [sign * head[key] for head in json.loads(nmt(*given_order).stdout)["heads"]]
        assert values == sorted(values)
    lines = nmt(*given).lines
    assert lines[0].split()[-1] == "loss"
    assert any(line.startswith("most important: ") for line in lines)
    assert lines[-1].startswith("loss: ")  # what a column is
    (with_bleu,) = (
        line for line in nmt(*given, "--reference", small[1]).lines if line.startswith("BLEU with")
    )
    assert with_bleu.startswith(f"BLEU with all heads: {found['bleu']:.2f} ({small[1]}, 4 sentences, model:")
    assert with_bleu.endswith(f"{found['model_hash']}; {found['bleu_signature']})")
    assert "|tok:13a|" in found["bleu_signature"]
    described = json.loads(nmt("info", RUN, "--json").stdout)
    assert found["model_hash"] == described["model_sha256"][:12]
    nmt(*given, "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert found["model_hash"] in page
    # A cell of the last column has the colour of harm where the loss is higher without the head.
    cells = re.findall(r"<tr>.*?(<td[^>]*>)[^<]*</td></tr>", page)
    assert len(cells) == 6
    for head, cell in zip(found["heads"], cells, strict=True):
        colour = "worse" if head["loss_without"] > found["loss"] else "better"
        assert re.fullmatch(f'<td class=(s0|"s[0-9]+ {colour}")>', cell)
    assert sum("worse" in cell for cell in cells) > 1
    worst = max(found["heads"], key=lambda head: head["loss_without"])
    assert f"{worst['kind']} layer 1, head {worst['head']} " in "\n".join(lines[7:])
    rise = worst["loss_without"] - found["loss"]
    (row,) = [r.split() for r in lines[1:7] if r.split()[:3] == [worst["kind"], "1", str(worst["head"])]]
    assert float(row[-1]) == pytest.approx(rise, abs=0.00051)


@pytest.mark.parametrize("suffix", [pytest.param("png", marks=pytest.mark.slow), "html"])
def test_heads_are_drawn(tiny_run: Path, tmp_path: Path, suffix: str) -> None:
    nmt = Nmt(tiny_run)
    for name in "ab":
        done = nmt("heads", RUN, *TEXT, "--max-sentences", "5", "--output", tmp_path / f"{name}.{suffix}")
        assert f"{name}.{suffix}: 6 heads" in done.stderr
        assert len(done.lines) > 6
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("corpus/test.en --reference corpus/test.de", "--reference goes with --importance; add that"),
        (
            "corpus/test.en --importance --reference corpus/train.de",
            "train.de: has 300 lines and corpus/test.en",
        ),
        ("corpus/test.en --importance --reference absent", "absent: no such file"),
        ("corpus/test.en --sort x", "--sort x is no column; use entropy, "),
        ("corpus/test.en --sort loss", "--sort loss is no column"),
        ("corpus/test.en --training empty", "empty: holds no text; give the training text"),
    ],
)
def test_heads_refuses(tiny_run: Path, tmp_path: Path, given: str, message: str) -> None:
    refused(tiny_run, tmp_path, "heads", given, message)
