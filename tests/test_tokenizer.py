"""Tokenizers lose nothing, whatever the text; sampling follows its seed; mistakes come with a remedy."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import text_lines, trained_once

from nmt.data.tokenizer import BOS, EOS, PAD, SPECIAL_IDS, UNK, Tokenizer, train_tokenizer
from nmt.errors import UserError

TEXT = [
    "A small boat crosses the quiet lake in the morning.",
    "Two children are building a tower out of wooden blocks.",
    "The old baker opens his shop before the sun comes up.",
    "A dog runs after a red ball on the wet grass.",
    "Several people wait for the train under a large clock.",
    "The woman in the green coat is reading a newspaper.",
    "He repaired the broken window with a piece of glass.",
    "My neighbour grows tomatoes, beans and tall sunflowers.",
    "Snow covered the roofs of the whole village last night.",
    "They walked along the river until the bridge was in sight.",
    "A musician tunes his violin while the audience sits down.",
    "The children laughed when the clown lost his hat again.",
    "Ein kleines Boot fährt am Morgen über den stillen See.",
    "Zwei Kinder bauen einen Turm aus hölzernen Klötzen.",
    "Der alte Bäcker öffnet seinen Laden vor Sonnenaufgang.",
    "Ein Hund läuft auf dem nassen Gras einem roten Ball nach.",
    "Mehrere Leute warten unter einer großen Uhr auf den Zug.",
    "Die Frau im grünen Mantel liest gerade eine Zeitung.",
    "Er reparierte das zerbrochene Fenster mit einem Stück Glas.",
    "Mein Nachbar zieht Tomaten, Bohnen und hohe Sonnenblumen.",
    "Schnee bedeckte letzte Nacht die Dächer des ganzen Dorfes.",
    "Sie gingen am Fluss entlang, bis die Brücke zu sehen war.",
    "Ein Musiker stimmt seine Geige, während das Publikum Platz nimmt.",
    "Die Kinder lachten, als der Clown wieder seinen Hut verlor.",
]
SIZES = {"bpe": 500, "unigram": 400, "char": 400, "word": 400}
LOSSLESS = ["bpe", "unigram", "char"]

SPACE_MARK = "\u2581"
HOSTILE = [
    "",
    " ",
    "   ",
    " a",
    "a ",
    "  two  blanks  ",
    SPACE_MARK,
    f"{SPACE_MARK}{SPACE_MARK} {SPACE_MARK}",
    f"a{SPACE_MARK}b c",
    f"{SPACE_MARK}\U0010ffff",
    f"\U0010ffff{SPACE_MARK}\U0010fffe",
    "\0",
    "a\0b\0",
    "\t",
    "a\tb\r",
    "\x0b\x0c\x1c\x85\u2028\u2029",
    "\u00a0\u3000\u200b\ufeff",
    "\ufeffA dog",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪",
    "\u0301",
    "e\u0301 \u00e9",
    "\u202eabc\u202c",
    "שלום עולם",
    "مرحبا بالعالم",
    "\ufdd0\ufffe\uffff\U0001fffe",
    "\ufffd",
    "<s> </s> <pad> <unk>",
    "<s></s><pad><unk>",
    "<0x41><0x0A>",
    "ｆｕｌｌ ﬁ ①",
    "A small boat" * 200,
    "x" * 5000,
]


@pytest.fixture(scope="module")
def trained() -> Callable[[str], Tokenizer]:
    return trained_once(TEXT, SIZES)


lines = text_lines(HOSTILE[:-2] + TEXT[:3], f"ab \0{SPACE_MARK}\u0301\u2060\U0010ffff<>s/")


# --- nothing is lost ---------------------------------------------------------------------------------------


def check_round_trip(tokenizer: Tokenizer, line: str) -> None:
    ids = tokenizer.encode(line)
    assert tokenizer.decode(ids) == line
    assert not SPECIAL_IDS.intersection(ids)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(deadline=None, max_examples=200)
@given(line=lines)
def test_round_trip(trained: Callable[[str], Tokenizer], kind: str, line: str) -> None:
    check_round_trip(trained(kind), line)


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: ascii(line)[:30])
def test_round_trip_of_hostile_text(trained: Callable[[str], Tokenizer], kind: str, line: str) -> None:
    check_round_trip(trained(kind), line)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_round_trip_where_the_corpus_holds_the_stand_in(kind: str) -> None:
    """The vocabulary itself contains noncharacters such as U+10FFFF."""
    text = [f"{line} \U0010ffff\U0010fffe" for line in TEXT]
    tokenizer = train_tokenizer(text, type=kind, vocabulary_size=SIZES[kind])
    for line in (f"a{SPACE_MARK}b", f"\U0010ffff{SPACE_MARK}\U0010fffe", "\U0010ffff"):
        assert tokenizer.decode(tokenizer.encode(line)) == line


@pytest.mark.parametrize("kind", LOSSLESS)
def test_corpus_of_hostile_lines(kind: str) -> None:
    """Whatever the training text, every line of it comes back, and U+2581 in it teaches no wrong blank."""
    text = [line for line in TEXT + HOSTILE if "\U0010ffff" not in line]
    tokenizer = train_tokenizer(text, type=kind, vocabulary_size=450)
    for line in text:
        assert tokenizer.decode(tokenizer.encode(line)) == line


@pytest.mark.parametrize("kind", [*LOSSLESS, "word"])
def test_encode_all_is_encode_of_each(trained: Callable[[str], Tokenizer], kind: str) -> None:
    tokenizer = trained(kind)
    text = (TEXT + HOSTILE) * 3
    assert tokenizer.encode_all(text) == [tokenizer.encode(line) for line in text]
    assert tokenizer.encode_all([]) == []


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(deadline=None, max_examples=50)
@given(places=st.lists(st.tuples(st.integers(0, 399), st.sampled_from([None, PAD, BOS, EOS]))))
def test_decoding_leaves_special_ids_out(
    trained: Callable[[str], Tokenizer], kind: str, places: list[tuple[int, int | None]]
) -> None:
    """Any ids decode, even bytes that are no UTF-8."""
    tokenizer = trained(kind)
    ids = [i % len(tokenizer) for i, _ in places]
    ids = [i for i in ids if i not in (PAD, BOS, EOS)]
    with_specials = [
        i for i, (_, special) in zip(ids, places, strict=False) for i in (special, i) if i is not None
    ]
    assert tokenizer.decode(with_specials) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", [*LOSSLESS, "word"])
def test_special_ids(trained: Callable[[str], Tokenizer], kind: str) -> None:
    tokenizer = trained(kind)
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert tokenizer.pieces([PAD, UNK, BOS, EOS]) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert [tokenizer.id_of(piece) for piece in ("<pad>", "<unk>", "<s>", "</s>")] == [0, 1, 2, 3]
    assert tokenizer.decode([BOS, EOS, PAD]) == ""
    produced = set(tokenizer.encode("<s> </s> <pad> a<s>b</s>c<pad>"))
    assert not produced.intersection({PAD, BOS, EOS})
    assert len(tokenizer) == len({tokenizer.piece(i) for i in range(len(tokenizer))})


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_vocabulary_has_the_size_asked_for(trained: Callable[[str], Tokenizer], kind: str) -> None:
    assert len(trained(kind)) == SIZES[kind]


def test_pieces_of_chars(trained: Callable[[str], Tokenizer]) -> None:
    tokenizer = trained("char")
    assert tokenizer.pieces(tokenizer.encode("dog ran")) == [SPACE_MARK, *"dog", SPACE_MARK, *"ran"]


# --- words -------------------------------------------------------------------------------------------------


def test_known_words_round_trip(trained: Callable[[str], Tokenizer]) -> None:
    tokenizer = trained("word")
    assert tokenizer.word_level
    for line in TEXT:
        ids = tokenizer.encode(line)
        assert tokenizer.decode(ids) == line
        assert tokenizer.pieces(ids) == [SPACE_MARK + word for word in line.split()]
    assert len(tokenizer) == len(SPECIAL_IDS) + len({word for line in TEXT for word in line.split()})


@pytest.mark.parametrize(
    ("line", "decoded"),
    [
        ("A zebra runs", "A <unk> runs"),
        ("zebra gnu A", "<unk> <unk> A"),  # neighbouring unknown words stay two
        ("A  dog ", "A dog"),
        ("", ""),
        ("   ", ""),
        (f"dog{SPACE_MARK}runs", "<unk>"),
        ("dog\0", "<unk>"),
        ("<s> </s> <pad>", "<unk> <unk> <unk>"),
        ("do\u0301g", "<unk>"),
    ],
)
def test_unknown_words(trained: Callable[[str], Tokenizer], line: str, decoded: str) -> None:
    tokenizer = trained("word")
    ids = tokenizer.encode(line)
    assert tokenizer.decode(ids) == decoded
    assert len(ids) == len(decoded.split())
    assert [i == UNK for i in ids] == [word == "<unk>" for word in decoded.split()]


@settings(deadline=None, max_examples=100)
@given(line=lines)
@example("<s>")
def test_words_one_by_one(trained: Callable[[str], Tokenizer], line: str) -> None:
    """One id a word, unknown ones UNK; no text makes another special id."""
    tokenizer = trained("word")
    ids = tokenizer.encode(line)
    words = [word for word in line.split(" ") if word]
    known = {word for known_line in TEXT for word in known_line.split()}
    assert [i == UNK for i in ids] == [word not in known for word in words]
    assert not set(ids).intersection({PAD, BOS, EOS})
    assert tokenizer.decode(ids) == " ".join(word if word in known else "<unk>" for word in words)


# --- sampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampling_follows_the_seed(trained: Callable[[str], Tokenizer], kind: str) -> None:
    tokenizer = trained(kind)
    first = tokenizer.sample_all(TEXT, 0.3, 5)
    assert tokenizer.sample_all(TEXT, 0.3, 6) != first
    tokenizer.encode_all(TEXT)
    train_tokenizer(TEXT, type="char", vocabulary_size=400)
    assert tokenizer.sample_all(TEXT, 0.3, 5) == first
    elsewhere: list[list[list[int]]] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: elsewhere.append(tokenizer.sample_all(TEXT, 0.3, 5)))
        thread.start()
        thread.join()
    assert elsewhere == [first, first]
    assert Tokenizer(tokenizer.model).sample_all(TEXT, 0.3, 5) == first


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 2, 2**32 - 1])
def test_every_seed_is_a_seed(trained: Callable[[str], Tokenizer], seed: int) -> None:
    """Training draws it from 0 .. 2^32 - 1."""
    tokenizer = trained("bpe")
    found = []
    for other in (1, 2):
        tokenizer.sample_all(TEXT, 0.3, other)
        found.append(tokenizer.sample_all(TEXT, 0.3, seed))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(deadline=None, max_examples=50)
@given(text=st.lists(lines, max_size=4), seed=st.integers(0, 2**63))
def test_samples_decode_to_the_text(
    trained: Callable[[str], Tokenizer], kind: str, text: list[str], seed: int
) -> None:
    tokenizer = trained(kind)
    sampled = tokenizer.sample_all(text, 0.4, seed)
    assert [tokenizer.decode(ids) for ids in sampled] == text
    assert not any(SPECIAL_IDS.intersection(ids) for ids in sampled)


def test_more_dropout_gives_more_tokens(trained: Callable[[str], Tokenizer]) -> None:
    """From the usual segmentation at a rate near 0 towards single characters near 1."""
    tokenizer = trained("bpe")
    counts = [sum(map(len, tokenizer.sample_all(TEXT, rate, 1))) for rate in (1e-6, 0.1, 0.3, 0.6, 0.99)]
    assert counts == sorted(set(counts))
    assert counts[0] == sum(map(len, tokenizer.encode_all(TEXT)))
    assert counts[-1] > 0.9 * sum(len(line) + 1 for line in TEXT)


def test_smoother_unigram_gives_more_tokens(trained: Callable[[str], Tokenizer]) -> None:
    """Alpha sharpens: near 0 all segmentations are alike, and most of them are long."""
    tokenizer = trained("unigram")
    counts = [sum(map(len, tokenizer.sample_all(TEXT, alpha, 1))) for alpha in (0.99, 0.3, 0.05)]
    assert counts == sorted(set(counts))


def test_chars_have_one_segmentation(trained: Callable[[str], Tokenizer]) -> None:
    assert trained("char").sample_all(TEXT, 0.3, 1) == trained("char").encode_all(TEXT)


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("size", [10, 260, 261, 280, 5000, 100_000])
def test_impossible_size_names_a_possible_one(kind: str, size: int) -> None:
    """What the message proposes works."""
    with pytest.raises(UserError, match=rf"tokenizer\.vocabulary_size = {size} ") as caught:
        train_tokenizer(TEXT, type=kind, vocabulary_size=size)
    proposed = re.search(r"set it to (\d+) or (less|more)", caught.value.message)
    assert proposed is not None
    assert (proposed[2] == "less") == (size >= 5000)
    assert len(train_tokenizer(TEXT, type=kind, vocabulary_size=int(proposed[1]))) == int(proposed[1])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_most_that_is_allowed_is_the_most(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        train_tokenizer(TEXT, type=kind, vocabulary_size=5000)
    found = re.search(r"set it to (\d+) or less", caught.value.message)
    assert found is not None
    with pytest.raises(UserError, match=f"set it to {found[1]} or less"):
        train_tokenizer(TEXT, type=kind, vocabulary_size=int(found[1]) + 1)


def test_char_size_without_room() -> None:
    with pytest.raises(UserError, match=r"no room beside 256 bytes and 4 special tokens; set it to 360"):
        train_tokenizer(TEXT, type="char", vocabulary_size=260)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_smaller_vocabulary_than_asked_for(kind: str) -> None:
    """These types take all there is."""
    tokenizer = train_tokenizer(TEXT, type=kind, vocabulary_size=10_000)
    assert len(tokenizer) < 600


@pytest.mark.parametrize("kind", [*LOSSLESS, "word"])
@pytest.mark.parametrize("text", [[], [""], ["", "  ", "\t", "\u3000"]], ids=["none", "empty", "blank"])
def test_no_text(kind: str, text: list[str]) -> None:
    with pytest.raises(UserError, match="no words; a tokenizer needs text"):
        train_tokenizer(text, type=kind, vocabulary_size=400)


@pytest.mark.parametrize("kind", [*LOSSLESS, "word"])
def test_training_is_deterministic(trained: Callable[[str], Tokenizer], kind: str) -> None:
    again = train_tokenizer(iter(TEXT), type=kind, vocabulary_size=SIZES[kind])
    assert again.model == trained(kind).model
    other = train_tokenizer(TEXT[:-1], type=kind, vocabulary_size=350)
    assert other.model != again.model


# --- files -------------------------------------------------------------------------------------------------


def foreign_model() -> bytes:
    """A SentencePiece model with SentencePiece's own ids: <unk> 0, <s> 1, </s> 2, no padding."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=writer,
        vocab_size=80,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return writer.getvalue()


