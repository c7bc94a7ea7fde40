"""A small model of every architecture and variant, and sentences for them.

Dropout rates are high, so dropout in the wrong place shows in evaluation too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from nmt.models.recurrent import Bahdanau, Luong, Recurrent
from nmt.models.transformer import Transformer

SOURCE_VOCABULARY, TARGET_VOCABULARY = 23, 19
LONGEST = 128  # of learned positions
VOCABULARIES: dict[str, Any] = dict(source_vocabulary=SOURCE_VOCABULARY, target_vocabulary=TARGET_VOCABULARY)


def transformer(**options: Any) -> nn.Module:
    sizes = dict(encoder_layers=2, decoder_layers=2, width=16, feed_forward_width=24, heads=2)
    rates = dict(dropout=0.5, attention_dropout=0.5, activation_dropout=0.5)
    chosen: dict[str, Any] = sizes | rates | dict(max_positions=LONGEST, tie_embeddings="target") | options
    return Transformer(**VOCABULARIES, **chosen)


def recurrent(**options: Any) -> nn.Module:
    chosen: dict[str, Any] = dict(embedding_width=8, hidden_width=10, layers=2, dropout=0.5) | options
    return Recurrent(**VOCABULARIES, **chosen)


def bahdanau(**options: Any) -> nn.Module:
    sizes = dict(embedding_width=8, hidden_width=10, attention_width=7, maxout_width=8)
    chosen: dict[str, Any] = sizes | dict(dropout=0.5, attention_dropout=0.5) | options
    return Bahdanau(**VOCABULARIES, **chosen)


def luong(**options: Any) -> nn.Module:
    sizes = dict(embedding_width=8, hidden_width=10, attentional_width=8, layers=2)
    rates = dict(dropout=0.5, attention_dropout=0.5)
    chosen: dict[str, Any] = sizes | rates | dict(window_size=2, max_positions=LONGEST) | options
    return Luong(**VOCABULARIES, **chosen)


# Five ways to build the stacks, dealt out over the 24 ways to attend.
STACKS: list[dict[str, Any]] = [
    dict(),
    dict(bidirectional=True),
    dict(cell="gru", reverse_source=True),
    dict(layers=3, residual=True),
    dict(cell="gru", bidirectional=True, reverse_source=True, residual=True),
]
ATTENTIONS = list(
    product(("dot", "general", "concat", "location"), ("global", "local-m", "local-p"), ("fed", "unfed"))
)
LUONG = {
    f"luong-{score}-{window}-{feeding}": partial(
        luong,
        score=score,
        window=window,
        input_feeding=feeding == "fed",
        **STACKS[number % len(STACKS)],
    )
    for number, (score, window, feeding) in enumerate(ATTENTIONS)
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "post-sinusoidal": partial(transformer, norm="post", positions="sinusoidal"),
    "post-learned": partial(transformer, norm="post", positions="learned"),
    "pre-sinusoidal": partial(transformer, norm="pre", positions="sinusoidal"),
    "pre-learned": partial(transformer, norm="pre", positions="learned"),
    "recurrent-lstm": recurrent,
    "recurrent-gru": partial(recurrent, cell="gru", layers=3),
    "recurrent-one-layer": partial(recurrent, layers=1, hidden_width=8, tie_embeddings="target"),
    "recurrent-both-ways": partial(recurrent, bidirectional=True),
    "recurrent-reversed": partial(recurrent, reverse_source=True),
    "recurrent-residual": partial(recurrent, layers=3, residual=True),
    "recurrent-everything": partial(recurrent, **STACKS[-1]),
    "bahdanau-tied": partial(bahdanau, tie_embeddings="target"),
    "bahdanau-untied": partial(bahdanau, tie_embeddings="none", maxout_width=5),
    **LUONG,
    "luong-untied": partial(luong, tie_embeddings="none", attentional_width=7, layers=1),
}


def make(name: str) -> Any:
    """In evaluation mode."""
    torch.manual_seed(11)
    made = MODELS[name]()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:  # biases begin at 0 and norms at 1, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return made.eval()


def random_source(lengths: list[int], generator: torch.Generator, *, longest: int = 0) -> Tensor:
    """Ids 4 and up, end of sentence (3) last, padding (0) after it."""
    source_BS = torch.zeros(len(lengths), max(longest, *lengths), dtype=torch.long)
    for row, length in zip(source_BS, lengths, strict=True):
        row[:length] = torch.randint(4, SOURCE_VOCABULARY, (length,), generator=generator)
        row[length - 1] = 3
    return source_BS


def prefixes(sentences: int, tokens: int, generator: torch.Generator) -> Tensor:
    target_BT = torch.randint(3, TARGET_VOCABULARY, (sentences, tokens), generator=generator)
    target_BT[:, 0] = 2
    return target_BT
