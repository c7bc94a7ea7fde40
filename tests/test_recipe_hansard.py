"""The recipe hansard: gold sentences in the form of the training text, word for word, and the doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from nmt.alignment import View
from nmt.config_file import load_config
from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.gold import read_gold
from recipes import load_script

RECIPE = ROOT / "recipes" / "hansard"
DATA = ROOT / ".." / "shared" / "data"


hansard = load_script("hansard", "hansard")


# The form of the training text


@pytest.mark.parametrize(
    ("language", "tokens", "line"),
    [
        ("en", "i have a « quiet » word , sir !", 'I have a "quiet" word, sir!'),
        (
            "en",
            "the women 's co - op ( a shop ) paid $ 3 , or 5 % .",
            "The women's co-op (a shop) paid $3, or 5%.",
        ),
        ("en", "madam , it is over ...", "Madam, it is over..."),
        ("fr", "je ai lu le histoire de un été .", "J'ai lu l'histoire d'un ete."),
        ("fr", "ce est le onze , et il y a le haut , de où ?", "C'est le onze, et il y a le haut, d'ou?"),
        ("fr", "si il se y met , si elle le veut", "S'il s'y met, si elle le veut"),
        ("fr", "peut - être que aujourd' hui , 5 % ...", "Peut-etre qu'aujourd'hui, 5 %..."),
        (
            "fr",
            "le hon. ami a dit « cœur » au héros de le film",
            'L\'hon. ami a dit "coeur" au heros de le film',
        ),
        ("fr", "( Évidemment )", "(Evidemment)"),
        ("fr", "lorsque on me attend", "Lorsqu'on m'attend"),
    ],
)
def test_written(language: str, tokens: str, line: str) -> None:
    found = hansard.written(tokens.split(), language)
    assert found.line == line


WORD = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=8)
PIECES = [*'.,()"$%-', "«", "»", "le", "de", "été", "'s", "qu'", "y"]
TOKENS = st.lists(st.one_of(WORD, st.sampled_from(PIECES)))


@given(TOKENS, st.sampled_from(["en", "fr"]))
def test_words_stay_in_number_and_in_place(tokens: list[str], language: str) -> None:
    """Words are what they were but for accents, the first capital, vowels left out; only blanks are new."""
    found = hansard.written(tokens, language)
    assert len(found.spans) == len(tokens)
    line = found.line.encode()
    end = 0
    for (begin, after), token, word in zip(found.spans, tokens, hansard.words_of(found), strict=True):
        assert line[end:begin] in (b"", b" ")
        assert begin < after
        end = after
        plain = hansard.without_accents(token)
        same = word[1:] == plain[1:] or word == hansard.elided(plain, "a") or word[1:] == plain[1:-1] + "'"
        assert same or word.lower() == plain.lower() or word == plain[:1].upper() + plain[1:]
    assert end == len(line)


def test_an_unaccented_line_stays_as_it_is() -> None:
    assert hansard.without_accents("été, œuvre, Où, 東京") == "ete, oeuvre, Ou, 東京"
    assert hansard.without_accents("\u0301") == "\u0301"  # a word that is an accent alone


def test_rows_that_decide_are_those_of_nmt() -> None:
    """Where words are what blanks part, the two ways to say which token decides a word agree."""
    from nmt.data.tokenizer import train_tokenizer
    from nmt.words import deciding_tokens, token_spans

    text = ["the members have spoken", "members of the house , all of them", "a house of words"] * 9
    tokenizer = train_tokenizer(text, type="bpe", vocabulary_size=300)
    for line in ("The members, all", "word (of the house)"):
        written = hansard.Written(line, hansard_spans(line))
        tokens = token_spans(line, tokenizer.encode(line), tokenizer)
        assert hansard.deciding_rows(written, tokens) == deciding_tokens(line, "blank", tokens)


def hansard_spans(line: str) -> list[tuple[int, int]]:
    from nmt.words import word_spans

    return word_spans(line)


def test_the_gold_sentences_keep_their_words() -> None:
    folder = DATA / "alignments"
    if not folder.exists():
        pytest.skip("needs the gold alignments in ../shared/data/alignments")
    sides = [list(read_lines(folder / f"hansard.{language}")) for language in ("en", "fr")]
    pairs = list(zip(*sides, strict=True))
    gold = read_gold(folder / "hansard.gold", pairs, words="blank", base=1)
    for (english, french), links in zip(pairs, gold, strict=True):
        for line, language, side in ((english, "en", 0), (french, "fr", 1)):
            written = hansard.written(line.split(), language)
            assert len(written.spans) == len(line.split())
            assert max(link[side] for link in links.possible) < len(written.spans)
            assert written.line.isascii()
            assert " ," not in written.line
            assert " ." not in written.line
    # What the training text is full of has come to be.
    french = "\n".join(hansard.written(line.split(), "fr").line for line in sides[1])
    for common in ("qu'il", "d'un", "l'", "n'", "c'est", "-il "):
        assert common in french


# The doctor


def test_check_writes_what_the_rules_drop(tmp_path: Path) -> None:
    for name, lines in {
        "train": [("one two", "un deux")] * 3 + [("hear", "hear"), ("a", "un tres long discours")],
        "dev": [("three", "trois")],
        "test": [("four", "quatre")],
    }.items():
        for place, language in enumerate(("en", "fr")):
            (tmp_path / f"{name}.{language}").write_text("".join(f"{line[place]}\n" for line in lines))
    hansard.check(RECIPE / "transformer.toml", tmp_path, tmp_path / "out")
    report = json.loads((tmp_path / "out/check.json").read_text())
    assert {row["reason"]: row["count"] for row in report["dropped"]} == {
        "length ratio": 1,
        "copy": 1,
        "duplicate": 2,
    }
    table = (tmp_path / "out/check.md").read_text()
    assert "| duplicate | 2 | 40.00% |" in table
    assert "1 of 5 pairs are kept." in table


def test_check_refuses_what_preparation_would(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.en").write_text("a\nb\n" if name == "train" else "a\n")
        (tmp_path / f"{name}.fr").write_text("c\n")
    with pytest.raises(UserError, match="unequal line counts"):
        hansard.check(RECIPE / "transformer.toml", tmp_path, tmp_path / "out")


def test_the_configuration_is_read_and_takes_guided_alignment() -> None:
    config = load_config(RECIPE / "transformer.toml")
    assert config.guided_view is None
    guided = load_config(
        RECIPE / "transformer.toml",
        ["training.guided_alignment=0.05", "data.alignments=x", "data.alignment_words=punctuation"],
    )
    assert guided.guided_view == (config.model.decoder_layers - 1, 1)  # type: ignore[union-attr]
    assert str(View(*guided.guided_view)) == "layer 3, head 1"
