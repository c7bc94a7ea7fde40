"""Words, tokens and attention fit together on any text; links, gold alignments and their error rate."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import TINY, text_lines, trained_once

from nmt.alignment import (
    Aligner,
    View,
    end_is_mark,
    in_order,
    links,
    merge,
    pharaoh,
)
from nmt.checkpoint import LoadedModel
from nmt.config_file import parse_config
from nmt.data.synthetic import generate, tokenize
from nmt.data.tokenizer import BOS, EOS, SPACE, UNK, Tokenizer
from nmt.errors import UserError
from nmt.forced import attention, fitting, log_probabilities
from nmt.gold import Gold, agreement_of
from nmt.models import build_model
from nmt.search import Hypothesis
from nmt.symmetrize import METHODS
from nmt.text_alignment import Alignment, Seen, choose, choose_by_agreement, look, symmetric
from nmt.translations import Part
from nmt.unknown import UnknownWords, read_dictionary
from nmt.words import deciding_tokens, shares, split_words, token_spans, word_spans

PAIRS = [(pair.source, pair.target) for pair in generate("train", 150, seed=3)]
TEXT = [side for pair in PAIRS for side in pair]
SIZES = {"bpe": 420, "unigram": 400, "char": 400, "word": 400}
HOSTILE = [
    *("", " ", "   ", " a", "a ", "  two  blanks  ", "a\tb", "\t", "\u3000", "a\u00a0b \u2028 c\r"),
    *(SPACE, f"{SPACE}{SPACE} {SPACE}", f"a{SPACE}b c", "nul\0 \0", "😀👩‍👩‍👧 漢字", "e\u0301 \u0301"),
    *("<s> </s> <unk>", "<0x41><0x0A> x", "Er sagt: »Nein!« (um 8:30 Uhr am 3. Mai) ...", "\ufeffA", "שלום"),
]


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Tokenizer]:
    return trained_once(TEXT, SIZES)


lines = text_lines(HOSTILE + TEXT[:3], f"ab \0.'{SPACE}\u0301😀3")


# --- words and tokens --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(line=lines)
@example("Anna's o'clock 8:30 3. Mai.")
def test_words_are_where_they_are(line: str) -> None:
    raw = line.encode()
    for words, expected in (("blank", [w for w in line.split(" ") if w]), ("punctuation", tokenize(line))):
        assert split_words(line, words) == expected
        spans = word_spans(line, words)
        assert [raw[begin:end].decode() for begin, end in spans] == expected
        between = [0, *(place for span in spans for place in span), len(raw)]
        assert between == sorted(between)
        gaps = zip(between[::2], between[1::2], strict=True)
        assert "".join(raw[begin:end].decode() for begin, end in gaps).strip() == ""


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
@settings(deadline=None, max_examples=100)
@given(line=lines)
def test_tokens_are_where_they_are(trained: Callable[[str], Tokenizer], kind: str, line: str) -> None:
    """Each byte of a word is in one token, and the token belongs to the word by its share of bytes."""
    tokenizer = trained(kind)
    ids = tokenizer.encode(line)
    tokens = token_spans(line, ids, tokenizer)
    assert len(tokens) == len(ids)
    if kind != "word" and ids:
        assert (tokens[0][0], tokens[-1][1]) == (-1, len(line.encode()))
        assert [end for _, end in tokens[:-1]] == [begin for begin, _ in tokens[1:]]
    for words in ("blank", "punctuation"):
        spans = word_spans(line, words)
        found = shares(tokens, spans)
        deciding = deciding_tokens(line, words, tokens)
        assert found.shape == (len(ids), len(spans))
        for (begin, end), row in zip(tokens, found, strict=True):
            held = [max(0, min(end, e) - max(begin, b)) for b, e in spans]
            if any(held):
                np.testing.assert_allclose(row, np.array(held) / sum(held), rtol=1e-6)
            else:  # blanks, which begin the next word
                following = [j for j, (b, _) in enumerate(spans) if b >= end]
                assert [*np.flatnonzero(row)] == following[:1]
                assert row.sum() == len(following[:1])
        for word, (place, (begin, end)) in enumerate(zip(deciding, spans, strict=True)):
            assert found[place, word] > 0
            assert tokens[place][0] < end
            assert tokens[place][1] > begin


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
@settings(deadline=None, max_examples=100)
@given(line=lines)
def test_a_mark_of_a_blank_begins_a_word(trained: Callable[[str], Tokenizer], kind: str, line: str) -> None:
    """The same word numbers, counted from the pieces."""
    tokenizer = trained(kind)
    ids = tokenizer.encode(line)
    found = shares(token_spans(line, ids, tokenizer), word_spans(line))
    word, after_blank = -1, True
    for piece, row in zip(tokenizer.pieces(ids), found, strict=True):
        numbers = set()
        for character in piece if piece[:3] != "<0x" else "x":
            if character == SPACE:
                after_blank = True
                continue
            word += after_blank
            after_blank = False
            numbers.add(word)
        assert numbers <= set(np.flatnonzero(row))
        assert len(numbers) == np.count_nonzero(row) or not numbers
    assert word + 1 == len(split_words(line))


def test_shares() -> None:
    line = "Er sagt:n. "
    tokens = [(-1, 0), (0, 2), (2, 5), (5, 9), (9, 10), (10, 11)]  # ▁  Er  ▁sa  gt:n  .  ▁
    assert shares(tokens, word_spans(line)).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 0]]
    assert split_words(line, "punctuation") == ["Er", "sagt", ":", "n", "."]
    assert shares(tokens, word_spans(line, "punctuation")).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0.5, 0.25, 0.25, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]


def test_the_token_that_decides_has_the_first_letter() -> None:
    line = '"Über uns!" ..'
    # "  Ü in two bytes  ber  ▁uns  !"  ▁..
    tokens = [(-1, 1), (1, 2), (2, 3), (3, 6), (6, 10), (10, 12), (12, 15)]
    assert deciding_tokens(line, "blank", tokens) == [1, 4, 6]
    # words " Über uns ! " . .
    assert deciding_tokens(line, "punctuation", tokens) == [0, 1, 4, 5, 5, 6, 6]


def test_merging_adds_up_source_tokens_and_takes_the_deciding_target_tokens() -> None:
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0, 0.2, 0.2, 0.6]], dtype=np.float32)
    source = np.array([[1, 0], [0.5, 0.5], [0, 1]], dtype=np.float32)
    before = weights.copy()
    found = merge(weights[None, None], source, [0, 1], [False, False])
    np.testing.assert_allclose(found.words_LHIJ, [[[[0.2, 0.4], [0.75, 0.15]]]], rtol=1e-6)
    np.testing.assert_allclose(found.end_LHI, [[[0.4, 0.1]]], rtol=1e-6)
    # The end of the source counts for its last word.
    found = merge(weights[None, None], source, [0, 1], [True, False])
    np.testing.assert_allclose(found.words_LHIJ, [[[[0.2, 0.8], [0.75, 0.15]]]], rtol=1e-6)
    np.testing.assert_allclose(found.end_LHI, [[[0, 0.1]]], rtol=1e-6)
    assert (weights == before).all()


def test_a_mark_that_looks_at_the_end_looks_at_the_final_mark() -> None:
    assert end_is_mark(["Go", "!"], ["Geh", ",", "3.", "!"]) == [False, True, False, True]
    assert end_is_mark(["Go!"], ["Geh", "!"]) == [False, False]
    assert end_is_mark([], ["!"]) == [False]


# --- links -------------------------------------------------------------------------------------------------


def test_links() -> None:
    words = np.array([[0.5, 0.2, 0.1], [0.1, 0.2, 0.2], [0.3, 0.3, 0.1], [0.0, 0.1, 0.6]])
    end = np.array([0.2, 0.5, 0.3, 0.3])
    # The second attends to the end most; of equals the first counts.
    assert links(words, end) == [(0, 0), (0, 2), (2, 3)]
    assert pharaoh(links(words, end)) == "0-0 0-2 2-3"
    assert links(np.zeros((2, 0)), end[:2]) == []
    assert pharaoh([]) == ""


def test_views() -> None:
    weights = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1)
    assert View().of(weights).item() == 2.5
    assert View(2).of(weights).item() == 4
    assert View(2, 1).of(weights).item() == 3
    assert str(View(2, 1)) == "layer 2, head 1"
    assert str(View(shift=True)) == "mean of layers, mean of heads, shifted by one"
    assert str(View()) == "mean of layers, mean of heads"
    with pytest.raises(UserError, match="no attention layer 3; choose 1 to 2"):
        View(3).of(weights)
    with pytest.raises(UserError, match="no attention head 2; leave it out"):
        View(1, 2).of(weights[:, :1])


# --- models ------------------------------------------------------------------------------------------------

WIDTHS = {
    "transformer": "encoder_layers = 1\ndecoder_layers = 2\nwidth = 16\nfeed_forward_width = 16\nheads = 2",
    "bahdanau": "embedding_width = 8\nhidden_width = 8\nattention_width = 8\nmaxout_width = 8",
    "luong": "embedding_width = 8\nhidden_width = 8\nattentional_width = 8\nlayers = 1",
    "recurrent": "embedding_width = 8\nhidden_width = 8\nlayers = 1",
}
SHAPES = {"transformer": (2, 2), "bahdanau": (1, 1), "luong": (1, 1)}


@pytest.fixture(scope="module")
def untrained(trained: Callable[[str], Tokenizer]) -> Callable[..., LoadedModel]:
    """A small model of an architecture, with any text for tokenizers of a type."""

    def get(architecture: str, kind: str = "bpe", more: str = "") -> LoadedModel:
        before, _, after = TINY.replace("[tokenizer]", "max_tokens = 100\n[tokenizer]").partition("[model]\n")
        model = f'[model]\narchitecture = "{architecture}"\n{WIDTHS[architecture]}\ndropout = 0.0\n{more}\n'
        config = parse_config(f"{before}{model}{after[after.index('[training]') :]}")
        tokenizer = trained(kind)
        torch.manual_seed(1)
        module = build_model(config.model, len(tokenizer), len(tokenizer)).eval()
        return LoadedModel(Path("m"), module, config, tokenizer, tokenizer, {})

    return get


@pytest.mark.parametrize("architecture", SHAPES)
def test_attention_in_batches(untrained: Callable[..., LoadedModel], architecture: str) -> None:
    """What a pair gets does not depend on the others, and is what the decoder records."""
    loaded = untrained(architecture)
    chance = random.Random(1)
    pairs = [*PAIRS[:30], ("", ""), ("", "Ein Haus."), ("A house.", "")]
    chance.shuffle(pairs)
    sources = loaded.source_tokenizer.encode_all([source for source, _ in pairs])
    targets = loaded.target_tokenizer.encode_all([target for _, target in pairs])
    found = dict(attention(loaded, sources, targets))
    assert sorted(found) == list(range(len(pairs)))
    for index, weights in found.items():
        source, target = sources[index], targets[index]
        assert weights.shape == (*SHAPES[architecture], len(target) + 1, len(source) + 1)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
        ((_, alone),) = attention(loaded, [source], [target])
        np.testing.assert_allclose(weights, alone, atol=1e-5)
    record: list[Any] = []
    with torch.inference_mode():
        source_BS = torch.tensor([[*sources[0], EOS]])
        memory = loaded.model.encode(source_BS, source_BS > 0)
        loaded.model.decode(torch.tensor([[BOS, *targets[0]]]), memory, record)
    over_source = [w[0].numpy() for w in record if w.shape[-1] == len(sources[0]) + 1]
    np.testing.assert_allclose(found[0], np.stack(over_source), atol=1e-5)
    assert list(attention(loaded, [], [])) == []


@pytest.mark.parametrize("architecture", WIDTHS)
def test_likelihood(untrained: Callable[..., LoadedModel], architecture: str) -> None:
    """The sum over pairs of the log-probabilities that the decoder's steps give to the target tokens."""
    loaded = untrained(architecture)
    sources = loaded.source_tokenizer.encode_all([source for source, _ in PAIRS[:12]])
    targets = loaded.target_tokenizer.encode_all([target for _, target in PAIRS[:12]])
    found = log_probabilities([loaded], sources, targets)
    assert [len(values) for values in found] == [len(target) + 1 for target in targets]
    nats = -sum(values.sum() for values in found)
    expected = 0.0
    with torch.inference_mode():
        for source, target in zip(sources, targets, strict=True):
            source_BS = torch.tensor([[*source, EOS]])
            memory = loaded.model.encode(source_BS, source_BS > 0)
            state = loaded.model.start(memory)
            for given, wanted in zip([BOS, *target], [*target, EOS], strict=True):
                hidden, state = loaded.model.step(torch.tensor([[given]]), memory, state)
                expected -= loaded.model.project(hidden)[0, 0].log_softmax(dim=-1)[wanted].item()
    assert nats == pytest.approx(expected, rel=1e-4)


