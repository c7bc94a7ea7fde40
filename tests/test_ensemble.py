"""Models that read the source in tokens of their own translate together, and are scored as they search."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import SOURCE_VOCABULARY, TARGET_VOCABULARY, make
from support import TINY

from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.config_file import changed_search, parse_config
from nmt.data.tokenizer import UNK, Tokenizer, train_tokenizer
from nmt.ensemble import readers
from nmt.errors import UserError
from nmt.hypotheses import Chosen, read_record
from nmt.models.transformer import Transformer
from nmt.scoring import Scorer
from nmt.translator import Translator

pytestmark = pytest.mark.usefixtures("one_thread")

SEARCH = SearchConfig(beam_size=2, length_penalty=0.7, max_length_factor=0.0, max_length_offset=5)
WORDS = [f"s{number}" for number in range(SOURCE_VOCABULARY - 4)]
POSITIONS = 32
LINES = ["s1 s2 s3", "zebra s1", " ".join(WORDS * 3), "", "s4", "x" * 100, f"{'y' * 50} s1 {'z' * 50}"]


@pytest.fixture(scope="module")
def by_words() -> LoadedModel:
    source = train_tokenizer(WORDS, type="word", vocabulary_size=SOURCE_VOCABULARY)
    target_lines = [f"t{number}" for number in range(TARGET_VOCABULARY - 4)]
    target = train_tokenizer(target_lines, type="word", vocabulary_size=TARGET_VOCABULARY)
    return LoadedModel(Path("words"), make("post-sinusoidal"), parse_config(TINY), source, target, {})


@pytest.fixture(scope="module")
def spelling(by_words: LoadedModel) -> Callable[..., LoadedModel]:
    """Models that read characters and have few positions."""

    def of(tags: tuple[str, ...] = (), seed: int = 1) -> LoadedModel:
        tokenizer = train_tokenizer(
            [*WORDS, "abcdefghijklmnopqrstuvwxyz"], type="char", vocabulary_size=400, tags=tags
        )
        torch.manual_seed(seed)
        model = Transformer(
            source_vocabulary=len(tokenizer),
            target_vocabulary=TARGET_VOCABULARY,
            encoder_layers=1,
            decoder_layers=1,
            width=16,
            feed_forward_width=16,
            heads=2,
            dropout=0.0,
            positions="learned",
            max_positions=POSITIONS,
            tie_embeddings="none",
        ).eval()
        return replace(by_words, folder=Path("letters"), model=model, source_tokenizer=tokenizer)

    return of


def check_scores(first: LoadedModel, search: SearchConfig, others: list[LoadedModel]) -> None:
    """Scoring gives what search finds the score that search gives it."""
    found = Translator.of(first, search, n_best=2, ensemble=others).translate_all(LINES)
    chosen = []
    for translation in found:
        candidates = [
            {"tokens": c.tokens, **({"parts": c.lengths} if len(c.lengths) > 1 else {})}
            for c in translation.candidates
        ]
        record = json.dumps({"translations": candidates})
        chosen.append(read_record(record, 1, first.target_tokenizer, file="f").translations)
    scored = Scorer(first, search, ensemble=others).score_chosen(LINES, chosen)
    for ours, theirs in zip(scored, found, strict=True):
        for mine, candidate in zip(ours, theirs.candidates, strict=True):
            assert mine.problem is None
            assert mine.log_probability == pytest.approx(candidate.log_probability, abs=1e-4, rel=0)
            assert mine.score == pytest.approx(candidate.score, abs=1e-3, rel=0)


def test_lines_are_cut_until_every_model_has_positions(
    by_words: LoadedModel, spelling: Callable[..., LoadedModel]
) -> None:
    """57 words have more letters than 31; a word of a hundred letters cannot be cut."""
    translator = Translator.of(by_words, SEARCH, ensemble=[spelling()])
    for line, translation in zip(LINES, translator.translate_all(LINES), strict=True):
        ids = by_words.source_tokenizer.encode(line)
        parts = translator.parts_of(ids, None, line) if ids else [[]]
        assert [i for part in parts for i in part] == ids
        assert translation.parts == len(parts)
        for part in parts:
            letters = by_words.source_tokenizer.decode(part)
            read = spelling().source_tokenizer.encode(line if len(parts) == 1 else letters)
            assert len(read) < POSITIONS or len(part) == 1
    check_scores(by_words, SEARCH, [spelling()])
    check_scores(spelling(), SEARCH, [by_words])


def test_scoring_says_what_is_too_long_for_one_of_the_models(
    by_words: LoadedModel, spelling: Callable[..., LoadedModel]
) -> None:
    scorer = Scorer(by_words, SEARCH, ensemble=[spelling()])
    ((short,), (long,)) = scorer.score_chosen(["s1 s2", " ".join(WORDS)], [[Chosen([5])], [Chosen([5])]])
    assert short.problem is None
    assert "longer than a model of the ensemble has positions for" in str(long.problem)


def test_unknown_words_reach_those_who_can_read_them(
    by_words: LoadedModel, spelling: Callable[..., LoadedModel]
) -> None:
    letters = spelling()
    ids = by_words.source_tokenizer.encode("zebra s1")
    assert UNK in ids
    own, read = readers([by_words, letters])
    assert own(ids, "zebra s1") == ids
    assert letters.source_tokenizer.decode(read(ids, "zebra s1")) == "zebra s1"
    # In translation too: to the first both lines are one.
    translator = Translator.of(by_words, SEARCH, ensemble=[letters])
    zebra, horse = translator.translate_all(["zebra s1", "horse s1"])
    assert zebra.candidates[0].log_probability != horse.candidates[0].log_probability


def test_coverage_asks_for_one_source_vocabulary(
    by_words: LoadedModel, spelling: Callable[..., LoadedModel]
) -> None:
    search = changed_search(SEARCH, {"coverage_penalty": 0.4})
    for of in (Translator.of, Scorer):
        with pytest.raises(UserError, match="letters: has another source vocabulary than words") as raised:
            of(by_words, search, ensemble=[spelling()])
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("tag", ["", "<a>"])
def test_coverage_is_of_words_and_not_of_the_tag(spelling: Callable[..., LoadedModel], tag: str) -> None:
    """Whatever tag the models have in their settings: that of the search counts."""
    first, second = spelling(("<a>", "<b>")), spelling(("<a>", "<b>"), seed=2)
    config = first.config
    other = config.model_copy(update={"search": changed_search(config.search, {"tag": "<b>"})})
    search = changed_search(SEARCH, {"coverage_penalty": 0.4, "tag": tag})
    check_scores(first, search, [])
    check_scores(first, search, [replace(second, config=other)])


def test_source_tokenizers_that_are_equal_have_one_reading(by_words: LoadedModel) -> None:
    tokenizer: Tokenizer = by_words.source_tokenizer
    ids = tokenizer.encode("s1 nothing")
    assert [read(ids, "s1 nothing") for read in readers([by_words, by_words])] == [ids, ids]
    assert all(read.fits(ids * 1000) for read in readers([by_words, by_words]))
