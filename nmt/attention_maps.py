"""All attention of a model on given translations: every kind it has, layer by layer, head by head.

B sentences, S and T source and target tokens with their ends, L layers, H heads, Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.data.batches import cut, pad
from nmt.data.tokenizer import BOS, EOS, PAD, Tokenizer
from nmt.ensemble import tagging
from nmt.forced import Ids, Weights, fitting, require_attention
from nmt.translator import Translator
from nmt.words import shares, split_words, token_spans, word_spans

# In the order in which a sentence goes through them. Recurrent models have the last alone.
KINDS = ("encoder", "decoder", "cross")
TITLES = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": "attention over the source",
}

Maps = dict[str, Weights]  # kind -> (L, H, Q, K)


@dataclass(frozen=True)
class Word:
    """Some tokens in a row that spell a word, or one that spells none."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation as the model reads them."""

    line: int  # from 1
    source: str
    target: str
    source_ids: Ids
    target_ids: Ids
    tag_ids: Ids = ()  # of `search.tag`, read before the source


def rows_and_columns(kind: str) -> tuple[str, str]:
    """Which sequence the queries are and which the keys: "source", "read" or "written".

    All hold an end or a beginning, the source a tag before it if the model is given one. The decoder reads
    the beginning of sentence and the target, and writes the target and the end: row t of "cross" belongs to
    the token predicted at position t, row t of "decoder" to the token read there, one before.
    """
    return {"encoder": ("source", "source"), "decoder": ("read", "read"), "cross": ("written", "source")}[
        kind
    ]


def ids_of(pair: Pair, sequence: str) -> list[int]:
    """The tokens of "source", "read" or "written"."""
    return {
        "source": [*pair.tag_ids, *pair.source_ids, EOS],
        "read": [BOS, *pair.target_ids],
        "written": [*pair.target_ids, EOS],
    }[sequence]


def pieces_of(loaded: LoadedModel, pair: Pair, sequence: str) -> list[str]:
    tokenizer = loaded.source_tokenizer if sequence == "source" else loaded.target_tokenizer
    return tokenizer.pieces(ids_of(pair, sequence))


def words_of(loaded: LoadedModel, pair: Pair, sequence: str) -> list[Word]:
    """The words (parted by blanks) of "source", "read" or "written"; special tokens stand alone."""
    if sequence == "source":
        text, ids, tokenizer = pair.source, pair.source_ids, loaded.source_tokenizer
    else:
        text, ids, tokenizer = pair.target, pair.target_ids, loaded.target_tokenizer
    words = group(text, ids, tokenizer)
    special = Word(tokenizer.piece(BOS if sequence == "read" else EOS), 1)
    if sequence == "read":
        return [special, *words]
    tags = [Word(tokenizer.piece(tag), 1) for tag in pair.tag_ids] if sequence == "source" else []
    return [*tags, *words, special]


def group(text: str, ids: Ids, tokenizer: Tokenizer) -> list[Word]:
    """Tokens of a text as words: a token belongs to the word that has most of its bytes.

    Tokens that do not spell the text, such as bytes that are no character, each stand alone.
    """
    alone = [Word(piece, 1) for piece in tokenizer.pieces(ids)]
    spans = token_spans(text, ids, tokenizer)
    if len(spans) != len(ids) or (spans and spans[0][0] not in (-1, 0)):
        return alone
    names = split_words(text)
    if not names:
        return alone
    shares_TW = shares(spans, word_spans(text))
    word_T = np.where(shares_TW.any(axis=1), shares_TW.argmax(axis=1), -1).tolist()
    found: list[tuple[int, Word]] = []
    for place, word in enumerate(word_T):
        if word < 0:
            found.append((-1, alone[place]))
        elif found and found[-1][0] == word:
            found[-1] = (word, Word(names[word], found[-1][1].tokens + 1))
        else:
            found.append((word, Word(names[word], 1)))
    return [word for _, word in found]