def test_a_model_without_attention(untrained: Callable[..., LoadedModel]) -> None:
    loaded = untrained("recurrent")
    message = 'm: model.architecture = "recurrent" has no attention.*bahdanau, luong, transformer'
    with pytest.raises(UserError, match=message):
        list(attention(loaded, [[5]], [[5]]))
    with pytest.raises(UserError, match=message):
        Aligner(loaded)
    with pytest.raises(UserError, match=message):
        UnknownWords(untrained("recurrent", "word"))


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@settings(deadline=None, max_examples=25)
@given(drawn=st.lists(st.tuples(lines, lines), max_size=4), words=st.sampled_from(["blank", "punctuation"]))
def test_any_text_is_aligned(
    untrained: Callable[..., LoadedModel], kind: str, drawn: list[tuple[str, str]], words: str
) -> None:
    aligner = Aligner(untrained("bahdanau", kind), words)
    found = aligner.align(drawn)
    assert len(found) == len(drawn)
    for (source, target), of_views in zip(drawn, found, strict=True):
        if of_views is None:  # beyond 100 tokens
            assert max(len(source.encode()), len(target.encode())) >= 100
            continue
        ((*found_links,),) = of_views
        assert all(0 <= i < len(split_words(source, words)) for i, _ in found_links)
        assert all(0 <= j < len(split_words(target, words)) for _, j in found_links)
        assert len({j for _, j in found_links}) == len(found_links)
        if not (source.strip() and target.strip()):
            assert found_links == []


