"""The order of training: every pair in every epoch, the same from wherever it is continued."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY

from nmt.config import Config
from nmt.config_file import parse_config
from nmt.data.batches import Batch, plan_epoch, seeded
from nmt.data.prepare import prepare
from nmt.data.prepared import TrainingData
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.errors import UserError
from nmt.stream import Position, Stream

SYLLABLES = ["ba", "de", "fi", "go", "hu", "la", "mo", "ni"]
Pair = tuple[str, str]


def text(count: int, seed: int) -> list[str]:
    """Lines that are all different."""
    random = np.random.default_rng(seed)
    return [
        " ".join("".join(random.choice(SYLLABLES, 3)) for _ in range(random.integers(1, 9))) + f" {seed}.{i}"
        for i in range(count)
    ]


def settings_of(folder: Path, *overrides: str) -> Config:
    corpora = ", ".join(f'"{folder}/{name}"' for name in "ab")
    config = TINY.replace('train = "corpus/train"', f"train = [{corpora}]").replace(
        "corpus/validation", f"{folder}/a"
    )
    return parse_config(config, overrides=["training.batch_tokens=120", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    for name, count, seed in (("a", 70, 1), ("b", 31, 2)):
        lines = text(count, seed)
        for language in ("en", "de"):
            (folder / f"{name}.{language}").write_text("".join(f"{line} {language}\n" for line in lines))
    return folder


@cache
def prepared(folder: Path, *overrides: str) -> TrainingData:
    return prepare(settings_of(folder, *overrides), folder / "prepared")


def pairs_of(batch: Batch, data: TrainingData) -> list[Pair]:
    for row_T, output_T in zip(batch.target_input_BT, batch.target_output_BT, strict=True):
        length = int((output_T != PAD).sum())
        assert row_T[0] == BOS
        assert output_T[length - 1] == EOS
        assert row_T[1:length].tolist() == output_T[: length - 1].tolist()
    return [
        (data.source_tokenizer.decode(source), data.target_tokenizer.decode(target))
        for source, target in zip(batch.source_BS.tolist(), batch.target_output_BT.tolist(), strict=True)
    ]


def same(first: Batch, second: Batch) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("source_BS", "target_input_BT", "target_output_BT")
    )


def epoch_of(stream: Stream) -> list[Batch]:
    batches = []
    epoch = stream.position.epoch
    while stream.position.epoch == epoch:
        batches.append(stream.next())
    return batches


def text_pairs(folder: Path, names: Sequence[str] = ("a", "b")) -> list[Pair]:
    return [
        (source, target)
        for name in names
        for source, target in zip(
            (folder / f"{name}.en").read_text().splitlines(),
            (folder / f"{name}.de").read_text().splitlines(),
            strict=True,
        )
    ]


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 130), seed=st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(folder: Path, size: int, seed: int) -> None:
    data = prepared(folder)
    stream = Stream(data, settings_of(folder, f"training.seed={seed}"), window_size=size)
    assert stream.windows == -(-101 // size)
    orders = []
    for _ in range(2):
        pairs = [pair for batch in epoch_of(stream) for pair in pairs_of(batch, data)]
        assert sorted(pairs) == sorted(text_pairs(folder))
        orders.append(pairs)
    assert orders[0] != orders[1]


@settings(deadline=None, max_examples=25)
@given(data=st.data(), size=st.integers(10, 130), ahead=st.integers(0, 40))
def test_continued_from_anywhere_it_is_the_same(
    folder: Path, data: st.DataObject, size: int, ahead: int
) -> None:
    whole = Stream(prepared(folder), settings_of(folder), window_size=size)
    batches, positions = [], []
    for _ in range(50):
        positions.append(whole.position)
        batches.append(whole.next())
    start = data.draw(st.integers(0, 49))
    stream = Stream(prepared(folder), settings_of(folder), positions[start], window_size=size)
    assert all(same(stream.next(), batch) for batch in batches[start:])
    stream = Stream(prepared(folder), settings_of(folder), window_size=size)
    stream.skip(ahead)
    assert stream.position == positions[ahead]
    assert same(stream.next(), batches[ahead])


def test_a_corpus_of_one_window_is_planned_as_a_whole(folder: Path) -> None:
    """As it was before there were windows, so that runs begun then go on."""
    data, config = prepared(folder), settings_of(folder)
    stream = Stream(data, config)
    for epoch in range(2):
        plan = plan_epoch(
            data.source.lengths() + 1, data.target.lengths() + 1, batch_tokens=120, seed=1, epoch=epoch
        )
        for number, rows in enumerate(plan):
            assert stream.position == Position(epoch, 0, number)
            assert stream.epochs == epoch + number / len(plan)
            batch = stream.next()
            for index, row in enumerate(rows):
                ids = batch.source_BS[index]
                assert ids[ids != PAD].tolist() == [*data.source[row].tolist(), EOS]


def test_sampling_of_one_window_is_that_of_the_whole_corpus(folder: Path) -> None:
    data, config = prepared(folder), settings_of(folder, "tokenizer.sampling=0.3", "data.workers=0")
    stream = Stream(data, config)
    tokenizer = data.source_tokenizer
    for epoch in range(2):
        lines = [tokenizer.decode(data.source[i].tolist()) for i in range(len(data.source))]
        seed = int(seeded(1, "sampling", "source", epoch).integers(2**32))
        expected = Counter(map(tuple, tokenizer.sample_all(lines, 0.3, seed)))
        found = Counter(
            tuple(ids[(ids != PAD) & (ids != EOS)].tolist())
            for batch in epoch_of(stream)
            for ids in batch.source_BS
        )
        assert found == expected


def test_sampling_is_the_same_whoever_does_it(folder: Path) -> None:
    data = prepared(folder)
    streams = [
        Stream(
            data,
            settings_of(folder, "tokenizer.sampling=0.3", f"data.workers={workers}"),
            window_size=40,
            part_size=9,
        )
        for workers in (0, 1, 2)
    ]
    try:
        epochs = [[batch for _ in range(2) for batch in epoch_of(stream)] for stream in streams]
        assert len(epochs[0]) == len(epochs[1]) == len(epochs[2])
        assert all(same(a, b) and same(a, c) for a, b, c in zip(*epochs, strict=True))
        half = len(epochs[0]) // 2
        texts = sorted(pair for batch in epochs[0] for pair in pairs_of(batch, data))
        assert texts == sorted(2 * text_pairs(folder))
        # And from the middle.
        streams[1].position = streams[0].position = Position(1, 1, 2)
        again = [streams[1].next() for _ in range(5)]
        assert all(same(streams[0].next(), batch) for batch in again)
        assert any(same(again[0], batch) for batch in epochs[0][half - 5 :])
    finally:
        for stream in streams:
            stream.close()


def test_parts_of_a_window_are_not_sampled_alike(folder: Path) -> None:
    """The same text in two parts, windows or epochs is segmented in ways that differ."""
    data = prepared(folder)
    config = settings_of(folder, "tokenizer.sampling=0.5", "data.workers=0", "data.weights=[4, 0]")
    stream = Stream(data, config, window_size=150, part_size=50)
    ways: dict[str, set[tuple[int, ...]]] = {}
    for batch in epoch_of(stream):
        for ids in batch.source_BS.tolist():
            ways.setdefault(data.source_tokenizer.decode(ids), set()).add(tuple(ids))
    assert len(ways) == 70
    assert np.mean([len(found) for found in ways.values()]) > 2.5


@pytest.mark.parametrize("size", [30, 1000])
def test_weights(folder: Path, size: int) -> None:
    data = prepared(folder)
    stream = Stream(data, settings_of(folder, "data.weights=[2, 0.5]"), window_size=size)
    both = []
    for _ in range(2):
        pairs = Counter(pair for batch in epoch_of(stream) for pair in pairs_of(batch, data))
        assert all(pairs[pair] == 2 for pair in text_pairs(folder, "a"))
        drawn = {pair for pair in text_pairs(folder, "b") if pairs[pair]}
        assert len(drawn) == 16  # of 31
        assert sum(pairs.values()) == 2 * 70 + 16
        both.append(drawn)
    assert both[0] != both[1]


def test_temperature(folder: Path) -> None:
    data = prepared(folder)
    stream = Stream(data, settings_of(folder, "data.temperature=1000"))
    pairs = Counter(pair for batch in epoch_of(stream) for pair in pairs_of(batch, data))
    of_each = [sum(pairs[pair] for pair in text_pairs(folder, name)) for name in "ab"]
    assert of_each[0] == 70
    assert abs(of_each[1] - 70) <= 1


def test_weights_that_leave_nothing(folder: Path) -> None:
    with pytest.raises(UserError, match=r"leave no pair of 101 .*; raise"):
        Stream(prepared(folder), settings_of(folder, "data.weights=[0.001, 0]"))


def test_a_weight_that_shows_no_pair(folder: Path) -> None:
    """It rounds to none in every epoch: the least that does not is named, and works."""
    data = prepared(folder)
    with pytest.raises(
        UserError, match=r"with 0\.01 no pair of the 31 of .*b would ever be seen; give it "
    ) as at:
        Stream(data, settings_of(folder, "data.weights=[1, 0.01]"))
    least = str(at.value).split("give it ")[1].split()[0]
    stream = Stream(data, settings_of(folder, f"data.weights=[1, {least}]"))
    pairs = Counter(pair for batch in epoch_of(stream) for pair in pairs_of(batch, data))
    assert sum(pairs[pair] for pair in text_pairs(folder, "b")) == 1
    Stream(data, settings_of(folder, "data.weights=[1, 0]"))
    with pytest.raises(UserError, match=r"data\.temperature = 0\.1: no pair of the 31 .*; raise it"):
        Stream(data, settings_of(folder, "data.temperature=0.1"))


@pytest.mark.parametrize("sampling", [0, 0.3])
def test_tags_begin_the_source_of_their_corpus(folder: Path, sampling: float) -> None:
    overrides = ["data.tags=['', '<back>']", f"tokenizer.sampling={sampling}", "data.workers=0"]
    data = prepared(folder, *overrides)
    tag = data.source_tokenizer.id_of("<back>")
    assert data.tags == (None, tag)
    stream = Stream(data, settings_of(folder, *overrides), window_size=40)
    tagged = set(text_pairs(folder, "b"))
    for batch in epoch_of(stream):
        pairs = pairs_of(batch, data)  # decoding leaves tags out
        for ids, pair in zip(batch.source_BS.tolist(), pairs, strict=True):
            assert ids.count(tag) == (ids[0] == tag) == (pair in tagged)
        assert not (batch.target_output_BT == tag).any()


def test_where_the_stream_stands(folder: Path) -> None:
    stream = Stream(prepared(folder), settings_of(folder), window_size=40)
    fractions = []
    while stream.position.epoch < 2:
        fractions.append(stream.epochs)
        stream.next()
    assert fractions == sorted(set(fractions))
    assert fractions[0] == 0
    assert stream.epochs == 2
    count = len([f for f in fractions if f < 1])
    assert abs(stream.batches_an_epoch - count) < 0.2 * count
    padded, used = stream.padding()
    assert 0 < used <= padded


@pytest.mark.parametrize("sampling", ["0.0", "0.1"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_an_id_beyond_the_vocabulary_is_one_line(folder: Path, side: str, sampling: str) -> None:
    """Damage that a fingerprint of a long file does not see, or that came after the folder was opened."""
    more = (f"tokenizer.sampling={sampling}", "data.workers=0", f"data.max_words={90 + len(side)}")
    data = prepared(folder, *more)
    file = data.folder / f"train.{side}.tokens"
    content = np.fromfile(file, dtype=data.manifest["dtype"])
    content[7] = 60_000
    with file.open("r+b") as mapped:
        mapped.write(content.tobytes())
    stream = Stream(data, settings_of(folder, *more))

    def an_epoch() -> None:
        for _ in range(stream.batches_an_epoch):
            stream.next()

    with pytest.raises(UserError) as caught:
        an_epoch()
    assert caught.value.file == str(data.folder)
    assert f"damaged: train.{side}.tokens has id 60,000, and the vocabulary 400 entries; delete" in str(
        caught.value
    )
    stream.close()
    shutil.rmtree(data.folder)
    prepared.cache_clear()