def test_load_what_was_written(trained: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    tokenizer = trained("bpe")
    (tmp_path / "t.model").write_bytes(tokenizer.model)
    loaded = Tokenizer.load(tmp_path / "t.model")
    assert loaded.model == tokenizer.model
    assert loaded.encode_all(TEXT) == tokenizer.encode_all(TEXT)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"garbage", b"\xff" * 1000, b"<html>not found</html>", b"\n" * 50, b"[data]\ntrain = 'x'\n"],
    ids=["empty", "nul", "garbage", "ff", "html", "newlines", "toml"],
)
def test_load_of_something_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t.model"
    file.write_bytes(content)
    with pytest.raises(UserError, match="nmt tokenizer train") as caught:
        Tokenizer.load(file)
    assert caught.value.file == str(file)


def test_load_of_a_model_cut_short(trained: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    file = tmp_path / "t.model"
    model = trained("bpe").model
    for length in (1, 10, len(model) // 2, len(model) - 1):
        file.write_bytes(model[:length])
        with pytest.raises(UserError, match="nmt tokenizer train"):
            Tokenizer.load(file)


def test_load_of_foreign_ids(tmp_path: Path) -> None:
    file = tmp_path / "t.model"
    file.write_bytes(foreign_model())
    with pytest.raises(UserError, match=r"\(-1, 0, 1, 2\), not \(0, 1, 2, 3\); train one"):
        Tokenizer.load(file)


def test_load_of_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such tokenizer model") as caught:
        Tokenizer.load(tmp_path / "none.model")
    assert caught.value.file == str(tmp_path / "none.model")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        Tokenizer.load(tmp_path)


def test_sampling_is_the_same_in_every_process(tmp_path: Path) -> None:
    """What continuing a run rests on: SentencePiece 0.2.2 fails here."""
    lines = ["the dogs see the old houses near the garden", "where are the young teachers"] * 20
    tokenizer = train_tokenizer(lines, type="bpe", vocabulary_size=300)
    (tmp_path / "model").write_bytes(tokenizer.model)
    script = (
        "import sys; from pathlib import Path; from nmt.data.tokenizer import Tokenizer;"
        "print(Tokenizer.load(Path(sys.argv[1])).sample_all(sys.argv[2:], 0.3, 7))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model", *lines], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tokenizer.sample_all(lines, 0.3, 7))
