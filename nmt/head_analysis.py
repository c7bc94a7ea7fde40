"""The heads of a model: what each looks at on a text, and what the model loses without it.

L layers, H heads, Q queries, K keys.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nmt import head_scores
from nmt.attention_maps import KINDS, Pair, attention_maps, ids_of, rows_and_columns, words_of
from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import EOS, SPECIAL_IDS
from nmt.errors import UserError
from nmt.evaluation import Score, scores_of
from nmt.forced import Weights, log_probabilities
from nmt.head_scores import OFFSETS, POSITIONAL, Floats
from nmt.metric_set import MetricOptions, MetricSet, tokenizer_here
from nmt.models.seam import Model
from nmt.models.transformer import Transformer
from nmt.translator import Translator

LEAST_ROWS = 10  # that a head is called positional by
Counts = Mapping[int, int]  # how often a token comes in a text


@dataclass(frozen=True, order=True)
class Head:
    """One head; layer and head from 1."""

    kind: str  # of `nmt.attention_maps.KINDS`
    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.kind} layer {self.layer}, head {self.head}"


@dataclass(frozen=True)
class HeadReport:
    """What a head does on a text. None: nothing in the text, or in this kind of attention, tells.

    The functions of `nmt.head_scores` have the formulas; means are over all rows of the text.
    """

    head: Head
    entropy: float | None  # nats
    normalized_entropy: float | None  # 0: one token, 1: all alike
    confidence: float | None  # mean of the largest weight
    before: float | None  # mean weight of the token before, in attention over the source of the place before
    same: float | None
    after: float | None
    offset: int | None  # where the largest weight is most often, of places that `LEAST_ROWS` rows have
    offset_share: float | None  # how often it is there
    offset_rows: int | None  # of so many rows
    rare: float | None  # how often it looks most at the least frequent token
    copying: float | None  # cross: weight of the source word that is the word being written
    induction: float | None  # self: weight of what followed before, where a pattern comes again

    @property
    def positional(self) -> bool:
        return self.offset_share is not None and self.offset_share >= POSITIONAL


# The scores by which heads are ranked, the most first, and how they are called.
RANKED = {
    "offset_share": "positional",
    "rare": "rare words",
    "copying": "copying",
    "induction": "induction",
    "confidence": "confidence",
}


@dataclass(frozen=True)
class Analysis:
    """The heads of a model on a text, in the order of `KINDS`, layers and heads."""

    heads: list[HeadReport]
    chance: dict[str, dict[str, float]]  # kind -> score -> what weights spread evenly would give
    pairs: int

    def ranked(self, score: str, kind: str | None = None) -> list[HeadReport]:
        """By a score of `HeadReport`, the highest first; heads without it are left out."""
        found = [report for report in self.heads if kind in (None, report.head.kind)]
        having = [report for report in found if getattr(report, score) is not None]
        return sorted(having, key=lambda report: -getattr(report, score))


@dataclass
class _Tally:
    """Sums over the sentences of a text, of one kind of attention."""

    values: dict[str, Floats] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    chance: Counter[str] = field(default_factory=Counter)
    weight: Floats | None = None  # (L, H, O)
    largest: Floats | None = None
    offset_rows: Floats | None = None

    def add(self, name: str, found: head_scores.Sum) -> None:
        self.values[name] = self.values.get(name, 0) + found.values_LH
        self.rows[name] += found.rows  # type: ignore[assignment]
        self.chance[name] += found.chance  # type: ignore[assignment]

    def add_offsets(self, found: head_scores.Offsets) -> None:
        self.weight = found.weight_LHO + (0 if self.weight is None else self.weight)
        self.largest = found.largest_LHO + (0 if self.largest is None else self.largest)
        self.offset_rows = found.rows_O + (0 if self.offset_rows is None else self.offset_rows)

    def mean(self, name: str, layer: int, head: int) -> float | None:
        if not self.rows[name]:
            return None
        return float(self.values[name][layer, head] / self.rows[name])


def count_tokens(loaded: LoadedModel, pairs: Sequence[Pair]) -> tuple[Counter[int], Counter[int]]:
    """How often each token comes in the sources and in the targets."""
    return (
        Counter(token for pair in pairs for token in pair.source_ids),
        Counter(token for pair in pairs for token in pair.target_ids),
    )


def analyse(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    counts: tuple[Counts, Counts] | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Analysis:
    """What each head of a model does on a text.

    Args:
        counts: how often source and target tokens come, for what is rare; those of `pairs` without it.
        tell: called now and then with the number of pairs done.

    Raises:
        UserError: the model has no attention.
    """
    source_counts, target_counts = counts or count_tokens(loaded, pairs)
    tallies: dict[str, _Tally] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for done, (index, maps) in enumerate(attention_maps(loaded, pairs), start=1):
        pair = pairs[index]
        for kind, weights in maps.items():
            sizes[kind] = (weights.shape[0], weights.shape[1])
            keys = rows_and_columns(kind)[1]
            counted = source_counts if keys == "source" else target_counts
            tags = len(pair.tag_ids) if keys == "source" else 0
            _add(tallies.setdefault(kind, _Tally()), kind, weights, ids_of(pair, keys), tags, counted)
            if kind == "cross":
                written, source = (_word_of_each(loaded, pair, side) for side in ("written", "source"))
                same = head_scores.copies(written, source)
                tallies[kind].add("copying", head_scores.weight_on(weights, same))
        tell(done)
    heads = [
        _report(Head(kind, layer + 1, head + 1), tallies[kind])
        for kind in KINDS
        if kind in tallies
        for layer in range(sizes[kind][0])
        for head in range(sizes[kind][1])
    ]
    chance = {
        kind: {name: tally.chance[name] / tally.rows[name] for name in tally.values if tally.rows[name]}
        for kind, tally in tallies.items()
    }
    return Analysis(heads, chance, len(pairs))


def _word_of_each(loaded: LoadedModel, pair: Pair, side: str) -> list[str]:
    """The word that each token belongs to; the end and a tag belong to none."""
    texts = [word.text for word in words_of(loaded, pair, side) for _ in range(word.tokens)]
    none = {EOS, *pair.tag_ids}
    return ["" if token in none else text for token, text in zip(ids_of(pair, side), texts, strict=True)]


def _add(tally: _Tally, kind: str, weights: Weights, keys: Sequence[int], tags: int, counts: Counts) -> None:
    """The first `tags` keys are tags, no words."""
    causal = kind == "decoder"
    special_K = np.array([place < tags or token in SPECIAL_IDS for place, token in enumerate(keys)])
    nats, normalized = head_scores.entropy(weights, causal)
    tally.add("entropy", nats)
    tally.add("normalized_entropy", normalized)
    tally.add("confidence", head_scores.confidence(weights, special_K, causal))
    # The first word of a translation stands level with the first of the source.
    tally.add_offsets(head_scores.offsets(weights[..., tags:] if kind == "cross" else weights, causal))
    count_K = [counts.get(token, 0) for token in keys]
    tally.add("rare", head_scores.rare(weights, count_K, special_K, causal))
    if kind != "cross":
        tally.add("induction", head_scores.weight_on(weights, head_scores.followers(keys, special_K), causal))


def _report(head: Head, tally: _Tally) -> HeadReport:
    layer, place = head.layer - 1, head.head - 1
    assert tally.weight is not None
    assert tally.largest is not None
    assert tally.offset_rows is not None
    rows_O = tally.offset_rows
    means, shares = (
        np.divide(sums[layer, place], rows_O, out=np.full(len(OFFSETS), np.nan), where=rows_O > 0)
        for sums in (tally.weight, tally.largest)
    )
    at = {
        offset: None if np.isnan(mean) else float(mean) for offset, mean in zip(OFFSETS, means, strict=True)
    }
    # In a text of a few words one row decides how often, and says nothing of the head.
    shares = np.where(rows_O >= LEAST_ROWS, shares, np.nan)
    best = None if np.isnan(shares).all() else int(np.nanargmax(shares))

    def mean(name: str) -> float | None:
        return tally.mean(name, layer, place)

    return HeadReport(
        head,
        entropy=mean("entropy"),
        normalized_entropy=mean("normalized_entropy"),
        confidence=mean("confidence"),
        before=at[-1],
        same=at[0],
        after=at[1],
        offset=None if best is None else OFFSETS[best],
        offset_share=None if best is None else float(shares[best]),
        offset_rows=None if best is None else int(rows_O[best]),
        rare=mean("rare"),
        copying=mean("copying"),
        induction=mean("induction"),
    )


# Importance


@dataclass(frozen=True)
class Importance:
    """What the model loses without a head; above 0 is worse."""

    loss: float  # rise in nats a target token
    bleu: float | None = None  # fall in points


@dataclass(frozen=True)
class Importances:
    loss: float  # of the whole model, in nats a target token
    bleu: float | None
    by_head: dict[Head, Importance]
    bleu_signature: str | None = None


def all_heads(model: Model) -> list[Head]:
    """The heads that can be masked; UserError where the architecture has none."""
    found = [
        Head(kind, layer, head)
        for kind in KINDS
        for layer, projections in enumerate(_projections(model, kind), start=1)
        for head in range(1, projections.heads + 1)
    ]
    if not found:
        raise UserError(
            "a head's importance is that of one of several, and this architecture has one attention without "
            "heads; leave out --importance"
        )
    return found


def _projections(model: Model, kind: str) -> list[Any]:
    if not isinstance(model, Transformer):
        return []
    if kind == "encoder":
        return [layer.attention for layer in model.encoder]
    return [layer.self_attention if kind == "decoder" else layer.cross_attention for layer in model.decoder]


@contextlib.contextmanager
def masked(model: Model, head: Head) -> Iterator[None]:
    """The model as if one head gave zeros (Michel et al. 2019, "Are sixteen heads really better than one?").

    The heads' outputs stand side by side before the output matrix, so its columns of that head are set to
    zero: exact, and what is computed elsewhere stays as it is. Undone at the end.
    """
    projections = _projections(model, head.kind)[head.layer - 1]
    weight: Tensor = projections.output.weight
    size = weight.size(1) // projections.heads
    columns = weight.data[:, (head.head - 1) * size : head.head * size]
    kept = columns.clone()
    columns.zero_()
    try:
        yield
    finally:
        columns.copy_(kept)


def importance(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    references: Sequence[Sequence[str]] = (),
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Importances:
    """What each head is worth: the loss of the targets without it, and BLEU where references are given.

    Args:
        references: each has a line for each pair; the sources are translated anew for each head.
        tell: called with the number of heads done, and of all.

    Raises:
        UserError: the architecture has no heads.
    """
    heads = all_heads(loaded.model)
    loss, score = _loss(loaded, pairs), _bleu(loaded, pairs, references)
    bleu = None if score is None else score.score
    by_head = {}
    for done, head in enumerate(heads, start=1):
        with masked(loaded.model, head):
            without, score_without = _loss(loaded, pairs), _bleu(loaded, pairs, references)
        fall = None if bleu is None or score_without is None else bleu - score_without.score
        by_head[head] = Importance(without - loss, fall)
        tell(done, len(heads))
    return Importances(loss, bleu, by_head, None if score is None else score.signature)


def _loss(loaded: LoadedModel, pairs: Sequence[Pair]) -> float:
    sources, targets = [pair.source_ids for pair in pairs], [pair.target_ids for pair in pairs]
    return -float(np.concatenate(log_probabilities([loaded], sources, targets)).mean(dtype=np.float64))


def _bleu(loaded: LoadedModel, pairs: Sequence[Pair], references: Sequence[Sequence[str]]) -> Score | None:
    if not references:
        return None
    # A translator anew: it packs the matrices as they are now.
    with torch.inference_mode():
        texts = [found.text for found in Translator.of(loaded).translate([pair.source for pair in pairs])]
    options = MetricOptions(tokenizer_here(loaded.config.data.target_language))
    return scores_of(texts, MetricSet(references, options, names=["bleu"]))[0]
