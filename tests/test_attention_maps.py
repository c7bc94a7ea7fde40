"""Attention of every kind: what the tokens of its rows and columns are, and its weights as those of words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import TINY

from nmt.attention_maps import (
    KINDS,
    Pair,
    Word,
    attention_maps,
    group,
    make_pairs,
    merge_words,
    pieces_of,
    rows_and_columns,
    words_of,
)
from nmt.checkpoint import LoadedModel, load_model
from nmt.config_file import parse_config
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError
from nmt.forced import attention
from nmt.models import build_model
from nmt.translator import Translator

RUN = "runs/tiny"
PAIRS = [
    ("The dog sees the old house.", "Der Hund sieht das Haus."),
    ("word " * 30, "Wort"),
    ("😀 漢字 ▁ \0 $x$", "שלום \u2028"),
    ("A dog.", ""),
]
SIZES = {
    "bahdanau": "embedding_width = 8\nhidden_width = 8\nattention_width = 8\nmaxout_width = 8\n",
    "recurrent": "embedding_width = 8\nhidden_width = 8\nlayers = 1\n",
}


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load_model(tiny_run / RUN)


def other(loaded: LoadedModel, architecture: str) -> LoadedModel:
    """Another architecture with the same tokenizers, untrained."""
    before, _, after = TINY.partition("[model]\n")
    training = after[after.index("[training]") :]
    config = parse_config(
        f'{before}[model]\narchitecture = "{architecture}"\n{SIZES[architecture]}\n{training}'
    )
    torch.manual_seed(1)
    model = build_model(config.model, len(loaded.source_tokenizer), len(loaded.target_tokenizer)).eval()
    tokenizers = (loaded.source_tokenizer, loaded.target_tokenizer)
    return LoadedModel(loaded.folder, model, config, *tokenizers, loaded.manifest)


@pytest.fixture(scope="module", params=["transformer", "bahdanau"])
def model(loaded: LoadedModel, request: pytest.FixtureRequest) -> LoadedModel:
    return loaded if request.param == "transformer" else other(loaded, request.param)


def test_maps(model: LoadedModel) -> None:
    pairs, _ = make_pairs(model, *map(list, zip(*PAIRS, strict=True)))
    assert [pair.line for pair in pairs] == [1, 2, 3, 4]
    kinds = list(KINDS) if model.model.recorded_a_layer == 2 else ["cross"]
    found = dict(attention_maps(model, pairs))
    assert found.keys() == {0, 1, 2, 3}
    for index, maps in found.items():
        assert list(maps) == kinds
        for kind, weights in maps.items():
            rows, columns = (pieces_of(model, pairs[index], side) for side in rows_and_columns(kind))
            assert weights.shape[2:] == (len(rows), len(columns))
            assert weights.min() >= 0
            np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
            if kind == "decoder":
                assert not np.triu(weights, k=1).any()
                assert rows[0] == columns[0] == "<s>"
            else:
                assert rows[-1] == columns[-1] == "</s>"


def test_what_is_beside_a_pair_does_not_matter(model: LoadedModel) -> None:
    pairs, _ = make_pairs(model, *map(list, zip(*PAIRS, strict=True)))
    together = dict(attention_maps(model, pairs))
    for index, pair in enumerate(pairs):
        ((_, alone),) = attention_maps(model, [pair])
        for kind, weights in alone.items():
            np.testing.assert_allclose(together[index][kind], weights, atol=1e-5)


def test_over_the_source_it_is_what_alignment_sees(model: LoadedModel) -> None:
    pairs, _ = make_pairs(model, *map(list, zip(*PAIRS, strict=True)))
    expected = dict(attention(model, [p.source_ids for p in pairs], [p.target_ids for p in pairs]))
    for index, maps in attention_maps(model, pairs):
        np.testing.assert_allclose(maps["cross"], expected[index], atol=1e-5)


def test_self_attention_sees_what_it_should(loaded: LoadedModel) -> None:
    """The decoder's does not depend on later tokens, the encoder's not on the target."""
    source = "The dog sees the house."
    (short, long), _ = make_pairs(loaded, [source] * 2, ["Der Hund", "Der Hund sieht das Haus."])
    maps = dict(attention_maps(loaded, [short, long]))
    tokens = len(short.target_ids)
    for kind, rows in (("decoder", tokens + 1), ("cross", tokens + 1)):
        width = maps[0][kind].shape[-1]
        np.testing.assert_allclose(maps[1][kind][:, :, :rows, :width], maps[0][kind][:, :, :rows], atol=1e-5)
    np.testing.assert_allclose(maps[0]["encoder"], maps[1]["encoder"], atol=1e-5)


def test_without_a_target_it_is_the_models_own(model: LoadedModel) -> None:
    sources = ["The dog sees the old house.", " ", "", "A woman."]
    pairs, too_long = make_pairs(model, sources, first_line=7)
    assert [pair.line for pair in pairs] == [7, 10]
    assert too_long == []
    texts = [found.text for found in Translator.of(model).translate(sources)]
    assert [pair.target for pair in pairs] == [texts[0], texts[3]]
    for pair in pairs:
        assert model.target_tokenizer.decode(pair.target_ids) == pair.target


def test_what_is_too_long_is_told(loaded: LoadedModel) -> None:
    long = "x" * 10_000
    pairs, too_long = make_pairs(loaded, ["A dog.", long, "A dog."], ["Ein Hund.", "Wort", long])
    assert ([pair.line for pair in pairs], too_long) == ([1], [2, 3])
    assert make_pairs(loaded, [long])[1] == [1]


def test_a_model_without_attention(loaded: LoadedModel) -> None:
    with pytest.raises(UserError, match='"recurrent" has no attention over the source'):
        make_pairs(other(loaded, "recurrent"), ["A dog."])


# Words


def test_tokens_are_grouped_by_words(loaded: LoadedModel) -> None:
    for source, target in PAIRS:
        for text, tokenizer in ((source, loaded.source_tokenizer), (target, loaded.target_tokenizer)):
            ids = tokenizer.encode(text)
            words = group(text, ids, tokenizer)
            assert sum(word.tokens for word in words) == len(ids)
            real = [word for word in text.split(" ") if word]
            assert [word.text for word in words][: len(real)] == real
    pair = Pair(
        1, "A dog.", "Ein Hund.", *(loaded.source_tokenizer.encode(t) for t in ("A dog.", "Ein Hund."))
    )
    assert [word.text for word in words_of(loaded, pair, "source")] == ["A", "dog.", "</s>"]
    assert [word.text for word in words_of(loaded, pair, "read")] == ["<s>", "Ein", "Hund."]


def test_tokens_that_do_not_spell_the_text_stand_alone(loaded: LoadedModel) -> None:
    tokenizer = loaded.source_tokenizer
    ids = tokenizer.encode("A dog sees")
    assert [word.tokens for word in group("", ids, tokenizer)] == [1] * len(ids)
    assert [word.tokens for word in group("  ", tokenizer.encode("  "), tokenizer)] == [
        1 for _ in tokenizer.encode("  ")
    ]
    word_level = train_tokenizer(["a b c"] * 3, type="word", vocabulary_size=10)
    assert group("a x b", word_level.encode("a x b"), word_level) == [Word(t, 1) for t in "axb"]
    assert len(group("a x", word_level.encode("a x b"), word_level)) == 3


def test_rows_of_words_sum_to_what_they_did() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(5), size=(2, 3, 4)).astype(np.float32)
    rows, columns = [Word("a", 1), Word("b", 3)], [Word("c", 2), Word("d", 1), Word("e", 2)]
    merged = merge_words(weights, rows, columns)
    assert merged.shape == (2, 3, 2, 3)
    np.testing.assert_allclose(merged.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(merged[1, 2, 0, 0], weights[1, 2, 0, :2].sum(), atol=1e-6)
    np.testing.assert_allclose(merged[0, 1, 1, 2], weights[0, 1, 1:, 3:].sum() / 3, atol=1e-6)
