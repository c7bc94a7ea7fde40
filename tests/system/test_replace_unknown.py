"""A word-level model that reverses sentences knows which word is where: it aligns, and replaces <unk>."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support import WORD_TASK, WORDS, Nmt

MODEL = """
[model]
architecture = "bahdanau"
embedding_width = 32
hidden_width = 48
attention_width = 32
maxout_width = 32
dropout = 0.0
"""
CHANGES = {
    "tokenizer.vocabulary_size": 16,  # four special tokens and WORDS
    "training.max_steps": 160,
    "training.batch_tokens": 600,
    "training.learning_rate": 7e-3,
    "training.warmup_steps": 15,
    "search.max_source_tokens": 8,
}


def sentence(chance: random.Random) -> list[str]:
    """Two to six words, some of them names that no vocabulary of 16 has."""
    return [
        f"Name{chance.randrange(10**6)}" if chance.random() < 0.2 else chance.choice(WORDS)
        for _ in range(chance.randint(2, 6))
    ]


@pytest.fixture(scope="module")
def reversing(tmp_path_factory: pytest.TempPathFactory) -> Nmt:
    """A folder with `test.in`, `test.out` and a run `runs/learn` whose words come out in reverse."""
    folder = tmp_path_factory.mktemp("reversing")
    chance = random.Random(1)
    for split, size in {"train": 4000, "validation": 20, "test": 200}.items():
        sentences = [sentence(chance) for _ in range(size)]
        (folder / f"{split}.in").write_text("".join(f"{' '.join(words)}\n" for words in sentences))
        (folder / f"{split}.out").write_text("".join(f"{' '.join(words[::-1])}\n" for words in sentences))
    (folder / "learn.toml").write_text(WORD_TASK + MODEL)
    nmt = Nmt(folder)
    nmt("train", "learn.toml", *(f"--set={key}={value}" for key, value in CHANGES.items()))
    return nmt


def lines_of(nmt: Nmt, name: str) -> list[str]:
    return (nmt.folder / name).read_text().split("\n")[:-1]


def test_unknown_words_are_copied_to_their_places(reversing: Nmt) -> None:
    plain = reversing("translate", "runs/learn", "test.in").lines
    replaced = reversing("translate", "runs/learn", "test.in", "--replace-unknown").lines
    expected = lines_of(reversing, "test.out")
    assert sum("<unk>" in line for line in plain) > 50
    right = sum(a == b for a, b in zip(replaced, expected, strict=True))
    assert right >= 0.97 * len(expected), f"{right} of {len(expected)} lines are right"
    assert not any("<unk>" in line for line in replaced)


def test_a_dictionary_comes_before_the_copy(reversing: Nmt, tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("Paris\tParigi\nwien Vienna\n\nParis\tno\noak\tnever\nlyon\tLi on\n")
    text = b"Paris oak WIEN\nLyon ash\nParis's oak\n\nelm Wien Paris Lyon\n"
    options = ["--replace-unknown", "--dictionary", tmp_path / "words.tsv"]
    done = reversing("translate", "runs/learn", *options, stdin=text)
    assert done.lines == [
        "Vienna oak Parigi",
        "ash Li on",
        "oak Paris's",
        "",
        "Li on Parigi Vienna elm",
    ]


def test_n_best_in_json(reversing: Nmt) -> None:
    options = ["--replace-unknown", "--format", "jsonl", "--n-best", "2"]
    done = reversing("translate", "runs/learn", *options, stdin=b"oak Zora elm\n")
    (record,) = map(json.loads, done.lines)
    best, second = record["translations"]
    assert best["text"] == "elm Zora oak"
    assert best["tokens"] == ["▁elm", "<unk>", "▁oak"]  # what the model wrote
    assert "<unk>" not in second["text"]
    assert second["tokens"] != best["tokens"]


def test_parts_of_a_long_line_have_their_own_words(reversing: Nmt) -> None:
    words = [f"N{i}" if i % 2 else "oak" for i in range(16)]
    done = reversing("translate", "runs/learn", "--replace-unknown", stdin=" ".join(words).encode() + b"\n")
    assert "longer than 6 tokens, as the longest of training; translated in 2 parts" in done.stderr
    (line,) = done.lines
    halves = words[:8], words[8:]
    # Eight words are more than training showed: the order may be wrong, the words are each half's own.
    written = line.split(" ")
    names = [word for word in written if word != "oak"]
    assert names
    assert set(names) <= set(words)
    where = [0 if name in halves[0] else 1 for name in names]
    assert where == sorted(where)


def test_an_ensemble_looks_where_its_first_model_looks(reversing: Nmt) -> None:
    given = ["translate", "runs/learn", "test.in", "--replace-unknown"]
    assert reversing(*given, "--ensemble", "runs/learn").stdout == reversing(*given).stdout


def test_hostile_words_are_copied_and_keep_lines_lines(reversing: Nmt, tmp_path: Path) -> None:
    odd = ["a\u2028b", "x\u0085", "\x0b\x0c", "▁▁", "<unk>", "😀", "\u00a0", "nul\0", "a\rb", "\x1c"]
    (tmp_path / "odd.tsv").write_bytes("Zora\ta\u2028\u0085\rb\x0c\n".encode())
    text = "".join(f"oak {word}\n" for word in [*odd, "Zora"]).encode()
    options = ["--replace-unknown", "--dictionary", tmp_path / "odd.tsv"]
    done = reversing("translate", "runs/learn", *options, stdin=text)
    assert done.lines == [*(f"{word} oak".replace("\r", " ") for word in odd), "a\u2028\u0085 b\x0c oak"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a b\nc\n", "words.txt:2: is not a word and its translation"),
        (b"a b c\n", "words.txt:1: is not a word and its translation; write the two with one tab between"),
        (b"a\tb\tc\n", "words.txt:1: is not a word and its translation"),
        (b"a\t\n", "words.txt:1: is not a word and its translation"),
        (b"\tb\n", "words.txt:1: is not a word and its translation"),
        (b"a b\n\xff c\n", "words.txt:2: byte 1 is not valid UTF-8"),
    ],
)
def test_wrong_dictionaries(reversing: Nmt, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    options = ["--replace-unknown", "--dictionary", tmp_path / "words.txt"]
    assert message in reversing.error("translate", "runs/learn", *options, stdin=b"a\n")


def test_wrong_options(reversing: Nmt, tiny_run: Path, tmp_path: Path) -> None:
    alone = reversing.error("translate", "runs/learn", "--dictionary", "words.txt", stdin=b"a\n")
    assert "--dictionary goes with --replace-unknown" in alone
    subwords = reversing.error("translate", tiny_run / "runs/tiny", "--replace-unknown", stdin=b"a\n")
    assert "nothing to replace: its subwords spell every word" in subwords
    absent = ["--replace-unknown", "--dictionary", tmp_path / "none.txt"]
    assert "none.txt" in reversing.error("translate", "runs/learn", *absent, stdin=b"a\n")


def test_the_links_are_the_reversal(reversing: Nmt, tmp_path: Path) -> None:
    """From end to end: `nmt align` and the AER of `nmt evaluate` on a task whose alignment is known."""
    counts = [len(line.split()) for line in lines_of(reversing, "test.in")]
    links = [" ".join(f"{n - 1 - j}-{j}" for j in range(n)) for n in counts]
    (tmp_path / "gold").write_text("".join(f"{line}\n" for line in links))
    given = ["runs/learn", "test.in", "test.out", "--gold", tmp_path / "gold"]
    done = reversing("align", *given)
    right = sum(a == b for a, b in zip(done.lines, links, strict=True))
    assert right >= 0.95 * len(links), f"{right} of {len(links)} lines are right"
    found = json.loads(reversing("align", *given, "--json").stdout)
    assert found["links"] == done.lines
    assert found["aer"] <= 0.02
    assert f"AER {found['aer']:.4f}" in done.stderr
    test = ["--source", "test.in", "--reference", "test.out", "--gold-alignment", tmp_path / "gold"]
    rows = json.loads(reversing("evaluate", "runs/learn", *test, "--json").stdout)
    measured = {row["metric"]: row for row in rows}
    assert measured["AER"]["score"] == found["aer"]
    assert measured["AER"]["signature"].startswith("words:blank|layer:mean|head:mean|links:argmax|nmt:")
    assert 1 <= measured["perplexity"]["score"] < 1.2
    assert measured["perplexity"]["signature"].startswith("tokens:word|vocabulary:16|nmt:")
