"""Word alignment from attention.

L layers, H heads, T and S target and source tokens, I target words, J source words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.checkpoint import LoadedModel
from nmt.errors import UserError
from nmt.forced import Ids, Weights, attention, fitting, require_attention
from nmt.words import deciding_tokens, shares, split_words, token_spans, word_spans

Links = list[tuple[int, int]]  # (source word, target word), both from 0


# Attention of words


@dataclass(frozen=True)
class WordAttention:
    """Attention of target words over source words, and over the end of the source sentence."""

    words_LHIJ: Weights
    end_LHI: Weights


def merge(
    weights_LHTS: Weights, source_SJ: Weights, target_I: Sequence[int], ends_I: Sequence[bool]
) -> WordAttention:
    """Weights of tokens as weights of words.

    Args:
        weights_LHTS: the last column is the end of sentence.
        source_SJ: `shares`, by which a word's tokens are added up.
        target_I: `deciding_tokens`.
        ends_I: `end_is_mark`; there the last source word has the weight of the end of sentence too.
    """
    rows_LHIS = weights_LHTS[:, :, target_I]
    words_LHIJ, end_LHI = rows_LHIS[..., :-1] @ source_SJ, rows_LHIS[..., -1]
    places = np.flatnonzero(ends_I)
    if len(places):
        words_LHIJ[..., places, -1] += end_LHI[..., places]
        end_LHI[..., places] = 0
    return WordAttention(words_LHIJ, end_LHI)


def end_is_mark(source: Sequence[str], target: Sequence[str]) -> list[bool]:
    """For each target word whether, attending to the end of the source, it attends to the final mark.

    A model that writes a full stop looks at the full stop or at the end of sentence beside it, for which
    it is the same. Other words that look at the end look at nothing in particular. On the offline corpus
    this gives a lower error rate than the end's weight for all words, or for none.
    """
    final = bool(source) and _is_mark(source[-1])
    return [final and _is_mark(word) for word in target]


def _is_mark(word: str) -> bool:
    return not any(character.isalnum() for character in word)


# Links


@dataclass(frozen=True)
class View:
    """Which attention is looked at; None is the mean of all layers, or of all heads."""

    layer: int | None = None  # from 1
    head: int | None = None  # from 1
    # A word's links are read where the decoder has just read it, one position on from where it predicts it:
    # Shift-Att of Chen et al. 2020, "Accurate word alignment induction from neural machine translation".
    shift: bool = False

    def __str__(self) -> str:
        layer = "mean of layers" if self.layer is None else f"layer {self.layer}"
        text = f"{layer}, mean of heads" if self.head is None else f"{layer}, head {self.head}"
        return f"{text}, shifted by one" if self.shift else text

    def of(self, weights_LH: Weights) -> Weights:
        """(L, H, ...) -> (...). UserError where there is no such layer or head."""
        for axis, number, name in ((0, self.layer, "layer"), (1, self.head, "head")):
            most = weights_LH.shape[axis]
            if number is not None and not 1 <= number <= most:
                choose = "leave it out" if most == 1 else f"choose 1 to {most}"
                raise UserError(f"the model has no attention {name} {number}; {choose}")
        layers = slice(None) if self.layer is None else slice(self.layer - 1, self.layer)
        heads = slice(None) if self.head is None else slice(self.head - 1, self.head)
        mean: Weights = weights_LH[layers, heads].mean(axis=(0, 1))
        return mean


def default_view(loaded: LoadedModel) -> View:
    """The head that was trained on alignments; of a model without one the mean of all."""
    return View(*(loaded.config.guided_view or (None, None)))


def links(words_IJ: Weights, end_I: Weights) -> Links:
    """The source word each target word attends to most, in the order of the target.

    A target word that attends to the end of the source sentence more than to any word stays unlinked.
    Of equal weights that of the first word counts.
    """
    if not words_IJ.shape[1]:
        return []
    best_I = words_IJ.argmax(axis=1)
    return [
        (source, target)
        for target, source in enumerate(best_I.tolist())
        if words_IJ[target, source] >= end_I[target]
    ]


def pharaoh(found: Links) -> str:
    """ "0-0 1-2": source-target, from 0, as fast_align writes them."""
    return " ".join(f"{source}-{target}" for source, target in found)


def in_order(found: Iterable[tuple[int, int]]) -> Links:
    """In the order of the target, then of the source."""
    return sorted(found, key=lambda link: (link[1], link[0]))


class Aligner:
    """A model as an aligner of words."""

    def __init__(self, loaded: LoadedModel, words: str = "blank"):
        """UserError where the model has no attention."""
        require_attention(loaded)
        self.loaded = loaded
        self.words = words

    def views(self, shifts: Sequence[bool] = (False,)) -> list[View]:
        """The mean of everything, each layer's mean of heads, and each head; where asked, also shifted."""
        (_, weights), *_ = attention(self.loaded, [[]], [[]])
        layers, heads = (range(1, size + 1) for size in weights.shape[:2])
        found: list[tuple[int | None, int | None]] = [(None, None)]
        found += [(layer, None) for layer in layers if len(layers) > 1]
        found += [(layer, head) for layer in layers for head in heads if len(heads) > 1]
        return [View(layer, head, shift) for shift in shifts for layer, head in found]

    def align(
        self, pairs: Sequence[tuple[str, str]], views: Sequence[View] = (View(),)
    ) -> list[list[Links] | None]:
        """For each pair the links of each view; None for a pair too long for the model.

        A pair with a blank side has no links.
        """
        sources = self.loaded.source_tokenizer.encode_all([source for source, _ in pairs])
        targets = self.loaded.target_tokenizer.encode_all([target for _, target in pairs])
        fits = fitting(self.loaded, sources, targets)
        result: list[list[Links] | None] = [[[] for _ in views] if does else None for does in fits]
        chosen = [i for i, pair in enumerate(pairs) if fits[i] and all(side.strip() for side in pair)]
        found = attention(self.loaded, [sources[i] for i in chosen], [targets[i] for i in chosen])
        for place, weights in found:
            i = chosen[place]
            seen = {
                shift: self._merge(weights, pairs[i], (sources[i], targets[i]), shift)
                for shift in {view.shift for view in views}
            }
            result[i] = [
                links(view.of(seen[view.shift].words_LHIJ), view.of(seen[view.shift].end_LHI))
                for view in views
            ]
        return result

    def _merge(
        self, weights_LHTS: Weights, pair: tuple[str, str], ids: tuple[Ids, Ids], shift: bool
    ) -> WordAttention:
        source, target = pair
        source_tokens = token_spans(source, ids[0], self.loaded.source_tokenizer)
        target_tokens = token_spans(target, ids[1], self.loaded.target_tokenizer)
        rows_I = deciding_tokens(target, self.words, target_tokens)
        return merge(
            weights_LHTS,
            shares(source_tokens, word_spans(source, self.words)),
            [row + 1 for row in rows_I] if shift else rows_I,
            end_is_mark(split_words(source, self.words), split_words(target, self.words)),
        )