def test_what_is_too_long(untrained: Callable[..., LoadedModel]) -> None:
    """100 source tokens, as `search` has it, 103 target tokens; or what positions there are."""
    loaded = untrained("transformer")
    assert fitting(loaded, [[5] * 100, [5] * 101, [5]], [[5] * 103, [5], [5] * 104]) == [True, False, False]
    loaded = untrained("transformer", more='positions = "learned"\nmax_positions = 101\n')
    assert fitting(loaded, [[5] * 100] * 2, [[5] * 100, [5] * 101]) == [True, False]
    list(attention(loaded, [[5] * 100], [[5] * 100]))


def test_the_best_view_is_chosen(untrained: Callable[..., LoadedModel]) -> None:
    """A gold alignment made of one head's links is found again."""
    aligner = Aligner(untrained("transformer"))
    views = aligner.views()
    assert [(view.layer, view.head) for view in views] == [
        *((None, None), (1, None), (2, None), (1, 1), (1, 2), (2, 1), (2, 2))
    ]
    found = aligner.align(PAIRS[:20], [View(2, 1)])
    gold = [Gold(frozenset(of[0]), frozenset(of[0])) for of in found if of is not None]
    best = choose(look(aligner, PAIRS[:20], views), gold)
    assert best.view == View(2, 1)
    assert best.agreement is not None
    assert best.agreement.aer == 0
    assert best.lines == [pharaoh(of[0]) for of in found if of is not None]
    plain = choose(look(aligner, PAIRS[:20], [View(2, 1)]), None)
    assert (plain.lines, plain.agreement, plain.ranking) == (best.lines, None, [])
    rates = [agreement.aer for _, agreement in best.ranking]
    assert rates == sorted(rates)
    assert {view for view, _ in best.ranking} == set(views)


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_shifted_by_one_is_where_the_word_has_been_read(
    untrained: Callable[..., LoadedModel], architecture: str, kind: str
) -> None:
    """The links of each word, found by hand from the row after that of its deciding token."""
    loaded = untrained(architecture, kind)
    pairs = PAIRS[:6]
    found = Aligner(loaded).align(pairs, [View(), View(shift=True)])
    different = 0
    for (source, target), of_views in zip(pairs, found, strict=True):
        ids = loaded.source_tokenizer.encode(source), loaded.target_tokenizer.encode(target)
        ((_, weights),) = attention(loaded, [ids[0]], [ids[1]])
        rows = deciding_tokens(target, "blank", token_spans(target, ids[1], loaded.target_tokenizer))
        columns = shares(token_spans(source, ids[0], loaded.source_tokenizer), word_spans(source))
        mean = weights.mean(axis=(0, 1))
        for view, shift in enumerate((0, 1)):
            # No word of these, parted by blanks, is a mark alone, whose weight on the end counts otherwise.
            expected = []
            for word, row in enumerate(rows):
                of_words = mean[row + shift, :-1] @ columns
                if of_words.max() >= mean[row + shift, -1]:
                    expected.append((int(of_words.argmax()), word))
            assert of_views is not None
            assert of_views[view] == expected
        different += of_views[0] != of_views[1]
    assert different or architecture == "bahdanau"  # whose attention hardly moves before training


