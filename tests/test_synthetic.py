"""The offline corpus: its lines, its splits and what they hold out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nmt.data import (
    synthetic,
    synthetic_german,
    synthetic_held_out,
    synthetic_lexicon,
    synthetic_lexicon_verbs,
)
from nmt.data.synthetic import Pair, generate, tokenize, write_corpus
from nmt.data.synthetic_grammar import realise
from nmt.data.synthetic_sampling import Draw
from nmt.errors import UserError

# The first of each split: a larger one only adds to the end.
SIZES = {"train": 4000, "validation": 150, "test": 150, "test-compositional": 180}
SMALL_SIZES = {"train": 40, "validation": 10, "test": 10, "test-compositional": 12}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Pair]]:
    return {split: list(generate(split, count, seed=1)) for split, count in SIZES.items()}


def test_each_word_has_one_german_counterpart() -> None:
    for words in (synthetic_lexicon.NOUNS, synthetic_lexicon.ADJECTIVES):
        english = [word.en for word in words]
        assert len(english) == len(set(english))
    # A verb may have two, told apart by what it takes: "know" a person, "know that".
    frames = [(verb.en, verb.frame, verb.prep) for verb in synthetic_lexicon_verbs.VERBS]
    assert len(frames) == len(set(frames))
    assert all(verb.en.split()[0] != verb.en_past for verb in synthetic_lexicon_verbs.VERBS)


def test_what_is_held_out_is_in_the_lexicon() -> None:
    verbs = {verb.infinitive for verb in synthetic_lexicon_verbs.VERBS}
    separable = {verb.infinitive for verb in synthetic_lexicon_verbs.VERBS if verb.prefix}
    assert separable >= synthetic_held_out.HELD_OUT_VERB_FINAL
    assert {noun.de for noun in synthetic_lexicon.NOUNS} >= synthetic_held_out.HELD_OUT_DATIVE
    assert {modal.en for modal in synthetic_lexicon_verbs.MODALS} == set(synthetic_held_out.HELD_OUT_MODAL)
    assert all(verbs >= held_out for held_out in synthetic_held_out.HELD_OUT_MODAL.values())
    adjectives = {adjective.en for adjective in synthetic_lexicon.ADJECTIVES}
    assert all(adjectives >= held_out for held_out in synthetic_held_out.HELD_OUT_ADJECTIVE.values())


def test_tokenize() -> None:
    assert tokenize("Am 3. Mai um 8:30 Uhr, weil er 24 ist.") == (
        ["Am", "3.", "Mai", "um", "8:30", "Uhr", ",", "weil", "er", "24", "ist", "."]
    )
    assert tokenize("Anna's dog sleeps at six o'clock.") == (
        ["Anna", "'s", "dog", "sleeps", "at", "six", "o'clock", "."]
    )


def test_lines_are_ordinary_text_and_fully_aligned(splits: dict[str, list[Pair]]) -> None:
    for pair in (pair for pairs in splits.values() for pair in pairs):
        source, target = tokenize(pair.source), tokenize(pair.target)
        assert list(pair.alignment) == sorted(set(pair.alignment))
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in pair.alignment)
        # All words but these have a counterpart.
        assert {source[i] for i in set(range(len(source))) - {i for i, _ in pair.alignment}} <= {","}
        unlinked = {target[j] for j in set(range(len(target))) - {j for _, j in pair.alignment}}
        assert unlinked <= {",", "Uhr", "Jahr"}
        for line in (pair.source, pair.target):
            assert line[0].isupper() or line[0].isdigit()
            assert line[-1] in ".?"
            assert not re.search(r"\s[,.?']|\s\s|,,|,[.?]|,\S|^\s", line)
        assert 2 < len(source) <= 25
        assert not re.search(r"\ban [^aeiou]|\ba [aeiou]", pair.source)


def test_word_order_of_generated_german(splits: dict[str, list[Pair]]) -> None:
    finite = {form for modal in synthetic_lexicon_verbs.MODALS for form in modal.forms}
    finite |= {form for forms in synthetic_german._IRREGULAR.values() for form in forms}
    for verb in synthetic_lexicon_verbs.VERBS:
        forms = [synthetic_german._german_present(verb, person) for person in synthetic_german._FORMS]
        forms += [
            synthetic_german._german_preterite(verb.preterite, p)
            for p in synthetic_german._FORMS
            if verb.preterite
        ]
        finite |= set(forms) | {verb.prefix + form for form in forms}
    openers = "weil|obwohl|wenn|während|bevor|dass|ob|als"
    inverted = final = 0
    for pair in splits["train"]:
        # No relative clause inside these: the clause runs from its conjunction to the next mark.
        found = re.search(rf"(?:^|, )(?:{openers}) ([^,]+)(?:,|\.$)", pair.target, re.IGNORECASE)
        if found:
            assert found[1].split()[-1] in finite, pair.target
            final += 1
        if pair.target.startswith(("Gestern ", "Heute ", "Morgen ")) and not re.match(
            "(Heute|Gestern) (Mor|Ab)", pair.target
        ):
            word = pair.target.split()[1]
            inverted += 1
            assert word in finite, pair.target
        assert not re.search(r"[^,] (?:weil|obwohl|wenn|während|bevor|dass|ob) ", pair.target), pair.target
    assert final > 400
    assert inverted > 15


def test_no_sentence_is_in_two_splits_or_twice_in_one(splits: dict[str, list[Pair]]) -> None:
    sources = [pair.source for pairs in splits.values() for pair in pairs]
    assert len(sources) == len(set(sources)) == sum(SIZES.values())
    assert SIZES.keys() == synthetic.SPLITS.keys()


def test_one_english_line_has_one_german_line() -> None:
    draw, first = Draw("one German line"), dict[str, Pair]()
    for sentence in (draw.sentence() for _ in range(10_000)):
        if sentence.second:
            continue  # So long that hardly any comes twice.
        pair = realise(sentence)
        # The same reading also: the same alignment, and held out or not.
        assert first.setdefault(pair.source, pair) == pair


def test_splits_hold_out_what_they_say(splits: dict[str, list[Pair]]) -> None:
    seen = [pair for split in ("train", "validation", "test") for pair in splits[split]]
    assert not any(pair.held_out for pair in seen)
    assert all(pair.held_out for pair in splits["test-compositional"])
    for family in synthetic.FAMILIES:
        assert sum(family in pair.reserved for pair in splits["test-compositional"]) >= 30
    # On the text itself, without asking the predicate.
    words = {word for pair in seen for word in tokenize(pair.target)}
    reserved_words = {word for pair in splits["test-compositional"] for word in tokenize(pair.target)}
    glued = {"abholt", "zumacht", "aufwacht", "aufschreibt", "mitbringt", "anruft"}
    assert not glued & words
    assert glued <= reserved_words
    english = "\n".join(pair.source for pair in seen)
    assert not re.search(
        r"\b(can|cannot)( \w+ly| often| always| never| sometimes)? (help|buy|get up|eat) ", english
    )
    assert not re.search(r"\b(old|big|friendly|good) (woman|sister|cat|door|bag|soup|story)\b", english)
    german = "\n".join(pair.target for pair in seen)
    assert not re.search(
        r"\b(dem|einem|diesem|meinem) (Kind|Lehrer|Nachbarn|Onkel)\b|Kindern|Dörfern", german
    )


def test_the_parts_of_what_is_held_out_are_in_train(splits: dict[str, list[Pair]]) -> None:
    words = {word for pair in splits["train"] for word in tokenize(pair.target)}
    forms = {
        verb.infinitive: (verb.infinitive, verb.third, verb.participle)
        for verb in synthetic_lexicon_verbs.VERBS
    }
    for infinitive in synthetic_held_out.HELD_OUT_VERB_FINAL.union(
        *synthetic_held_out.HELD_OUT_MODAL.values()
    ):
        assert words.issuperset(forms[infinitive]), infinitive
    assert words >= synthetic_held_out.HELD_OUT_DATIVE
    assert words.issuperset(form for modal in synthetic_lexicon_verbs.MODALS for form in modal.forms)
    assert words >= {"aufmacht", "ankommt", "ausschaltet", "einlädt", "nicht", "kein"}
    english = {word for pair in splits["train"] for word in tokenize(pair.source)}
    assert english.issuperset(adjective.en for adjective in synthetic_lexicon.ADJECTIVES)
    # And no word of the compositional test is new, but for the forms that are themselves held out.
    lemmas = {noun.en for noun in synthetic_lexicon.NOUNS} | set(synthetic_lexicon.NAMES)
    assert english >= lemmas


def test_lengths_vary_alike(splits: dict[str, list[Pair]]) -> None:
    def mean(split: str) -> float:
        return sum(len(tokenize(pair.source)) for pair in splits[split]) / len(splits[split])

    assert 9 < mean("train") < 11.5
    assert abs(mean("train") - mean("test")) < 0.8


def test_the_corpus_is_determined_by_its_seed(tmp_path: Path) -> None:
    written = [
        write_corpus(tmp_path / name, seed=seed, sizes=SMALL_SIZES)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    names = [f"{split}.{suffix}" for split in SMALL_SIZES for suffix in ("en", "de", "align")]
    assert [path.name for path in written[0]] == names
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    texts = [[path.read_bytes() for path in paths] for paths in written]
    assert texts[0] == texts[1]
    assert all(mine != other for mine, other in zip(texts[0], texts[2], strict=True))
    for split, size in SMALL_SIZES.items():
        english, german, links = (
            (tmp_path / "a" / f"{split}.{suffix}").read_text("utf-8").splitlines()
            for suffix in ("en", "de", "align")
        )
        assert len(english) == len(german) == len(links) == size
        assert all(re.fullmatch(r"\d+-\d+( \d+-\d+)*", line) for line in links)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.de").write_text("my own corpus\n")
    with pytest.raises(UserError, match=r"train\.de: is there with other text; remove it, or choose another"):
        write_corpus(tmp_path, sizes=SMALL_SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["train.de"]
    (tmp_path / "train.de").unlink()
    assert write_corpus(tmp_path, sizes=SMALL_SIZES) == write_corpus(tmp_path, sizes=SMALL_SIZES)


def test_a_larger_split_starts_alike() -> None:
    assert list(generate("test", 30, seed=3)) == list(generate("test", 60, seed=3))[:30]


def test_other_seeds_never_train_on_a_test_sentence(splits: dict[str, list[Pair]]) -> None:
    tested = {pair.source for split in ("validation", "test") for pair in splits[split]}
    assert not tested & {pair.source for pair in generate("train", 1000, seed=2)}


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'"):
        generate("dev", 1)
    with pytest.raises(UserError, match="1 or more"):
        write_corpus(tmp_path / "corpus", sizes={"train": 10, "test": 0})
    assert not list((tmp_path / "corpus").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the corpus"):
        write_corpus(tmp_path / "file", sizes={"test": 1})


def test_running_out_of_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_LONGEST", 3)
    monkeypatch.setattr(synthetic, "_PATIENCE", 200)
    with pytest.raises(UserError, match="too few sentences"):
        list(generate("test", 500))
