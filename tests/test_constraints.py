"""Prefixes, required and forbidden phrases: against enumeration, and held on text, whatever the tokens."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import trained_once
from tables import best_of_all, find, surfaces, text
from test_search import Table, assert_same

from nmt.beam import Beam, beam_search
from nmt.constraints import Constraints, Demand, Wish
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from nmt.errors import UserError
from nmt.patterns import UNREACHABLE, Beginning, Pattern, Surfaces
from nmt.search import Sentence

TEXT = [
    "das Haus am See ist groß",
    "der Hund im Hausboot sieht „die Katze“ nicht",
    "Boot, Haus; Seehaus und Hausboote – 東京に行く",
] * 20
tokenizer_of = trained_once(TEXT, {"bpe": 320, "unigram": 300, "word": 100, "char": 400})
KINDS = ["bpe", "unigram", "word", "char"]


class Letters:
    """The tokenizer of `tables.surfaces`: what `Demand` needs of one."""

    word_level = False

    def encode(self, line: str) -> list[int]:
        return [ord(letter) - 65 for letter in line]


def demand(vocabulary: int, most: int, **wish: Any) -> Demand:
    letters: Any = Letters()
    return Demand(Wish(**wish), letters, surfaces(vocabulary), most, whole_words=False)


# --- tables ------------------------------------------------------------------------------------------------

LETTERS = "CDEF"  # tokens 2 and up
words = st.text(st.sampled_from(LETTERS), min_size=1, max_size=2)
wishes = st.builds(
    Wish,
    prefix=st.text(st.sampled_from(LETTERS), max_size=3),
    required=st.lists(words, max_size=2).map(tuple),
    forbidden=st.lists(words, max_size=2).map(tuple),
)


@settings(max_examples=150, deadline=None)
@given(wish=wishes, seed=st.integers(0, 10_000), beam=st.sampled_from([1, 2, 3, 5, 400]))
def test_a_beam_against_enumeration(wish: Wish, seed: int, beam: int) -> None:
    """A large beam finds the best of all that satisfy the wish; a small one finds some that do."""
    most, vocabulary = 6, 6
    table = Table(seed % 50, 1, vocabulary, most, peaked=[0.3, 1.0, 3.0][seed % 3])
    letters: Any = Letters()
    try:
        asked = Demand(wish, letters, surfaces(vocabulary), most, whole_words=False)
    except UserError:
        return
    every = best_of_all(
        table,
        0,
        (1, most),
        lambda tokens: (
            text(tokens).startswith(wish.prefix)
            and all(phrase in text(tokens) for phrase in wish.required)
            and not any(phrase in text(tokens) for phrase in wish.forbidden)
        ),
        alpha=0.5,
    )
    (found,) = find(table, [0], [(1, most)], demands={0: asked}, beam_size=beam, n_best=1, alpha=0.5)
    assert {h.tokens for h in found} <= {tokens for tokens, _, _ in every}
    # Phrases that overlap could be had in fewer tokens than they are counted for, at the very end alone.
    surely = most - 1 - asked.need(asked.first)
    if beam == 400 and (
        len(wish.required) + bool(wish.prefix) <= 1 or not every or len(every[0][0]) <= surely
    ):
        assert_same(found, every[:1])
    if not wish.forbidden:
        assert found


@pytest.mark.parametrize("beam_size", [1, 2, 4])
def test_a_sentence_alone_and_in_any_company(beam_size: int) -> None:
    """Bit for bit, sentences with and without wishes."""
    kinds: list[dict[str, Any] | None] = [
        None,
        dict(prefix="DC"),
        dict(required=("CE",)),
        dict(forbidden=("D", "EE")),
        dict(prefix="E", required=("D",), forbidden=("C",)),
    ]
    for seed in range(4):
        random = np.random.default_rng([seed, 5])
        count, longest = 13, 6
        table = Table(seed, count, 6, longest, peaked=2.0)
        limits = [(1, int(most)) for most in random.integers(4, longest + 1, size=count)]
        demands = {
            s: demand(6, limits[s][1], **wish) for s in range(count) if (wish := kinds[s % len(kinds)])
        }
        options: dict[str, Any] = dict(demands=demands, beam_size=beam_size, n_best=min(2, beam_size))
        alone = [find(table, [s], [limits[s]], **options)[0] for s in range(count)]
        assert all(alone)
        free = find(table, list(range(count)), limits, **options | dict(demands=None))
        assert [alone[s] for s in range(0, count, 5)] == free[::5]
        order = random.permutation(count).tolist()
        for room in (None, 1, 2, 5):
            found = find(table, order, [limits[s] for s in order], room=room, **options)
            assert found == [alone[s] for s in order]


def test_a_phrase_stands_where_it_fits_and_not_at_the_end() -> None:
    """The beam keeps places for hypotheses that have the phrase early, though they score less at first."""
    table = Table(0, 1, 5, 5)
    table.log_probs_BPV[:] = torch.tensor([0.0, 0.01, 0.93, 0.03, 0.03]).log()  # C, always C
    after_d = table.log_probs_BPV[0, 4::5][:20]
    del after_d
    first_d = 3 + 1  # the prefix D
    table.log_probs_BPV[0, first_d] = torch.tensor([0.0, 0.98, 0.01, 0.005, 0.005]).log()
    asked = {0: demand(5, 5, required=("D",))}
    (found,) = find(table, [0], [(1, 5)], demands=asked, beam_size=2)
    assert text(found[0].tokens) == "D"


def test_no_repeat_yields_to_what_is_required() -> None:
    table = Table(4, 1, 5, 6)
    for wish in (dict(prefix="DDD"), dict(required=("DDD",))):
        asked = {0: demand(5, 6, **wish)}
        (found,) = find(table, [0], [(1, 6)], demands=asked, beam_size=2, no_repeat_ngram=1)
        assert "DDD" in text(found[0].tokens)


# --- text --------------------------------------------------------------------------------------------------


def translations(
    tokenizer: Tokenizer, asked: list[Wish], seed: int, *, most: int = 14, beam_size: int = 3
) -> list[str]:
    """What a beam search with random scores writes."""
    found_in = Surfaces.of(tokenizer)
    demands = [Demand(wish, tokenizer, found_in, most) if wish else None for wish in asked]
    generator = torch.Generator().manual_seed(seed)
    # Whatever was written before, so that nothing but the wish ends a word or a phrase.
    scores_BV = torch.randn((len(asked), len(tokenizer)), generator=generator) * 3
    # Such words as the wishes have are likely, and so is their going on.
    for piece in ("▁Haus", "▁See", "boot", "▁das", "▁", "H", "a", "u", "s", "東"):
        scores_BV[:, tokenizer.id_of(piece)] += 6 * torch.rand(len(asked), generator=generator)

    def step(token_BK: torch.Tensor, state: Rows, live_N: torch.Tensor | None) -> Any:
        sentence_BK = state.sentence_B[:, None].expand_as(token_BK)
        noise = torch.sin(scores_BV[sentence_BK.flatten()] * (1 + token_BK.flatten()[:, None] % 7))
        rows = scores_BV[sentence_BK.flatten()] + noise
        rows = rows.log_softmax(dim=-1)
        rows = rows if live_N is None else rows[live_N]
        return [(rows, torch.zeros(len(rows), 1))], state

    results = [""] * len(asked)
    for index, hypotheses in beam_search(
        step,
        lambda indices: Rows(torch.tensor(indices)),
        [Sentence(most) for _ in asked],
        Beam(
            beam_size,
            end=EOS,
            alpha=0.6,
            forbidden=[PAD, BOS] if tokenizer.word_level else [PAD, BOS, UNK],
            guide=Constraints(demands, EOS),
        ),
        begin=BOS,
    ):
        assert hypotheses, asked[index]
        results[index] = tokenizer.decode(hypotheses[0].tokens).replace("\n", " ").replace("\r", " ")
    return results


class Rows:
    def __init__(self, sentence_B: torch.Tensor):
        self.sentence_B = sentence_B

    def select(self, beam_BK: torch.Tensor) -> Rows:
        return self

    def keep(self, sentences_B: torch.Tensor) -> Rows:
        return Rows(self.sentence_B[sentences_B])

    def put(self, sentences_R: torch.Tensor, other: Rows) -> Rows:
        return Rows(self.sentence_B.index_copy(0, sentences_R, other.sentence_B))


VOCABULARY = sorted({word for line in TEXT[:2] for word in line.split(" ")})
known = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=2).map(" ".join)
any_text = st.text(st.sampled_from("aHus sdeß東–„x 7"), min_size=1, max_size=8).map(str.strip).filter(bool)


def phrases(kind: str) -> st.SearchStrategy[str]:
    return known if kind == "word" else st.one_of(known, any_text)


def is_there(phrase: str, line: str) -> bool:
    """As words of their own, where it begins and ends with one."""
    before = r"(?<!\w)" if phrase[0].isalnum() and phrase[0] not in "東" else ""
    behind = r"(?!\w)" if phrase[-1].isalnum() and phrase[-1] not in "東" else ""
    return re.search(before + re.escape(phrase) + behind, line) is not None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000), beam_size=st.sampled_from([1, 3, 6]))
def test_text_holds_what_is_required_and_not_what_is_forbidden(
    kind: str, data: st.DataObject, seed: int, beam_size: int
) -> None:
    tokenizer = tokenizer_of(kind)
    most = 40 if kind == "char" else 24
    asked = []
    for _ in range(3):
        wish = Wish(
            prefix=data.draw(st.one_of(st.just(""), phrases(kind))),
            required=tuple(data.draw(st.lists(phrases(kind), max_size=2))),
            forbidden=tuple(data.draw(st.lists(phrases(kind), max_size=2))),
        )
        try:
            wish.check(tokenizer)
            Demand(wish, tokenizer, Surfaces.of(tokenizer), most)
        except UserError:
            wish = Wish(forbidden=wish.forbidden)
        if wish.required or wish.prefix:
            # With both there may be no way out of what is forbidden.
            wish = Wish(wish.prefix, wish.required, ())
        asked.append(wish)
    for wish, line in zip(
        asked, translations(tokenizer, asked, seed, most=most, beam_size=beam_size), strict=True
    ):
        assert line.startswith(wish.prefix.rstrip(" "))
        for phrase in wish.required:
            assert is_there(phrase, line), (phrase, line)
        for phrase in wish.forbidden:
            assert phrase not in line, (phrase, line)


@pytest.mark.parametrize("kind", KINDS)
def test_required_and_forbidden_together(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    asked = [
        Wish(required=("Haus",), forbidden=("das", "See", "Hausboot")),
        Wish(required=("das Haus am See",), forbidden=("der", "ist")),
        Wish(prefix="das Ha", required=("See",), forbidden=("am",)),
    ]
    for seed in range(5):
        for wish, line in zip(asked, translations(tokenizer, asked, seed, most=30), strict=True):
            assert line.startswith(wish.prefix)
            assert all(is_there(phrase, line) for phrase in wish.required)
            assert not any(phrase in line for phrase in wish.forbidden)


def test_a_part_of_a_word_is_not_the_word() -> None:
    """The pieces of Hausboot begin with the word Haus."""
    found_in = Surfaces.of(tokenizer_of("bpe"))
    pattern = Pattern("Haus", found_in, whole_words=True)

    def state(line: str) -> int:
        state = pattern.begin
        for token in tokenizer_of("bpe").encode(line):
            state = int(pattern.next_SV[state, token])
        return state

    for line in ("Haus, das", "das „Haus“ ist", "Seehaus, Haus-Boot", "Haus–", "Hausboot Haus und"):
        assert state(line) == pattern.done, line
    for line in ("das Haus", "Haus", "Hausboot – Haus"):
        assert state(line) == pattern.whole, line
    for line in ("Hausboot", "SeeHaus", "haus", "Hau", "Haus7", "ßHaus", "Häus"):
        assert state(line) < pattern.whole, line
    assert Pattern("東", found_in, whole_words=True).done == Pattern("東", found_in, whole_words=False).done


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_patterns_read_tokens_as_text(kind: str, data: st.DataObject) -> None:
    """A phrase is found in tokens where it is in their text, however they spell it."""
    tokenizer = tokenizer_of(kind)
    found_in = Surfaces.of(tokenizer)
    phrase = data.draw(phrases(kind))
    line = " ".join(data.draw(st.lists(phrases(kind), min_size=1, max_size=4)))
    pattern = Pattern(phrase, found_in, whole_words=False)
    spellings = [tokenizer.encode(line)]
    if not tokenizer.word_level:  # the same in bytes
        spellings.append([tokenizer.id_of(f"<0x{byte:02X}>") for byte in line.encode()])
    for tokens in spellings:
        state = pattern.begin
        for token in tokens:
            state = int(pattern.next_SV[state, token])
        assert (state == pattern.done) == (phrase in tokenizer.decode(tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_surfaces_are_the_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    found = Surfaces.of(tokenizer)
    for line in (*TEXT[:3], "x 7 ü", "東 –"):
        tokens = tokenizer.encode(line)
        spelled = b"".join(found.surfaces[token] for token in tokens)
        assert spelled.decode().removeprefix(" ") == tokenizer.decode(tokens)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_there_is_always_a_token_that_gets_on(kind: str, data: st.DataObject) -> None:
    """So what is required can be had in as many tokens as are said to be needed, from wherever one is."""
    tokenizer = tokenizer_of(kind)
    found_in = Surfaces.of(tokenizer)
    wish = Wish(
        prefix=data.draw(st.one_of(st.just(""), known)),
        required=tuple(data.draw(st.lists(phrases(kind), min_size=1, max_size=3))),
    )
    try:
        asked = Demand(wish, tokenizer, found_in, 90)
    except UserError:
        return
    spelled = "".join((*wish.required, wish.prefix)).encode()
    states = asked.first
    for _ in range(15):
        need_V, refused_V = asked.ahead(states)
        need = asked.need(states)
        nearer_V = (need_V < need) & ~refused_V
        assert need == 0 or nearer_V.any()
        (likely_N,) = (~refused_V & (need_V < UNREACHABLE)).nonzero()
        pieces = [found_in.surfaces[token].strip() for token in likely_N]
        of_phrases = [token for token, piece in zip(likely_N, pieces, strict=True) if piece in spelled]
        states = asked.after(states, int(data.draw(st.sampled_from(of_phrases or likely_N.tolist()))))


# --- prefixes ----------------------------------------------------------------------------------------------


def test_the_last_word_of_a_prefix_may_go_on_unless_a_blank_ends_it() -> None:
    tokenizer = tokenizer_of("bpe")
    found_in = Surfaces.of(tokenizer)

    def fits(prefix: str, line: str) -> bool:
        beginning = Beginning.of(prefix, tokenizer, found_in)
        state = 0
        for token in tokenizer.encode(line):
            if state < beginning.done:
                state = int(beginning.next(state)[token])
            if state < 0:
                return False
        return state >= beginning.blank_from

    for line in ("das Haus", "das Haus am", "das Hausboot", "das Ha"):
        assert fits("das Ha", line), line
    assert not fits("das Ha", "das Hund")
    assert not fits("das Haus ", "das Hausboot")
    assert fits("das Haus ", "das Haus am")
    assert fits("das Haus ", "das Haus")


def test_a_prefix_of_words() -> None:
    tokenizer = tokenizer_of("word")
    found_in = Surfaces.of(tokenizer)
    open_ended = Beginning.of("das Ha", tokenizer, found_in)
    assert (open_ended.forced, open_ended.rest) == (tokenizer.encode("das"), b" Ha")
    closed = Beginning.of("das Haus ", tokenizer, found_in)
    assert (closed.forced, closed.rest) == (tokenizer.encode("das Haus"), b"")
    with pytest.raises(UserError, match='no words of the vocabulary begin with "das Xq"'):
        Demand(Wish(prefix="das Xq"), tokenizer, found_in, 10)


# --- errors ------------------------------------------------------------------------------------------------


def test_what_no_tokens_spell() -> None:
    words = tokenizer_of("word")
    with pytest.raises(UserError, match='"Zug" is not in the vocabulary of words') as caught:
        Wish(required=("das Zug",), line=7, files={"required": "terms.tsv"}).check(words)
    assert (caught.value.file, caught.value.line) == ("terms.tsv", 7)
    with pytest.raises(UserError, match='"Zug" is not in'):
        Wish(prefix="Zug ").check(words)
    Wish(prefix="das Zug", forbidden=("Haus",)).check(words)
    letters = surfaces(5)
    assert Pattern("Z", letters, whole_words=False).most >= UNREACHABLE
    with pytest.raises(UserError, match='no tokens spell "Z"'):
        demand(5, 6, required=("Z",))


def test_what_is_longer_than_the_maximum() -> None:
    demand(5, 4, prefix="CDE")
    with pytest.raises(UserError, match="prefix of 4 tokens is longer than the maximum of 3"):
        demand(5, 4, prefix="CDED")
    with pytest.raises(UserError, match="needs 4 tokens, more than the maximum of 3"):
        demand(5, 4, required=("CDED",))


def test_what_contradicts_itself() -> None:
    tokenizer = tokenizer_of("bpe")
    with pytest.raises(UserError, match='"das Haus" is required, and holds "Haus", which is forbidden'):
        Wish(required=("das Haus",), forbidden=("Haus",)).check(tokenizer)
    with pytest.raises(UserError, match="begins the translation"):
        Wish(prefix="das Haus", forbidden=("Haus",)).check(tokenizer)