def test_all_views_shifted_too(untrained: Callable[..., LoadedModel]) -> None:
    aligner = Aligner(untrained("transformer"))
    views = aligner.views((False, True))
    assert [(view.layer, view.head) for view in views[:7]] == [(v.layer, v.head) for v in views[7:]]
    assert [view.shift for view in views] == [False] * 7 + [True] * 7
    assert len(Aligner(untrained("bahdanau")).views((True,))) == 1


def test_two_directions_as_one() -> None:
    """The second direction is turned round; what is too long for either stays without links."""
    forward = Alignment(View(), [[(0, 0), (1, 1)], [(0, 0)], [(2, 0)]], [], None, [])
    backward = Alignment(View(2), [[(0, 0), (1, 2), (2, 2)], [], [(0, 2)]], [1], None, [])
    gold = [Gold(frozenset(g), frozenset(g)) for g in ([(0, 0), (1, 1)], [(0, 0)], [(2, 0)])]
    found = symmetric(forward, backward, "union", gold)
    assert found.backward.links == [[(0, 0), (2, 1), (2, 2)], [], [(2, 0)]]
    assert found.links == [[(0, 0), (1, 1), (2, 1), (2, 2)], [], [(2, 0)]]
    assert found.too_long == [1]
    assert found.by_method.keys() == METHODS.keys()
    for method in METHODS:
        one = symmetric(forward, backward, method, gold)
        assert one.agreement == agreement_of(one.links, gold) == found.by_method[method]
    without = symmetric(forward, backward, "intersection", None)
    assert (without.links, without.agreement, without.by_method) == ([[(0, 0)], [], [(2, 0)]], None, {})
    assert in_order({(1, 0), (0, 1), (0, 0)}) == [(0, 0), (1, 0), (0, 1)]


