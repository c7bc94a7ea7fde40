"""nmt evaluate measures what users run: ensembles, tags, precisions, the tokenizer of the target language."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from support import Nmt

from nmt.checkpoint import load_model, model_hash, save_model, weights_of
from nmt.data.corpus import read_lines
from nmt.evaluation import perplexity
from nmt.forced import log_probabilities
from nmt.results import read_rows

RUN = "runs/tiny"
TEST = ["--source", "corpus/test.en", "--reference", "corpus/test.de", "--no-confidence"]


def other_of(tiny_run: Path) -> str:
    """A checkpoint that is not the best."""
    best = (tiny_run / RUN / "best").resolve()
    found = next(path for path in sorted((tiny_run / RUN / "checkpoints").iterdir()) if path != best)
    return str(found.relative_to(tiny_run))


def rows_of(nmt: Nmt, *options: object) -> dict[str, dict[str, Any]]:
    found = json.loads(nmt("evaluate", RUN, *TEST, *options, "--json").stdout)
    return {row["metric"]: row for row in found}


@pytest.mark.parametrize("command", ["translate", "score", "evaluate"])
def test_an_ensemble_with_a_model_of_other_languages(tiny_run: Path, tmp_path: Path, command: str) -> None:
    nmt = Nmt(tiny_run)
    model = load_model(tiny_run / other_of(tiny_run))
    data = model.config.data.model_copy(update={"source_language": "de", "target_language": "en"})
    config = model.config.model_copy(update={"data": data})
    tokenizers = (model.source_tokenizer, model.target_tokenizer)
    save_model(tmp_path / "back", weights_of(model.model), config, *tokenizers, model.manifest)
    files = {"translate": TEST[1:2], "score": (TEST[1], TEST[3])}.get(command, TEST)
    found = nmt(command, RUN, *files, "--ensemble", tmp_path / "back")
    said = f"{tmp_path}/back translates de to en, and {RUN}/best en to de; see that --ensemble is the model"
    assert found.stderr.count(said) == 1
    assert said not in nmt(command, RUN, *files, "--ensemble", other_of(tiny_run)).stderr


def test_an_ensemble(tiny_run: Path, tmp_path: Path) -> None:
    nmt, other = Nmt(tiny_run), other_of(tiny_run)
    files = [tiny_run / folder / "manifest.json" for folder in (f"{RUN}/best", other)]
    hashes = "+".join(model_hash(json.loads(file.read_text()))[:12] for file in files)
    alone = rows_of(nmt)
    for by, options in (("probability", []), ("log-probability", ["--ensemble-by", "log-probability"])):
        rows = rows_of(nmt, "--ensemble", other, *options, "--output", tmp_path / "out")
        translated = nmt("translate", RUN, "corpus/test.en", "--ensemble", other, *options).stdout
        assert (tmp_path / "out").read_bytes() == translated
        for row in rows.values():
            assert row["signature"].endswith(f" model:{hashes}|models:2|mean:{by}") or (
                row["metric"] == "perplexity"
            )
            assert row["parameters"] == 2 * alone["BLEU"]["parameters"]
            seconds = [json.loads(file.read_text())["train_seconds"] for file in files]
            assert row["train_seconds"] == pytest.approx(sum(seconds))
        assert f"|models:2|mean:{by}|nmt:" in rows["perplexity"]["signature"]
        assert rows["perplexity"]["signature"].endswith(f" model:{hashes}")
        models = [load_model(file.parent) for file in files]
        ids = [
            models[0].source_tokenizer.encode_all(list(read_lines(tiny_run / "corpus/test.en"))),
            models[0].target_tokenizer.encode_all(list(read_lines(tiny_run / "corpus/test.de"))),
        ]
        expected = -float(np.concatenate(log_probabilities(models, *ids, by=by)).mean(dtype=np.float64))
        assert rows["perplexity"]["score"] == pytest.approx(perplexity(expected), abs=1e-3)


def test_precision_and_batches(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    plain = rows_of(nmt)
    batched = rows_of(nmt, "--batch-tokens", "50")
    assert batched == plain  # how lines are batched changes nothing
    rows = rows_of(nmt, "--precision", "int8", "--output", tmp_path / "out")
    translated = nmt("translate", RUN, "corpus/test.en", "--precision", "int8").stdout
    assert (tmp_path / "out").read_bytes() == translated
    assert rows["BLEU"]["signature"] == plain["BLEU"]["signature"] + "|precision:int8"
    assert rows["perplexity"] == plain["perplexity"]  # which is of float32
    assert rows_of(nmt, "--precision", "float32") == plain  # the model's own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--precision int4", "--precision int4 is not known; use float32, bfloat16, float16, int8"),
        ("--batch-tokens 0", "--batch-tokens 0 is not a number from 1, or auto"),
        ("--batch-tokens x", "--batch-tokens x is not a number from 1, or auto"),
        ("--ensemble-by mean", "--ensemble-by mean is not known; use probability, log-probability"),
        ("--ensemble-by probability", "--ensemble-by is about several models; add --ensemble MODEL"),
        ("--ensemble absent", "absent: no such model"),
        ("--tag <x>", 'search.tag = "<x>" is not a tag that the model was trained with'),
        (
            f"--ensemble {RUN} --gold-alignment corpus/test.align",
            "--gold-alignment is about the attention of one model; leave out --ensemble",
        ),
    ],
)
def test_refuses(tiny_run: Path, given: str, message: str) -> None:
    assert message in Nmt(tiny_run).error("evaluate", RUN, *TEST, *given.split())


@pytest.mark.parametrize("given", ["--beam-size 2", "--precision int8", f"--ensemble {RUN}", "--tag x"])
def test_a_translation_that_is_there_is_not_searched_for(tiny_run: Path, given: str) -> None:
    said = Nmt(tiny_run).error("evaluate", "--system", "a=corpus/test.de", *TEST, *given.split())
    assert "--system is a translation; options of search and --ensemble go with MODEL" in said


def test_bleu_has_the_tokenizer_of_the_models_language(tiny_run: Path, tmp_path: Path) -> None:
    """A model whose target is called Chinese; the text beside it is."""
    shutil.copytree(tiny_run / RUN / "best", tmp_path / "model")
    config = tmp_path / "model" / "config.toml"
    config.write_text(config.read_text().replace('target_language = "de"', 'target_language = "zh"'))
    manifest = tmp_path / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["config.toml"] = hashlib.sha256(config.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    lines = list(read_lines(tiny_run / "corpus/test.en"))[:3]
    (tmp_path / "s").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "r").write_text("我喜欢猫和狗。\n今天天气很好。\n他们在公园里。\n")
    nmt = Nmt(tmp_path)
    given = ["evaluate", "model", "--source", "s", "--reference", "r", "--no-confidence", "--json"]
    row = json.loads(nmt(*given, "--output", "out").stdout)[0]
    assert "|tok:zh|" in row["signature"]
    references = [list(read_lines(tmp_path / "r"))]
    expected = sacrebleu.corpus_bleu(list(read_lines(tmp_path / "out")), references, tokenize="zh")
    assert row["score"] == pytest.approx(expected.score, abs=1e-4)
    assert "|tok:13a|" in json.loads(nmt(*given, "--tokenize", "13a").stdout)[0]["signature"]
    # Of a translation nobody knows the language.
    system = ["evaluate", "--system", "a=out", "--reference", "r", "--json"]
    assert "|tok:13a|" in json.loads(nmt(*system).stdout)[0]["signature"]


def test_test_sets_of_one_name_do_not_take_each_others_place(tiny_run: Path, tmp_path: Path) -> None:
    for folder, part in (("a", slice(0, 3)), ("b", slice(3, 5)), ("c", slice(5, 8))):
        (tmp_path / folder).mkdir()
        for side in ("en", "de"):
            lines = list(read_lines(tiny_run / f"corpus/test.{side}"))[part]
            (tmp_path / folder / f"test.{side}").write_text("".join(f"{line}\n" for line in lines))
    nmt = Nmt(tmp_path)
    for folder in "abca":
        test = ["--system", f"x={folder}/test.en", "--reference", f"{folder}/test.de"]
        nmt("evaluate", *test, "--no-confidence", "--results", "r.json")
    assert [row.lines for row in read_rows(tmp_path / "r.json") if row.metric == "BLEU"] == [3, 2, 3]
