"""Options of beam search on models: as the translator wires them, and as `nmt score` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import LUONG, MODELS, SOURCE_VOCABULARY, TARGET_VOCABULARY, make
from support import TINY

from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.config_file import changed_search, parse_config
from nmt.constraints import Wish
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import SentenceError, UserError
from nmt.hypotheses import read_record
from nmt.scoring import Scorer
from nmt.translator import Translator

pytestmark = pytest.mark.usefixtures("one_thread")

SEARCH = SearchConfig(
    beam_size=4, length_penalty=0.7, max_length_factor=1.0, max_length_offset=5, max_source_tokens=20
)
LINES = ["s1 s2 s3", "s4", "", "s5 s6 s7 s8 s9 s10 s11 s12 s13", "s2 s2 s2 s2", "s3 s9"] * 5
# Half of Luong's: the others are each score with each window, by turns with input feeding and without.
LEFT_OUT = {name for number, name in enumerate(LUONG) if (number // 2 + number) % 2}
ATTENTIVE = [
    pytest.param(name, marks=pytest.mark.slow) if name in LEFT_OUT else name
    for name in MODELS
    if not name.startswith("recurrent")
]


@pytest.fixture(scope="module")
def small() -> Callable[[str], LoadedModel]:
    def words(letter: str, size: int) -> Tokenizer:
        lines = [f"{letter}{number}" for number in range(size - 4)]
        return train_tokenizer(lines, type="word", vocabulary_size=size)

    tokenizers = words("s", SOURCE_VOCABULARY), words("t", TARGET_VOCABULARY)
    config = parse_config(TINY)
    return lambda name: LoadedModel(Path("m"), make(name), config, *tokenizers, {})


def check_scores(loaded: LoadedModel, search: SearchConfig, **options: Any) -> list[Any]:
    """What search finds, and that scoring gives it the same score."""
    found = Translator.of(loaded, search, n_best=3, **options).translate_all(LINES)
    records = [json.dumps({"translations": [{"tokens": c.tokens} for c in t.candidates]}) for t in found]
    chosen = [read_record(r, 1, loaded.target_tokenizer, file="f").translations for r in records]
    scored = Scorer(loaded, search, **options).score_chosen(LINES, chosen)
    for ours, theirs in zip(scored, found, strict=True):
        for mine, candidate in zip(ours, theirs.candidates, strict=True):
            assert mine.log_probability == pytest.approx(candidate.log_probability, abs=1e-4, rel=0)
            assert mine.score == pytest.approx(candidate.score, abs=1e-3, rel=0)
    return found


@pytest.mark.parametrize("name", ATTENTIVE)
def test_scores_with_coverage_and_normalization(small: Callable[[str], LoadedModel], name: str) -> None:
    """The attention summed up step by step, in batches that change, is that of force-decoding."""
    search = changed_search(SEARCH, {"coverage_penalty": 0.4, "normalization": "average", "batch_tokens": 40})
    found = check_scores(small(name), search)
    plain = Translator.of(small(name), SEARCH, n_best=3).translate_all(LINES)
    assert [t.candidates[0].score for t in found] != [t.candidates[0].score for t in plain]


def test_scores_of_an_ensemble_with_coverage(small: Callable[[str], LoadedModel]) -> None:
    first, *others = map(small, ["post-sinusoidal", "bahdanau-tied", "luong-general-global-fed"])
    check_scores(first, changed_search(SEARCH, {"coverage_penalty": 0.4}), ensemble=others)


def test_coverage_needs_attention(small: Callable[[str], LoadedModel]) -> None:
    with pytest.raises(UserError, match="coverage_penalty needs attention"):
        Translator.of(small("recurrent-lstm"), changed_search(SEARCH, {"coverage_penalty": 0.1}))


@pytest.mark.parametrize("name", ["post-sinusoidal", "recurrent-gru", "luong-dot-local-p-unfed"])
def test_lengths_repetitions_and_groups(small: Callable[[str], LoadedModel], name: str) -> None:
    search = changed_search(
        SEARCH,
        {"min_length_offset": 5, "no_repeat_ngram": 2, "beam_groups": 2, "diversity": 1.0},
    )
    for line, translation in zip(LINES, check_scores(small(name), search), strict=True):
        for candidate in translation.candidates:
            tokens = candidate.tokens
            assert len(tokens) >= 4 or not line
            assert len(set(pairwise(tokens))) == max(0, len(tokens) - 1)
        assert len({c.tokens for c in translation.candidates}) == len(translation.candidates)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["post-sinusoidal", "recurrent-gru", "bahdanau-tied"])
def test_wishes(small: Callable[[str], LoadedModel], name: str, threads: int) -> None:
    wishes = [
        Wish(prefix="t1 t2 "),
        Wish(required=("t3 t4",)),
        Wish(required=("t5",)),
        Wish(prefix="t7", required=("t4", "t3"), forbidden=("t5",)),
        Wish(forbidden=("t1", "t2 t", "t9")),
        Wish(),
    ] * 5
    search = changed_search(SEARCH, {"batch_tokens": 60})
    translator = Translator.of(small(name), search, n_best=2)
    torch.set_num_threads(threads)
    found = translator.translate_all(LINES, wishes)
    torch.set_num_threads(1)
    free = translator.translate_all(LINES)
    for line, wish, translation, unasked in zip(LINES, wishes, found, free, strict=True):
        for candidate in translation.candidates:
            if not line:
                assert candidate.text == ""
                continue
            assert candidate.text.startswith(wish.prefix.strip())
            assert all(f" {phrase} " in f" {candidate.text} " for phrase in wish.required)
            assert not any(phrase in candidate.text for phrase in wish.forbidden)
        if not wish:
            assert translation.text == unasked.text
    alone = translator.translate_all(LINES[3:4], wishes[3:4])
    assert alone[0].text == found[3].text


def test_wishes_of_a_line_in_parts(small: Callable[[str], LoadedModel]) -> None:
    translator = Translator.of(small("post-sinusoidal"), SEARCH)
    line = " ".join(["s1 s2 s3 s4"] * 12)
    (translation,) = translator.translate_all([line], [Wish(prefix="t5 t6 ", forbidden=("t1",))])
    assert translation.parts > 1
    assert translation.text.startswith("t5 t6")
    assert "t1" not in translation.text
    for wish, kind in ((Wish(required=("t1",)), "required"), (Wish(forbidden=("t1 t2",)), "forbidden")):
        with pytest.raises(UserError, match=f"can be {kind} only where a line is translated whole"):
            translator.translate_all([line], [wish])


def test_a_prefix_or_phrases_that_are_too_long(small: Callable[[str], LoadedModel]) -> None:
    translator = Translator.of(small("post-sinusoidal"), SEARCH)
    asked = Wish(prefix="t1 " * 30, line=3, files={"prefix": "begin.txt"})
    with pytest.raises(UserError, match="prefix of 30 tokens is longer than the maximum of 6") as caught:
        translator.translate_all(["s1"], [asked])
    assert (caught.value.file, caught.value.line) == ("begin.txt", 3)
    with pytest.raises(UserError, match="needs 8 tokens, more than the maximum of 6"):
        translator.translate_all(["s1"], [Wish(required=("t1 t2 t3 t4", "t5 t6 t7 t8"))])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam_groups": 3}, "search.beam_groups = 3 does not divide search.beam_size = 4; use 1, 2, 4"),
        ({"min_length_offset": 100}, "the minimum length is above the maximum: 100 and 26 with"),
        ({"min_length_factor": 2.0}, "the minimum length is above the maximum"),
        ({"normalization": "mean"}, "search.normalization = 'mean'"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        changed_search(SEARCH, given)


def test_a_minimum_that_long_sources_alone_have_room_for(small: Callable[[str], LoadedModel]) -> None:
    """The others' maximum is raised to it; nothing is refused for a source that never comes."""
    search = changed_search(
        SEARCH, {"max_length_factor": 1.0, "max_length_offset": 2, "min_length_offset": 9}
    )
    translator = Translator.of(small("post-sinusoidal"), search)
    assert [(translator.shortest(n), translator.longest(n)) for n in (1, 6, 7, 20)] == [
        (9, 9),
        (9, 9),
        (9, 10),
        (9, 23),
    ]
    for n_best in translator.translate_all(["s1", "s1 s2 s3 s4 s5 s6 s7 s8 s9"]):
        assert len(n_best.candidates[0].tokens) + 1 >= 9


def test_an_error_of_one_sentence_says_which(small: Callable[[str], LoadedModel]) -> None:
    search = changed_search(SEARCH, {"no_repeat_ngram": 1, "min_length_offset": 60, "max_length_offset": 60})
    with pytest.raises(SentenceError, match="without a repetition") as caught:
        Translator.of(small("post-sinusoidal"), search).translate_all(["", "", "s1 s2"])
    assert caught.value.place == 2


def test_a_minimum_above_the_positions_of_the_model(small: Callable[[str], LoadedModel]) -> None:
    search = changed_search(SEARCH, {"max_length_offset": 500, "min_length_offset": 400})
    with pytest.raises(UserError, match="minimum length of 400 tokens with the end is above the 128"):
        Translator.of(small("post-learned"), search)
