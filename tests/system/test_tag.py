"""nmt translate --tag: what training put before sources of one corpus comes before those to translate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import Nmt, prepare_folder

from nmt.attention_maps import attention_maps, ids_of, make_pairs, words_of
from nmt.checkpoint import load_model
from nmt.data.corpus import read_lines
from nmt.evaluation import perplexity
from nmt.forced import attention, log_probabilities
from nmt.head_analysis import analyse
from nmt.scoring import Scorer
from nmt.translator import Translator

LINES = ["A man.", "", "Two dogs run in the snow, and a child looks at them.", "<back> is text here"]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for a few steps with two tags, `runs/tagged`; one without, `runs/plain`."""
    folder = tmp_path_factory.mktemp("tag")
    prepare_folder(folder)
    nmt = Nmt(folder)
    options = ["--set", "training.max_steps=6", "--set", "training.validate_every=6"]
    two = ["--set", 'data.train=["corpus/train", "corpus/validation"]']
    tags = [*two, "--set", 'data.tags=["<a>", "<back>"]', "--set", "search.tag=<a>"]
    # A length that does not depend on the source, so that a token more of it changes no limit.
    tags += ["--set", "search.max_length_factor=0.0"]
    nmt("train", "tiny.toml", "--run", "runs/tagged", *options, *tags)
    nmt("train", "tiny.toml", "--run", "runs/plain", *options)
    return folder


def records(nmt: Nmt, *options: object) -> list[dict[str, object]]:
    found = nmt("translate", "runs/tagged", "--format", "jsonl", *options, stdin=TEXT)
    return [json.loads(line) for line in found.lines]


def test_it_is_the_first_token_that_is_read(folder: Path) -> None:
    nmt = Nmt(folder)
    loaded = load_model(folder / "runs/tagged")
    search = loaded.config.search
    assert search.tag == "<a>"
    plain = Translator.of(loaded, search.model_copy(update={"tag": ""}))
    encoded = loaded.source_tokenizer.encode_all(LINES)
    for options, tag in (([], "<a>"), (["--tag", "<back>"], "<back>"), (["--tag", ""], "")):
        first = [loaded.source_tokenizer.id_of(tag)] if tag else []
        found = records(nmt, *options)
        expected = plain.translate_ids([[*first, *ids] for ids in encoded if ids])
        spoken = [record["translations"][0] for record in found if record["source"]]  # type: ignore[index]
        assert [r["log_probability"] for r in spoken] == pytest.approx(
            [hypotheses[0].log_probability for hypotheses in expected], rel=1e-5
        )
    scores = [
        [r["translations"][0]["score"] for r in records(nmt, "--tag", tag)] for tag in ("<a>", "<back>")
    ]  # type: ignore[index]
    assert scores[0] != scores[1]


def test_what_else_reads_the_source_reads_it_too(folder: Path) -> None:
    """Scores are those of search, and attention has a column for each token of the text."""
    nmt = Nmt(folder)
    found = records(nmt, "--attention", "--alignment")
    translations = [record["translations"][0] for record in found]  # type: ignore[index]
    scored = Scorer(load_model(folder / "runs/tagged")).score_texts(LINES, [t["text"] for t in translations])
    for record, translation, score in zip(found, translations, scored, strict=True):
        if score.tokens == tuple(translation["tokens"]):
            assert score.log_probability == pytest.approx(translation["log_probability"], rel=1e-4)
        columns = len(record["source_tokens"])  # type: ignore[arg-type]
        assert all(len(row) == columns for row in translation["attention"])
    assert any(score.tokens == tuple(t["tokens"]) for score, t in zip(scored, translations, strict=True))
    assert any(translation["alignment"] is not None for translation in translations)