def merge_words(weights: Weights, rows: Sequence[Word], columns: Sequence[Word]) -> Weights:
    """(..., Q, K) of tokens as weights of words: of tokens that look the mean, of those looked at the sum.

    So a row still sums to what it did (Clark et al. 2019, "What does BERT look at?").
    """
    starts = [np.cumsum([0, *(word.tokens for word in words)])[:-1] for words in (rows, columns)]
    summed = np.add.reduceat(np.add.reduceat(weights, starts[0], axis=-2), starts[1], axis=-1)
    merged: Weights = (summed / np.array([[word.tokens] for word in rows])).astype(np.float32)
    return merged


def make_pairs(
    loaded: LoadedModel, sources: Sequence[str], targets: Sequence[str] | None = None, first_line: int = 1
) -> tuple[list[Pair], list[int]]:
    """Lines as the model reads them, without blank ones; its own translations where there is no target.

    Args:
        first_line: the number of the first line.

    Returns:
        The pairs, and the lines left out because they are too long for the model.

    Raises:
        UserError: the model has no attention.
    """
    require_attention(loaded)
    encoded = loaded.source_tokenizer.encode_all(sources)
    if targets is None:
        translations = [translation.candidates[0] for translation in Translator.of(loaded).translate(sources)]
        texts = [candidate.text for candidate in translations]
        id_of = loaded.target_tokenizer.id_of
        # One that was translated in parts has no attention of its own.
        written = [[id_of(p) for p in c.tokens] if len(c.lengths) < 2 else None for c in translations]
    else:
        texts, written = list(targets), list(loaded.target_tokenizer.encode_all(targets))
    fits = fitting(loaded, encoded, [ids or [] for ids in written])
    tag_ids = tagging(loaded.source_tokenizer, loaded.config.search.tag, loaded.folder)([])
    pairs, too_long = [], []
    for place, (source, text) in enumerate(zip(sources, texts, strict=True)):
        ids, line = written[place], first_line + place
        if not source.strip():
            continue
        if ids is None or not fits[place]:
            too_long.append(line)
        else:
            pairs.append(Pair(line, source, text, encoded[place], ids, tag_ids))
    return pairs, too_long


@torch.inference_mode()
def attention_maps(loaded: LoadedModel, pairs: Sequence[Pair]) -> Iterator[tuple[int, Maps]]:
    """The index of each pair and its attention, longest pairs first.

    Rows sum to 1, under Luong's local-p window to less. Keep what is needed of each: they are large.

    Raises:
        UserError: the model has no attention.
    """
    require_attention(loaded)
    model, device = loaded.model, next(loaded.model.parameters()).device
    longest = np.array(
        [max(len(ids_of(pair, side)) for side in ("source", "read")) for pair in pairs], dtype=np.int64
    )
    order = np.argsort(-longest, kind="stable")
    for start, end in cut(longest[order], loaded.config.search.tokens_together):
        batch = order[start:end].tolist()
        source_BS, read_BT = (
            torch.from_numpy(pad([ids_of(pairs[i], sequence) for i in batch], PAD)).to(device)
            for sequence in ("source", "read")
        )
        encoder: list[Tensor] = []
        decoder: list[Tensor] = []
        model.decode(read_BT, model.encode(source_BS, source_BS != PAD, encoder), decoder)
        # Of a decoder layer the first is over the source, the second over the prefix.
        step = model.recorded_a_layer
        recorded = {
            "encoder": encoder,
            "decoder": decoder[1::step] if step > 1 else [],
            "cross": decoder[::step],
        }
        stacked = {
            kind: torch.stack(layers, dim=1).float().cpu().numpy()
            for kind, layers in recorded.items()
            if layers
        }
        for place, index in enumerate(batch):
            sizes = {
                kind: [len(ids_of(pairs[index], sequence)) for sequence in rows_and_columns(kind)]
                for kind in stacked
            }
            yield (
                index,
                {
                    kind: weights_BLHQK[place, :, :, : sizes[kind][0], : sizes[kind][1]]
                    for kind, weights_BLHQK in stacked.items()
                },
            )
