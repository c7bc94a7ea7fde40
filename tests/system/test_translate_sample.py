"""nmt translate --sample and --mbr: the same draws in any batch, and what does not go with them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from support import Nmt
from translating import RUN, hostile_lines, write_lines

from nmt.checkpoint import load_model, save_model, weights_of
from nmt.cli.drawing import Drawing
from nmt.cli.translation import Options, Translating
from nmt.partial import PartialFile, partial_of

LINES = ["The dog sees the old house.", "", "A cat.", *hostile_lines(25, seed=5)]
LONG = "many words " * 300  # translated in parts
DRAWS = ["--sample", "--n-best", "3", "--temperature", "0.9", "--top-p", "0.95", "--seed", "4"]


def text_of(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def records(nmt: Nmt, lines: list[str], *options: str) -> list[dict[str, Any]]:
    done = nmt("translate", RUN, "--format", "jsonl", *options, stdin=text_of(lines))
    found = [json.loads(line) for line in done.lines]
    assert [record["source"] for record in found] == lines
    return found


def texts(found: list[dict[str, Any]]) -> list[list[str]]:
    return [[translation["text"] for translation in record["translations"]] for record in found]


@pytest.fixture(scope="module")
def sampled(tiny_run: Path) -> list[dict[str, Any]]:
    return records(Nmt(tiny_run), [*LINES, LONG], *DRAWS)


def test_a_line_and_its_seed_give_the_same_samples(tiny_run: Path, sampled: list[dict[str, Any]]) -> None:
    """In batches of any size, in another order, alone, and whatever --n-best."""
    nmt, expected = Nmt(tiny_run), texts(sampled)[:-1]
    assert all(len(own) == (3 if line.strip() else 1) for line, own in zip(LINES, expected, strict=True))
    assert sum(len(set(own)) for own in expected) > 2 * len(LINES)
    for size in ("1", "100"):
        assert texts(records(nmt, LINES, *DRAWS, "--batch-tokens", size)) == expected
    order = list(range(len(LINES)))
    random.Random(2).shuffle(order)
    assert texts(records(nmt, [LINES[i] for i in order], *DRAWS)) == [expected[i] for i in order]
    assert texts(records(nmt, LINES[:1], *DRAWS)) == expected[:1]
    assert texts(records(nmt, LINES, *DRAWS, "--n-best", "1")) == [own[:1] for own in expected]
    assert texts(records(nmt, LINES, *DRAWS, "--seed", "5")) != expected
    plain = nmt("translate", RUN, *DRAWS, "--n-best", "1", stdin=text_of(LINES)).lines
    assert plain == [own[0] for own in expected]


def test_nmt_score_agrees(tiny_run: Path, tmp_path: Path, sampled: list[dict[str, Any]]) -> None:
    """Samples of a truncated distribution have the log-probability that the model gives them."""
    source = write_lines(tmp_path / "source", [*LINES, LONG])
    target = write_lines(tmp_path / "target.jsonl", [json.dumps(record) for record in sampled])
    done = Nmt(tiny_run)("score", RUN, source, target, "--format", "jsonl")
    scored = [json.loads(line) for line in done.lines]
    assert len(sampled[-1]["translations"][0]["parts"]) > 1
    for record, scores in zip(sampled, scored, strict=True):
        for translation, score in zip(record["translations"], scores["translations"], strict=True):
            for name in ("log_probability", "score"):
                assert score[name] == pytest.approx(translation[name], rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(("utility", "metric"), [("chrf", CHRF()), ("bleu", BLEU(effective_order=True))])
def test_least_risk(tiny_run: Path, utility: str, metric: Any) -> None:
    nmt, lines = Nmt(tiny_run), LINES[:3] + LINES[4:12]
    options = ["--temperature", "1.1", "--seed", "2"]
    samples = texts(records(nmt, lines, "--sample", "--n-best", "12", *options))
    found = records(nmt, lines, "--mbr", "12", "--n-best", "4", "--utility", utility, *options)
    for line, own, record in zip(lines, samples, found, strict=True):
        if not line.strip():
            assert [t["text"] for t in record["translations"]] == [""]
            continue
        expected = {
            text: sum(
                metric.sentence_score(text, [other]).score
                for place, other in enumerate(own)
                if place != own.index(text)
            )
            / 11
            for text in own
        }
        translations = record["translations"]
        chosen = [translation["text"] for translation in translations]
        assert len(set(chosen)) == len(chosen) == min(4, len(expected))
        assert [t["utility"] for t in translations] == pytest.approx([expected[text] for text in chosen])
        assert [t["utility"] for t in translations] == pytest.approx(
            sorted(expected.values(), reverse=True)[:4]
        )
    best = nmt("translate", RUN, "--mbr", "12", "--utility", utility, *options, stdin=text_of(lines)).lines
    assert best == [own[0] for own in texts(found)]


def test_samples_are_drawn_without_what_is_for_beams(tiny_run: Path, tmp_path: Path) -> None:
    loaded = load_model(tiny_run / RUN)
    search = loaded.config.search.model_copy(update={"no_repeat_ngram": 2})
    config = loaded.config.model_copy(update={"search": search})
    tokenizers = loaded.source_tokenizer, loaded.target_tokenizer
    save_model(tmp_path / "model", weights_of(loaded.model), config, *tokenizers, {})
    nmt = Nmt(tiny_run)
    expected = nmt("translate", RUN, "--sample", stdin=b"A cat.\n")
    done = nmt("translate", tmp_path / "model", "--sample", stdin=b"A cat.\n")
    assert done.stdout == expected.stdout
    assert "search.no_repeat_ngram" not in expected.stderr
    assert (
        "search.no_repeat_ngram of the model is for beam search: samples are drawn without it" in done.stderr
    )
    assert "no_repeat" not in nmt("translate", tmp_path / "model", stdin=b"A cat.\n").stderr


def test_other_draws_do_not_continue(tiny_run: Path, tmp_path: Path) -> None:
    """What decides the draws is among the settings of a half-written file."""
    nmt, lines, output = Nmt(tiny_run), ["A cat.", "A dog."], tmp_path / "out"
    arguments = ["translate", RUN, write_lines(tmp_path / "in", lines), "--output", output]
    begin(Options(tiny_run / RUN, str(tmp_path / "in"), output, drawing=Drawing(sample=True)), lines[:1])
    for options, difference in (
        (["--sample", "--seed", "3"], "seed 1, not 3"),
        (["--sample", "--top-p", "0.5"], "top p null, not 0.5"),
        (["--mbr", "4"], "samples 1, not 4"),
        ([], "samples 1, not null"),
    ):
        assert difference in nmt.error(*arguments, *options)
    assert "continuing after 1 line" in nmt(*arguments, "--sample", "--seed", "1").stderr
    assert output.read_bytes() == nmt("translate", RUN, "--sample", stdin=text_of(lines)).stdout


def begin(options: Options, lines: list[str]) -> None:
    """Translate the first lines to the output, and leave it there."""
    assert options.output is not None
    translating = Translating(options, "cpu", "")
    file = PartialFile(partial_of(options.output), {**translating.settings(), "processes": 1})
    ((_, records),) = translating.translate([(1, lines)])
    file.append(records, lines)
    file.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sample", "--beam-size", "4"], "--sample draws, and --beam-size 4 searches; leave one out"),
        (["--mbr", "4", "--beam-size", "4"], "--mbr draws, and --beam-size 4 searches; leave one out"),
        (["--mbr", "1"], "--mbr 1 leaves nothing to compare"),
        (["--mbr", "4", "--n-best", "5", "--format", "jsonl"], "--n-best 5 is more than --mbr 4 draws"),
        (["--sample", "--temperature", "0"], "--temperature 0 leaves nothing to chance; use --beam-size 1"),
        (["--mbr", "4", "--temperature", "1e-40"], "--temperature 1e-40 leaves nothing to chance"),
        (["--sample", "--temperature", "-1"], "--temperature -1 is not from 0.001 to 1000"),
        (["--sample", "--temperature", "nan"], "--temperature nan is not from 0.001 to 1000"),
        (["--sample", "--temperature", "inf"], "--temperature inf is not from 0.001 to 1000"),
        (["--sample", "--top-k", "0"], "--top-k 0 leaves no token"),
        (["--sample", "--top-p", "0"], "--top-p 0 is no probability"),
        (["--mbr", "4", "--top-p", "1.5"], "--top-p 1.5 is no probability"),
        (["--sample", "--seed", "-1"], "--seed -1 is negative"),
        (["--sample", "--n-best", "2"], "--n-best 2 does not fit one line a line"),
        (["--sample", "--engine", "ctranslate2"], "--sample is not for --engine ctranslate2"),
        (["--temperature", "0.5"], "--temperature goes with --sample or --mbr"),
        (["--top-k", "5"], "--top-k goes with --sample or --mbr"),
        (["--seed", "5"], "--seed goes with --sample or --mbr"),
        (["--utility", "bleu"], "--utility goes with --mbr"),
        (["--sample", "--utility", "bleu"], "--utility goes with --mbr"),
        (["--mbr", "3", "--utility", "ter"], "--utility ter is not known; use chrf or bleu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together(tiny_run: Path, options: list[str], message: str) -> None:
    assert message in Nmt(tiny_run).error("translate", RUN, *options, stdin=b"A cat.\n")


@pytest.mark.slow
def test_processes_and_ensembles_draw_the_same(tiny_run: Path, tmp_path: Path) -> None:
    """Whichever process has the line; and a model with itself has the same probabilities."""
    nmt, source = Nmt(tiny_run), write_lines(tmp_path / "in", LINES)
    outputs = []
    for name, options in (("one", []), ("two", ["--processes", "2"]), ("ensemble", ["--ensemble", RUN])):
        outputs.append(tmp_path / name)
        nmt("translate", RUN, source, "--output", outputs[-1], "--mbr", "4", "--top-k", "20", *options)
    assert outputs[0].read_bytes() == outputs[1].read_bytes() == outputs[2].read_bytes()


def test_lengths(tiny_run: Path) -> None:
    found = records(Nmt(tiny_run), LINES[:3], *DRAWS, "--min-length", "6", "--max-length", "8")
    lengths = [len(t["tokens"]) for record in found for t in record["translations"]]
    assert lengths.pop(3) == 0  # of the blank line
    assert all(6 <= length <= 8 for length in lengths)