def test_maps_and_heads_read_it(folder: Path) -> None:
    """As a token before the source, which is no word of it."""
    loaded = load_model(folder / "runs/tagged")
    pairs, _ = make_pairs(loaded, LINES, ["x", "", "x", "y"])
    tag = loaded.source_tokenizer.id_of("<a>")
    assert [ids_of(pair, "source")[0] for pair in pairs] == [tag] * 3
    assert [word.text for word in words_of(loaded, pairs[0], "source")] == ["<a>", "A", "man.", "</s>"]
    expected = dict(attention(loaded, [p.source_ids for p in pairs], [p.target_ids for p in pairs]))
    for index, maps in attention_maps(loaded, pairs):
        np.testing.assert_allclose(maps["cross"][..., 1:], expected[index], atol=1e-5)
        np.testing.assert_allclose(maps["cross"].sum(-1), 1, atol=1e-5)
        assert maps["encoder"].shape[-2:] == (len(ids_of(pairs[index], "source")),) * 2
    found = analyse(loaded, pairs)
    assert all(report.confidence is not None for report in found.heads)
    nmt = Nmt(folder)
    nmt("attention", "runs/tagged", "-", "--output", "maps.html", stdin=TEXT)
    assert "<a>" in (folder / "maps.html").read_text().replace("\\u003c", "<").replace("\\u003e", ">")
    nmt("heads", "runs/tagged", "-", stdin=TEXT)


def test_a_tag_that_is_not_known(folder: Path) -> None:
    nmt = Nmt(folder)
    for tag in ("<b>", "<s>", "man"):
        assert nmt.error("translate", "runs/tagged", "--tag", tag) == (
            f'nmt: runs/tagged/best: search.tag = "{tag}" is not a tag that the model was trained with; '
            "use <a> or <back>"
        )
    assert "it knows none: leave the tag out" in nmt.error("translate", "runs/plain", "--tag", "<a>")
    wrong = nmt.error("train", "tiny.toml", "--run", "runs/wrong", "--set", "search.tag=<a>")
    assert 'search.tag = "<a>" is not a tag that the model was trained with' in wrong
    assert not list(folder.glob("runs/wrong/checkpoints/*"))


def test_an_ensemble(folder: Path) -> None:
    """Each model's own id of the tag; one that has none is named."""
    nmt = Nmt(folder)
    both = nmt("translate", "runs/tagged", "--ensemble", "runs/tagged", stdin=TEXT)
    assert both.stdout == nmt("translate", "runs/tagged", stdin=TEXT).stdout
    assert "another target vocabulary" in nmt.error("translate", "runs/tagged", "--ensemble", "runs/plain")


def test_validation_reads_the_tag(folder: Path) -> None:
    """Its loss is of the sources that its translations are of: what forced decoding says."""
    loaded = load_model(folder / "runs/tagged")
    lines = [list(read_lines(folder / f"corpus/validation.{side}")) for side in ("en", "de")]
    found = log_probabilities(
        [loaded], loaded.source_tokenizer.encode_all(lines[0]), loaded.target_tokenizer.encode_all(lines[1])
    )
    loss = -sum(float(values.sum()) for values in found) / sum(map(len, found))
    assert loaded.manifest["scores"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_evaluate_reads_it(folder: Path, tmp_path: Path) -> None:
    nmt = Nmt(folder)
    texts = [["A man.", "Two dogs run in the snow."], ["a", "e"]]  # a translation has three tokens at most
    for name, lines in zip(("source", "reference"), texts, strict=True):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    files = ["--source", tmp_path / "source", "--reference", tmp_path / "reference"]
    given = ["evaluate", "runs/tagged", *files, "--no-confidence", "--json"]
    own = json.loads(nmt(*given).stdout)
    assert json.loads(nmt(*given, "--tag", "<a>").stdout) == own
    for tag, name in (("<back>", "<back>"), ("", "none")):
        rows = json.loads(nmt(*given, "--tag", tag, "--output", tmp_path / "out").stdout)
        assert (tmp_path / "out").read_bytes() == nmt(
            "translate", "runs/tagged", tmp_path / "source", "--tag", tag
        ).stdout
        assert rows[0]["signature"] == own[0]["signature"] + f"|tag:{name}"
        assert f"|tag:{name}|nmt:" in rows[4]["signature"]
        loaded = load_model(folder / "runs/tagged")
        search = loaded.config.search.model_copy(update={"tag": tag})
        read = replace(loaded, config=loaded.config.model_copy(update={"search": search}))
        ids = [read.source_tokenizer.encode_all(texts[0]), read.target_tokenizer.encode_all(texts[1])]
        loss = -float(np.concatenate(log_probabilities([read], *ids)).mean(dtype=np.float64))
        assert rows[4]["score"] == pytest.approx(perplexity(loss), abs=1e-3)
        assert rows[4]["score"] != own[4]["score"]
