"""To the last bit, hypotheses and scores of a sentence are the same in any batch, where products are ours."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import SOURCE_VOCABULARY, bahdanau, recurrent, transformer

from nmt import products
from nmt.config import SearchConfig
from nmt.search import Hypothesis
from nmt.translator import Translator

LONG = 120  # tokens: so many that attention with gradients is torch's
WIDE: dict[str, Any] = dict(embedding_width=64, hidden_width=64)
MODELS = {
    "pre": partial(transformer, norm="pre", width=32, max_positions=LONG + 1),  # two heads of 16
    "post": partial(transformer, norm="post", width=32, max_positions=LONG + 1),
    "lstm": partial(recurrent, **WIDE),
    "gru both ways": partial(recurrent, cell="gru", bidirectional=True, **WIDE),
    "bahdanau": partial(bahdanau, attention_width=64, maxout_width=64, **WIDE),
}


@pytest.mark.skipif(not products.available(), reason="needs AVX-512 and the compiled products")
@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MODELS)
def test_a_sentence_alone_and_in_any_company(name: str, precision: str) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(5)
    model = MODELS[name]().eval()
    tokenizer: Any = SimpleNamespace(word_level=False)

    def source_of(length: int) -> list[int]:
        return torch.randint(4, SOURCE_VOCABULARY, (length,), generator=generator).tolist()

    def found(sources: list[list[int]], batch_tokens: int) -> list[list[Hypothesis]]:
        search = SearchConfig(
            batch_tokens=batch_tokens, precision=precision, max_length_factor=0.0, max_length_offset=8
        )
        return Translator(model, tokenizer, tokenizer, search).translate_ids(sources)

    lengths = torch.randint(1, 40, (20,), generator=generator).tolist()
    sources = [source_of(length) for length in lengths]
    alone = found(sources, 1)
    for batch_tokens in (50, 300, 10_000):
        assert found(sources, batch_tokens) == alone
    assert found(sources[::-1], 300) == alone[::-1]
    assert found([*sources, source_of(LONG)], 21 * LONG)[:-1] == alone