def test_views_are_chosen_by_agreement() -> None:
    """The pair of views with most links in common; heads and what is too long do not count."""
    views = [View(), View(1), View(2, shift=True), View(1, 1)]
    right = [[(0, 0), (1, 1), (2, 2)], [(0, 1)], [(5, 5)]]
    wrong = [[(0, 1), (1, 2), (2, 0)], [(1, 0)], [(5, 5)]]
    half = [[(0, 0), (1, 2), (2, 1)], [(0, 1)], []]
    turned = [[(j, i) for i, j in found] for found in right]
    forward = Seen(views, [wrong, half, right, right], [])
    backward = Seen([View(), View(2), View(2, 2)], [wrong, turned, turned], [2])
    ours, theirs, agreement = choose_by_agreement(forward, backward)
    assert (ours.view, theirs.view, agreement) == (View(2, shift=True), View(2), 1.0)
    assert (ours.links, theirs.links) == (right, turned)
    assert choose_by_agreement(Seen(views[:2], [wrong, half], []), backward)[2] == 2 * 2 / (4 + 4)
    assert choose_by_agreement(Seen([View()], [[]], []), Seen([View()], [[]], []))[2] == 0


# --- unknown words -----------------------------------------------------------------------------------------


def test_unknown_words_with_a_given_attention(
    untrained: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only hypotheses with <unk> are decoded again; the end of sentence is never a word's origin."""
    loaded = untrained("bahdanau", "word")
    known = loaded.target_tokenizer.encode("Haus")[0]
    assert known != UNK
    line = "  Zora  sees a\tb Quux "
    ids = loaded.source_tokenizer.encode(line)
    parts = [Part(line, ids, 0, ids[:2]), Part(line, ids, 2, ids[2:])]
    found = [
        [Hypothesis((UNK, known, UNK), 0.0, 0.0), Hypothesis((known,), 0.0, 0.0)],
        [Hypothesis((known, UNK), 0.0, 0.0)],
    ]
    given = [
        np.array([[0.1, 0.2, 0.7], [0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0, 0, 1]], dtype=np.float32),
        np.array([[0.5, 0.4, 0.1], [0.0, 0.0, 1.0], [0, 0, 1]], dtype=np.float32),
    ]

    def attend(model: LoadedModel, sources: list[Any], targets: list[Any]) -> Any:
        assert model is loaded
        assert sources == [ids[:2], ids[2:]]
        assert targets == [(UNK, known, UNK), (known, UNK)]
        return iter([(1, given[1][None, None]), (0, given[0][None, None])])

    monkeypatch.setattr("nmt.unknown.attention", attend)
    written = UnknownWords(loaded)(parts, found)
    assert written == [["sees Haus Zora", "Haus"], ["Haus a\tb"]]
    with_words = UnknownWords(loaded, {"sees": "sieht", "zora": "zorà", "a\tb": "c"})(parts, found)
    assert with_words == [["sieht Haus zorà", "Haus"], ["Haus c"]]


def test_a_dictionary(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("a b\n\n  \n c  d \na\tno\nA\tx y \nd\u2028e f\n", encoding="utf-8")
    assert read_dictionary(tmp_path / "d") == {"a": "b", "c": "d", "A": "x y", "d\u2028e": "f"}


def test_the_views_that_have_most_in_common_are_chosen() -> None:
    """A head too; one that links little, and surely the same, does not count."""
    views = [View(), View(1, 1), View(1, 2, True)]
    sentences = 50
    sparse = [[(0, 0)]] * sentences
    dense = [[(i, i) for i in range(4)] + [(4, number % 4)] for number in range(sentences)]
    turned = [[(j, i) for i, j in links[:4]] + [(0, 4)] for links in dense]
    mean = [[(i, 3 - i) for i in range(4)]] * sentences
    forward = Seen(views, [mean, sparse, dense], [])
    backward = Seen(views, [turned, sparse, [[(0, 3)]] * sentences], [])
    ours, theirs, agreement = choose_by_agreement(forward, backward)
    assert (ours.view, theirs.view) == (views[2], views[0])
    assert 0.8 <= agreement < 1.0
