"""Word links of a training text: read, checked, turned into links of tokens, prepared with the pairs."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config import Config
from nmt.config_file import parse_config
from nmt.data import blocks, unfinished
from nmt.data import prepare as preparation
from nmt.data.links import TokenLinks, parse_links
from nmt.data.prepare import prepare
from nmt.data.prepared import TrainingData
from nmt.data.spans import Span, shares, split_words, token_spans, tokens_of, word_spans
from nmt.errors import UserError
from nmt.stream import Stream

CONFIG = """
[data]
train = ["{folder}/first", "{folder}/second"]
validation = "{folder}/first"
source_language = "en"
target_language = "de"
max_tokens = 14
drop_duplicates = true
tags = ["", "<back>"]
{more}
[tokenizer]
vocabulary_size = 340
shared = false
[training]
batch_tokens = 64
guided_alignment = 0.1
"""
WORDS = ["red", "green", "blau", "gelb", "haus", "house", "über", "straße", "東京", "x", "unverhofft,", "-"]


# Text


def spans_in_order(most: int) -> Any:
    """Spans that follow one another, with room between them or none."""
    sizes = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=most)

    def placed(found: list[tuple[int, int]]) -> list[Span]:
        spans, end = [], -1
        for gap, size in found:
            spans.append((end + gap, end + gap + size))
            end += gap + size
        return spans

    return sizes.map(placed)


@given(spans_in_order(12), spans_in_order(6))
def test_tokens_of_words_are_those_with_a_share(tokens: list[Span], words: list[Span]) -> None:
    share = shares(tokens, words)
    assert tokens_of(tokens, words) == [np.flatnonzero(column).tolist() for column in share.T]


@given(st.text(alphabet="0123456789- \tpx:\u00b2", max_size=20))
def test_a_line_is_links_of_its_words_or_an_error(line: str) -> None:
    right = all(re.fullmatch("0{0,8}[0-2]-0{0,8}[01]", one, re.ASCII) for one in line.split())

    def read() -> list[tuple[int, int]]:
        return parse_links(line, "a b c", "d e", words="blank", file="f", number=3)

    if right:
        assert sorted(read()) == sorted({tuple(map(int, one.split("-"))) for one in line.split()})
    else:
        with pytest.raises(UserError, match=r"^f:3: "):
            read()


def test_words_by_punctuation() -> None:
    assert parse_links("2-1", "a b.", "d.", words="punctuation") == [(2, 1)]
    with pytest.raises(UserError, match=r"link 2-1 is outside 2 source and 1 target words"):
        parse_links("2-1", "a b.", "d.", words="blank")


# Preparation


def lines_of(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Source, target and links; some pairs that are dropped are among them."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        source, target = (chance.choices(WORDS, k=chance.randint(0, 9)) for _ in range(2))
        every = [(i, j) for i in range(len(source)) for j in range(len(target))]
        links = chance.sample(every, min(len(every), chance.randint(0, 6)))
        found.append((" ".join(source), " ".join(target), " ".join(f"{i}-{j}" for i, j in links)))
        if number % 9 == 0:
            found.append(found[-1])  # a duplicate
    return found


def write(folder: Path, name: str, lines: list[tuple[str, str, str]]) -> None:
    for place, suffix in enumerate(("en", "de", "align")):
        (folder / f"{name}.{suffix}").write_text("".join(f"{line[place]}\n" for line in lines))


def config_of(folder: Path, alignments: tuple[str, str] = ("first", "second"), more: str = "") -> Config:
    names = json.dumps([name and f"{folder}/{name}.align" for name in alignments])
    return parse_config(CONFIG.format(folder=folder, more=f"alignments = {names}\n{more}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "first", lines_of(150, 1))
    write(tmp_path, "second", lines_of(90, 2))
    return tmp_path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LINES", 16)


def prepared_links(data: TrainingData, row: int) -> list[tuple[int, int]]:
    assert data.links is not None
    return [(int(s), int(t)) for s, t in data.links[row].reshape(-1, 2)]


def expected(data: TrainingData, row: int, line: tuple[str, str, str]) -> list[tuple[int, int]]:
    """By matrices of shares, one link after another."""
    source, target, links = line
    tag = 1 if row >= data.sizes[0] else 0
    source_ids, target_ids = data.source[row].tolist()[tag:], data.target[row].tolist()
    source_SJ = shares(token_spans(source, source_ids, data.source_tokenizer), word_spans(source))
    target_TI = shares(token_spans(target, target_ids, data.target_tokenizer), word_spans(target))
    linked = np.zeros((len(source_ids), len(target_ids)), dtype=bool)
    for link in links.split():
        i, j = map(int, link.split("-"))
        linked |= np.outer(source_SJ[:, i] > 0, target_TI[:, j] > 0)
    return [(s + tag, t) for t, s in sorted((t, s) for s, t in np.argwhere(linked).tolist())]


def test_links_follow_the_pairs_that_are_kept(folder: Path, small_blocks: None) -> None:
    data = prepare(config_of(folder), folder / "prepared")
    assert data.links is not None
    kept: list[tuple[str, str, str]] = []
    seen = set()
    for line in [*lines_of(150, 1), *lines_of(90, 2)]:
        source, target, _ = line
        if source and target and (source, target) not in seen:
            seen.add((source, target))
            ratio = max(len(source), len(target)) / min(len(source), len(target))
            tag = 1 if len(kept) >= data.sizes[0] else 0
            tokens = [
                len(data.source_tokenizer.encode(source)) + tag,
                len(data.target_tokenizer.encode(target)),
            ]
            if ratio <= 9 and max(tokens) <= 14:
                kept.append(line)
    assert len(data.links) == len(data.source) == len(kept)
    assert min(data.sizes) > 20
    assert [prepared_links(data, row) for row in range(len(kept))] == [
        expected(data, row, line) for row, line in enumerate(kept)
    ]
    assert data.manifest["links"] == sum(len(prepared_links(data, row)) for row in range(len(kept)))
    files = [row["file"] for row in data.manifest["training_data"]]
    assert files[-2:] == [f"{folder}/first.align", f"{folder}/second.align"]


def test_a_corpus_without_links(folder: Path) -> None:
    whole = prepare(config_of(folder), folder / "prepared")
    data = prepare(config_of(folder, ("", "second")), folder / "prepared")
    assert data.folder != whole.folder
    for row in range(len(data.source)):
        assert prepared_links(data, row) == ([] if row < data.sizes[0] else prepared_links(whole, row))


def test_packed_links_and_several_processes_give_the_same(folder: Path, small_blocks: None) -> None:
    alone = prepare(config_of(folder), folder / "alone")
    packed = folder / "second.align"
    packed.with_name("second.align.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    other = prepare(config_of(folder, more="workers = 2"), folder / "together")
    for name in ("train.links.tokens", "train.links.offsets"):
        assert (alone.folder / name).read_bytes() == (other.folder / name).read_bytes()


def test_goes_on_after_a_kill(folder: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(config_of(folder), folder / "whole")
    monkeypatch.setattr(unfinished, "_SECONDS", 0.0)
    steps = 0

    def killed(real: Callable[..., None]) -> Callable[..., None]:
        def done(self: unfinished.Growing, state: dict[str, Any], *, last: bool = False) -> None:
            nonlocal steps
            real(self, state, last=last)
            steps += "target_tokens" in state  # the second pass
            if steps == 4:
                self.write("train.links.tokens", b"half a step")
                raise KeyboardInterrupt

        return done

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Growing, "done", killed(unfinished.Growing.done))
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(folder), folder / "broken")
    told: list[str] = []
    data = prepare(config_of(folder), folder / "broken", told.append)
    assert any("interrupted" in text for text in told)
    for name in ("train.links.tokens", "train.links.offsets", "train.source.tokens"):
        assert (data.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_changed_links_are_another_preparation(folder: Path) -> None:
    before = prepare(config_of(folder), folder / "prepared").folder
    lines = (folder / "first.align").read_text().split("\n")
    (folder / "first.align").write_text("\n".join(["", *lines[1:]]))
    assert prepare(config_of(folder), folder / "prepared").folder != before


def test_damage_is_found(folder: Path) -> None:
    data = prepare(config_of(folder), folder / "prepared")
    file = data.folder / "train.links.tokens"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"damaged: train\.links\.tokens has"):
        prepare(config_of(folder), folder / "prepared")


def test_nothing_changes_without_links(folder: Path) -> None:
    """Prepared folders and runs of before go on: the name is made of what it was made of."""
    config = parse_config(CONFIG.format(folder=folder, more="").replace("guided_alignment = 0.1", ""))
    assert preparation._key(config, ["a", "b"], None) == "52ef59f09d44f977"
    data = prepare(config, folder / "prepared")
    assert data.links is None
    assert "links" not in data.manifest
    assert not list(data.folder.glob("*links*"))
    stream = Stream(data, config)
    assert stream.next().links_N3 is None


# Batches


def test_batches_bring_the_links_of_their_sentences(folder: Path) -> None:
    data = prepare(config_of(folder), folder / "prepared")
    by_text = {
        (tuple(data.source[row].tolist()), tuple(data.target[row].tolist())): prepared_links(data, row)
        for row in range(len(data.source))
    }
    stream = Stream(data, config_of(folder), window_size=40)
    assert stream.windows > 1
    seen = 0
    for _ in range(20):
        batch = stream.next()
        assert batch.links_N3 is not None
        for row, (source, target) in enumerate(zip(batch.source_BS, batch.target_output_BT, strict=True)):
            ids = tuple(source[source != 0].tolist()[:-1]), tuple(target[target != 0].tolist()[:-1])
            mine = batch.links_N3[batch.links_N3[:, 0] == row]
            assert [(s, t) for _, s, t in mine.tolist()] == by_text[ids]
            seen += len(mine)
    assert seen > 100


# What is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"first\.align: has 166 lines of links, and .*first has 167 pairs; give"),
        (lambda lines: [*lines, "", ""], r"first\.align: has 169 lines of links, and .*first has 167 pairs"),
        (
            lambda lines: [*lines[:20], "0-0 99-1", *lines[21:]],
            r"first\.align:21: link 99-1 is outside \d+ s",
        ),
        (lambda lines: [*lines[:20], "1p1", *lines[21:]], r"first\.align:21: '1p1' is no link; write"),
        (lambda lines: [*lines[:20], "\udcff", *lines[21:]], r"first\.align:21: .*UTF-8"),
        (lambda lines: [""] * len(lines), r"first\.align: has no link of a pair that is kept"),
        (lambda lines: [], r"first\.align: has 0 lines of links"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_wrong_links(
    folder: Path,
    small_blocks: None,
    workers: int,
    change: Callable[[list[str]], list[str]],
    message: str,
) -> None:
    file = folder / "first.align"
    lines = change(file.read_text().split("\n")[:-1])
    file.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message):
        prepare(config_of(folder, ("first", ""), f"workers = {workers}"), folder / "prepared")


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"third\.align: no such file of word links; `nmt align` writes one"):
        prepare(config_of(folder, ("first", "third")), folder / "prepared")


def test_token_links_skip_what_stands_before_the_text(folder: Path) -> None:
    data = prepare(config_of(folder), folder / "prepared")
    source, target = "red über", "haus"
    ids = data.source_tokenizer.encode(source), data.target_tokenizer.encode(target)
    of_words = TokenLinks(data.source_tokenizer, data.target_tokenizer, "blank")
    plain, moved = (of_words([(1, 0)], (source, target), ids, first) for first in (0, 1))
    assert [s + 1 for s in plain[::2]] == moved[::2]
    assert plain[1::2] == moved[1::2]
    spelled = b"".join(
        data.source_tokenizer.pieces([ids[0][s]])[0].replace("▁", "").encode()
        for s in sorted(set(plain[::2]))
    )
    assert split_words(source)[1] in spelled.decode() or b"<0x" in spelled
