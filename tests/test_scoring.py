"""Scores of given translations are those that search reports, and those that the decoder's logits give."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import MODELS, SOURCE_VOCABULARY, TARGET_VOCABULARY, make
from support import TINY, text_lines, trained_once

from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.config_file import parse_config
from nmt.data.synthetic import generate
from nmt.data.tokenizer import BOS, EOS, PAD, SPACE, UNK, Tokenizer, train_tokenizer
from nmt.errors import UserError
from nmt.forced import log_probabilities
from nmt.hypotheses import Chosen, read_record
from nmt.scoring import Scored, Scorer
from nmt.translator import Translator

pytestmark = pytest.mark.usefixtures("one_thread")

FOUR = ["post-sinusoidal", "recurrent-lstm", "bahdanau-tied", "luong-general-global-fed"]
SEARCH = SearchConfig(
    beam_size=3, length_penalty=0.7, max_length_factor=1.0, max_length_offset=5, max_source_tokens=20
)
TEXT = [side for pair in generate("train", 150, seed=3) for side in (pair.source, pair.target)]
HOSTILE = [
    *("", " ", "   ", " a", "a ", "  two  blanks  ", "a\tb", "\t", "\u3000", "a\u00a0b \u2028 c\r"),
    *(SPACE, f"{SPACE}{SPACE} {SPACE}", f"a{SPACE}b c", "nul\0 \0", "😀👩‍👩‍👧 漢字", "e\u0301 \u0301"),
    *("<s> </s> <unk>", "<0x41><0x0A> x", "\ufeffA", "שלום", '"\\,;{}[]'),
]


@pytest.fixture(scope="module")
def words() -> tuple[Tokenizer, Tokenizer]:
    """Word vocabularies of the sizes that the small models have."""

    def of(letter: str, size: int) -> Tokenizer:
        lines = [f"{letter}{number}" for number in range(size - 4)]
        tokenizer = train_tokenizer(lines, type="word", vocabulary_size=size)
        assert len(tokenizer) == size
        return tokenizer

    return of("s", SOURCE_VOCABULARY), of("t", TARGET_VOCABULARY)


@pytest.fixture(scope="module")
def small(words: tuple[Tokenizer, Tokenizer]) -> Callable[[str], LoadedModel]:
    config = parse_config(TINY)
    return lambda name: LoadedModel(Path("m"), make(name), config, *words, {})


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Tokenizer]:
    return trained_once(TEXT, {"bpe": 420, "unigram": 400, "char": 400, "word": 400})


def sentences(count: int, *, most: int = 18, seed: int = 5) -> list[str]:
    chance = random.Random(seed)

    def word() -> str:
        return f"s{chance.randrange(SOURCE_VOCABULARY - 3)}"  # one of them is unknown

    return [" ".join(word() for _ in range(chance.randint(0, most))) for _ in range(count)]


def as_record(translation: Any) -> str:
    """As `nmt translate --format jsonl` writes it, less what is not read."""
    return json.dumps({"translations": [{"tokens": c.tokens} for c in translation.candidates]})


def check_against_search(loaded: LoadedModel, lines: list[str], **options: Any) -> None:
    found = Translator.of(loaded, SEARCH, n_best=3, **options).translate_all(lines)
    tokenizer = loaded.target_tokenizer
    chosen = [read_record(as_record(t), 1, tokenizer, file="f").translations for t in found]
    scored = Scorer(loaded, SEARCH, **options).score_chosen(lines, chosen)
    assert sum(len(line) for line in scored) > 2 * len(lines)
    for line, ours, theirs in zip(lines, scored, found, strict=True):
        for mine, candidate in zip(ours, theirs.candidates, strict=True):
            assert mine.problem is None
            assert mine.log_probability == pytest.approx(candidate.log_probability, abs=1e-4, rel=0)
            assert mine.score == pytest.approx(candidate.score, abs=1e-4, rel=0)
            assert mine.tokens == ((*candidate.tokens, "</s>") if line else ())


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_search(small: Callable[[str], LoadedModel], name: str) -> None:
    check_against_search(small(name), sentences(40))


@pytest.mark.parametrize("name", [FOUR[0], *(pytest.param(n, marks=pytest.mark.slow) for n in FOUR[1:])])
def test_scores_of_a_thousand_sentences_are_those_of_search(
    small: Callable[[str], LoadedModel], name: str
) -> None:
    check_against_search(small(name), sentences(1000))


def test_scores_of_an_ensemble_are_those_of_search(small: Callable[[str], LoadedModel]) -> None:
    first, *others = map(small, FOUR)
    check_against_search(first, sentences(40), ensemble=others)


@pytest.mark.parametrize("name", FOUR)
def test_parts_are_scored_part_by_part(small: Callable[[str], LoadedModel], name: str) -> None:
    loaded = small(name)
    translator = Translator.of(loaded, SEARCH)
    lines = [line for line in sentences(30, most=90) if line]
    encoded = loaded.source_tokenizer.encode_all(lines)
    chosen, expected = [], []
    for ids in encoded:
        parts = translator.parts_of(ids)
        best = [hypotheses[0] for hypotheses in translator.translate_ids(parts)]
        tokens = loaded.target_tokenizer.pieces([i for h in best for i in h.tokens])
        translation: dict[str, Any] = {"tokens": tokens}
        if len(parts) > 1:
            counts = zip(parts, best, strict=True)
            translation["parts"] = [[len(source), len(h.tokens)] for source, h in counts]
        record = json.dumps({"line": 1, "translations": [translation]})
        chosen.append(read_record(record, 1, loaded.target_tokenizer, file="f").translations)
        expected.append((sum(h.log_probability for h in best), sum(h.score for h in best), len(best)))
    assert max(count for _, _, count in expected) > 3
    found = Scorer(loaded, SEARCH).score_chosen(lines, chosen)
    for (scored,), (log_probability, score, count) in zip(found, expected, strict=True):
        assert scored.log_probability == pytest.approx(log_probability, abs=1e-4, rel=0)
        assert scored.score == pytest.approx(score, abs=1e-4, rel=0)
        assert scored.tokens.count("</s>") == count
        assert scored.tokens[-1] == "</s>"


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("batch_tokens", [1, 50, 5000])
def test_each_token_has_its_log_probability(
    small: Callable[[str], LoadedModel], name: str, batch_tokens: int
) -> None:
    """Those of all logits at once, alone, whatever else is in the batch; padding nowhere counts."""
    models = [small(name), small(FOUR[0])]
    chance = random.Random(2)
    pairs = [
        (
            chance.choices(range(4, SOURCE_VOCABULARY), k=chance.randint(0, 30)),
            chance.choices([UNK, *range(4, TARGET_VOCABULARY)], k=chance.randint(0, 30)),
        )
        for _ in range(20)
    ]
    sources, targets = [s for s, _ in pairs], [t for _, t in pairs]

    @torch.inference_mode()
    def reference(loaded: LoadedModel, source: list[int], target: list[int]) -> torch.Tensor:
        source_BS = torch.tensor([[*source, EOS]])
        hidden = loaded.model.decode(
            torch.tensor([[BOS, *target]]), loaded.model.encode(source_BS, source_BS != PAD)
        )
        log_probs_TV = loaded.model.project(hidden)[0].log_softmax(dim=-1)
        return log_probs_TV[range(len(target) + 1), [*target, EOS]]

    alone = log_probabilities(models[:1], sources, targets, batch_tokens=batch_tokens)
    together = log_probabilities(models, sources, targets, batch_tokens=batch_tokens)
    for index, (source, target) in enumerate(pairs):
        first, second = (reference(loaded, source, target) for loaded in models)
        torch.testing.assert_close(torch.from_numpy(alone[index]), first, atol=2e-5, rtol=0)
        mean = ((first.exp() + second.exp()) / 2).log()
        torch.testing.assert_close(torch.from_numpy(together[index]), mean, atol=2e-5, rtol=0)
    assert log_probabilities(models, [], []) == []


def test_blank_lines(small: Callable[[str], LoadedModel]) -> None:
    loaded = small(FOUR[0])
    scorer = Scorer(loaded, SEARCH)
    lines = ["", " \t ", "s1 s2", "s1 s2", "  "]
    nothing, blank, ends, ends_too, real = scorer.score_texts(lines, ["", "  ", "", " \t", "t1 t2"])
    assert nothing == blank == Scored((), (), 0.0, 0.0)
    source = loaded.source_tokenizer.encode("s1 s2")
    (expected,) = log_probabilities([loaded], [source], [[]])
    assert ends == ends_too
    assert ends.tokens == ("</s>",)
    assert ends.log_probability == ends.score == pytest.approx(expected.item())  # (5 + 1) / 6 = 1
    (expected,) = log_probabilities([loaded], [[]], [loaded.target_tokenizer.encode("t1 t2")])
    assert real.log_probability == pytest.approx(expected.sum().item(), abs=1e-5)
    assert "blank" in str(real.problem)
    assert [line.candidates[0].score for line in Translator.of(loaded).translate_all(lines[:2])] == [0, 0]


def test_what_is_too_long_has_no_score(small: Callable[[str], LoadedModel]) -> None:
    short, fits, long = "s1 s2", "s1 " * 20, "s1 " * 21
    for name, most in (("post-learned", 26), ("recurrent-lstm", 26)):
        scorer = Scorer(small(name), SEARCH.model_copy(update={"max_length_offset": 6}))
        answers = scorer.score_texts(
            [short, fits, long, short], ["t1", "t1 " * most, "t1", "t1 " * (most + 1)]
        )
        assert [answer.log_probability is None for answer in answers] == [False, False, True, True]
        assert "source is longer than 20 tokens" in str(answers[2].problem)
        assert f"translation is longer than {most} tokens" in str(answers[3].problem)
        assert answers[2].tokens == (SPACE + "t1",)
        assert (answers[2].score, answers[2].token_log_probabilities) == (None, None)
    # What search chose is taken at its word, up to the model's positions.
    cases = {
        (): (long, "source is longer"),
        ((11, 1), (9, 0)): (long, "parts of its translation have 20 source tokens and this source has 21"),
        ((11, 1), (10, 0)): (long, None),
        ((21, 1), (200, 0)): ("s1 " * 221, "source is longer than the 127 tokens"),
    }
    scorer = Scorer(small("post-learned"), SEARCH)
    for parts, (line, problem) in cases.items():
        ((answer,),) = scorer.score_chosen([line], [[Chosen([5], parts)]])
        assert (answer.problem is None) == (problem is None) == (answer.score is not None)
        assert problem is None or problem in str(answer.problem)
    ((one, two),) = scorer.score_chosen([short], [[Chosen([5] * 127), Chosen([5] * 128)]])
    assert one.score is not None
    assert "translation is longer than the 127 tokens" in str(two.problem)


def test_damaged_weights_are_told(small: Callable[[str], LoadedModel]) -> None:
    loaded = small(FOUR[0])
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match="its weights are damaged"):
        Scorer(loaded).score_texts(["s1"], ["t1"])


@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram": 2}, {"beam_groups": 3}, {"beam_size": 1}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_search_tells_of_damaged_weights(
    small: Callable[[str], LoadedModel], options: dict[str, Any], value: float
) -> None:
    """One number is enough; those that wait in the batch do not wait for ever."""
    loaded = small(FOUR[0])
    with torch.no_grad():
        loaded.model.decoder[1].feed_forward.inner.weight[3, 5] = value
    with pytest.raises(UserError, match="its weights are damaged"):
        Translator.of(loaded, SEARCH.model_copy(update=options)).translate_all(["s1 s2", "s3"])


# --- tokens as they are written ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_tokens_are_read_as_they_were_written(
    trained: Callable[[str], Tokenizer], kind: str, data: st.DataObject
) -> None:
    """Any tokens in any order, not only those that the tokenizer makes of their text."""
    tokenizer = trained(kind)
    assert len(tokenizer.id_by_piece) == len(tokenizer)  # no two are written alike
    allowed = [UNK, *range(4, len(tokenizer))]
    line = data.draw(text_lines(HOSTILE + TEXT[:3], f"ab \0.'{SPACE}\u0301😀3"))
    ids = data.draw(
        st.one_of(st.lists(st.sampled_from(allowed), max_size=20), st.just(tokenizer.encode(line)))
    )
    record = {"line": 7, "source": line, "translations": [{"tokens": tokenizer.pieces(ids)}]}
    for ascii_only in (False, True):
        read = read_record(json.dumps(record, ensure_ascii=ascii_only), 7, tokenizer, file="f")
        assert read.translations == (Chosen(ids),)
        assert read.source == line


def test_tokens_count_and_not_their_text(trained: Callable[[str], Tokenizer]) -> None:
    """Another segmentation of the same text has another probability."""
    from nmt.models import build_model

    config, tokenizer = parse_config(TINY), trained("bpe")
    torch.manual_seed(1)
    model = build_model(config.model, len(tokenizer), len(tokenizer)).eval()
    loaded = LoadedModel(Path("m"), model, config, tokenizer, tokenizer, {})
    text = TEXT[1]
    usual = tokenizer.encode(text)
    spelled = [tokenizer.id_by_piece[c] for c in (SPACE + text).replace(" ", SPACE)]
    assert tokenizer.decode(usual) == tokenizer.decode(spelled) == text
    ((first, second),) = Scorer(loaded).score_chosen([TEXT[0]], [[Chosen(usual), Chosen(spelled)]])
    assert Scorer(loaded).score_texts([TEXT[0]], [text]) == [first]
    assert second.tokens == (*tokenizer.pieces(spelled), "</s>")
    assert first.log_probability is not None
    assert second.log_probability is not None
    assert abs(first.log_probability - second.log_probability) > 1


GOOD = '{"line": 3, "translations": [{"tokens": ["▁t1", "▁t2"], "parts": [[2, 1], [1, 1]]}]}'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((GOOD, ""), "not a JSON record"),
        ((GOOD, "ein Hund"), "not a JSON record"),
        ((GOOD, GOOD[:-1]), "not a JSON record"),
        ((GOOD, "[" * 100_000), "not a JSON record"),
        ((GOOD, "1" * 5000), "not a JSON record"),
        ((GOOD, "[]"), "not a JSON object"),
        (('"line": 3', '"line": 4'), '"line": 4 where 3 is due'),
        (('"line": 3', '"line": true'), '"line": true where 3 is due'),
        (('"translations"', '"translation"'), 'no list of "translations"'),
        ((GOOD, '{"line": 3, "translations": []}'), 'no list of "translations"'),
        ((GOOD, '{"line": 3, "translations": {"tokens": []}}'), 'no list of "translations"'),
        ((GOOD, '{"line": 3, "translations": ["t1"]}'), 'no list of "tokens"'),
        (('"tokens"', '"text"'), 'no list of "tokens"'),
        (('"▁t1"', "5"), 'no list of "tokens"'),
        (('"▁t1"', '"t1"'), "the token 't1' is not in its vocabulary"),
        (('"▁t1"', '"a\\nb\\u2028"'), r"the token 'a\nb\u2028' is not in its vocabulary"),
        (('"▁t1"', '"\\ud800"'), r"the token '\ud800' is not in its vocabulary"),
        (('"▁t1"', '"<pad>"'), "the token '<pad>' is no part of a translation"),
        (('"▁t1"', '"</s>"'), "the token '</s>' is no part of a translation"),
        (("[[2, 1], [1, 1]]", "2"), '"parts" is not a list of pairs'),
        (("[[2, 1], [1, 1]]", "[[2, 1, 1]]"), '"parts" is not a list of pairs'),
        (("[1, 1]", "[0, 1]"), '"parts" is not a list of pairs'),
        (("[1, 1]", "[1, -1]"), '"parts" is not a list of pairs'),
        (("[1, 1]", "[1, 1.0]"), '"parts" is not a list of pairs'),
        (("[1, 1]", "[1, 2]"), '"parts" counts 3 tokens, and there are 2'),
    ],
)
def test_wrong_records_are_refused(
    words: tuple[Tokenizer, Tokenizer], change: tuple[str, str], message: str
) -> None:
    assert read_record(GOOD, 3, words[1], file="f").translations[0].parts == ((2, 1), (1, 1))
    wrong = GOOD.replace(*change)
    assert wrong != GOOD
    with pytest.raises(UserError) as caught:
        read_record(wrong, 3, words[1], file="f")
    assert str(caught.value).startswith("f:3: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.sampled_from(["line", "source", "translations", "tokens", "parts"]), inner),
    ),
)


@settings(deadline=None)
@given(text=st.one_of(st.text(), json_values.map(json.dumps)))
def test_any_text_is_read_or_refused(words: tuple[Tokenizer, Tokenizer], text: str) -> None:
    try:
        record = read_record(text, 1, words[1], file="f")
    except UserError:
        return
    assert record.translations
