"""Word alignment from attention, and how far it agrees with people's.

L layers, H heads, T and S target and source tokens, I target words, J source words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.checkpoint import LoadedModel
from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.forced import Ids, Weights, attention, fitting, require_attention
from nmt.words import SEGMENTATIONS, deciding_tokens, shares, split_words, token_spans, word_spans

Links = list[tuple[int, int]]  # (source word, target word), both from 0

# Pairs encoded together.
CHUNK_PAIRS = 2000
_LINK = re.compile(r"(\d+)([-p?])(\d+)", re.ASCII)


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

    def __str__(self) -> str:
        layer = "mean of layers" if self.layer is None else f"layer {self.layer}"
        return f"{layer}, mean of heads" if self.head is None else f"{layer}, head {self.head}"

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


class Aligner:
    """A model as an aligner of words."""

    def __init__(self, loaded: LoadedModel, words: str = "blank"):
        """UserError where the model has no attention."""
        require_attention(loaded)
        self.loaded = loaded
        self.words = words

    def views(self) -> list[View]:
        """The mean of everything, each layer's mean of heads, and each head."""
        (_, weights), *_ = attention(self.loaded, [[]], [[]])
        layers, heads = (range(1, size + 1) for size in weights.shape[:2])
        found = [View(), *(View(layer) for layer in layers if len(layers) > 1)]
        return found + [View(layer, head) for layer in layers for head in heads if len(heads) > 1]

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
            seen = self._merge(weights, pairs[i], (sources[i], targets[i]))
            result[i] = [links(view.of(seen.words_LHIJ), view.of(seen.end_LHI)) for view in views]
        return result

    def _merge(self, weights_LHTS: Weights, pair: tuple[str, str], ids: tuple[Ids, Ids]) -> WordAttention:
        source, target = pair
        source_tokens = token_spans(source, ids[0], self.loaded.source_tokenizer)
        target_tokens = token_spans(target, ids[1], self.loaded.target_tokenizer)
        return merge(
            weights_LHTS,
            shares(source_tokens, word_spans(source, self.words)),
            deciding_tokens(target, self.words, target_tokens),
            end_is_mark(split_words(source, self.words), split_words(target, self.words)),
        )


# Gold


@dataclass(frozen=True)
class Gold:
    """The links people gave a pair, from 0; the sure ones are among the possible ones."""

    sure: frozenset[tuple[int, int]]
    possible: frozenset[tuple[int, int]]


@dataclass
class Agreement:
    """Counts of links, to which pairs are added."""

    found: int = 0
    sure: int = 0
    found_sure: int = 0
    found_possible: int = 0

    def add(self, found: Links, gold: Gold) -> None:
        self.found += len(found)
        self.sure += len(gold.sure)
        self.found_sure += len(gold.sure.intersection(found))
        self.found_possible += len(gold.possible.intersection(found))

    @property
    def aer(self) -> float:
        """1 - (|A & S| + |A & P|) / (|A| + |S|) (Och and Ney 2003, eq. 31): 0 is best."""
        both = self.found + self.sure
        return 1 - (self.found_sure + self.found_possible) / both if both else 0.0

    @property
    def precision(self) -> float:
        return self.found_possible / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.found_sure / self.sure if self.sure else 0.0


def read_gold(path: Path, pairs: Sequence[tuple[str, str]], *, words: str, base: int = 0) -> list[Gold]:
    """A gold alignment, a line a pair: `3-4` is a sure link, `3p4` and `3?4` are possible ones.

    Args:
        pairs: the sentences it aligns, against whose words it is checked.
        words: of SEGMENTATIONS.
        base: the number of the first word.

    Raises:
        UserError: names the line of what is no link, or links words that are not there.
    """
    lines = list(read_lines(path))
    if len(lines) != len(pairs):
        raise UserError(
            f"has {len(lines):,} lines for {len(pairs):,} sentence pairs; give the alignment of this text",
            file=path,
        )
    found = []
    for number, line in enumerate(lines, start=1):
        sure, possible = set(), set()
        for text in line.split():
            match = _LINK.fullmatch(text)
            if match is None:
                raise UserError(
                    f"{text[:40]!r} is no link; write 3-4 for a sure one and 3p4 for a possible one",
                    file=path,
                    line=number,
                )
            link = int(match[1]) - base, int(match[3]) - base
            possible.add(link)
            if match[2] == "-":
                sure.add(link)
        found.append(Gold(frozenset(sure), frozenset(possible)))
    if not any(gold.possible for gold in found):
        raise UserError("has no links; give a gold alignment", file=path)
    outside = _first_outside(found, pairs, words)
    if outside is not None:
        number, (i, j), counts = outside
        raise UserError(
            f"link {i + base}-{j + base} is outside {counts[0]} source and {counts[1]} target words counted "
            f"from {base}; {_count_otherwise(found, pairs, base)}",
            file=path,
            line=number,
        )
    return found


def _first_outside(
    gold: Sequence[Gold], pairs: Sequence[tuple[str, str]], words: str, shift: int = 0
) -> tuple[int, tuple[int, int], tuple[int, int]] | None:
    """The first link, with its line and that line's numbers of words, that is not between two words."""
    for number, (line, (source, target)) in enumerate(zip(gold, pairs, strict=True), start=1):
        counts = len(split_words(source, words)), len(split_words(target, words))
        for i, j in sorted(line.possible):
            if not (0 <= i + shift < counts[0] and 0 <= j + shift < counts[1]):
                return number, (i, j), counts
    return None


def _count_otherwise(gold: Sequence[Gold], pairs: Sequence[tuple[str, str]], base: int) -> str:
    """How words would have to be counted: the file is more often right than the options."""
    for words in SEGMENTATIONS:
        for other in (0, 1):
            if _first_outside(gold, pairs, words, shift=base - other) is None:
                return f"all links are inside with --words {words} --gold-base {other}"
    return "give the alignment of this text"


@dataclass(frozen=True)
class Alignment:
    """A text's links, as seen from one view, and how they agree with the gold."""

    view: View
    lines: list[str]  # in Pharaoh's format, one a pair
    too_long: list[int]  # pairs left without links, from 0
    agreement: Agreement | None


def align_text(
    aligner: Aligner,
    pairs: Sequence[tuple[str, str]],
    views: Sequence[View] = (View(),),
    gold: Sequence[Gold] | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Alignment:
    """Align a text from the view that agrees best with the gold; without gold, from the first.

    Args:
        tell: called now and then with the number of pairs done.
    """
    lines: list[list[str]] = [[] for _ in views]
    agreements = [Agreement() for _ in views]
    too_long = []
    for start in range(0, len(pairs), CHUNK_PAIRS):
        for number, found in enumerate(aligner.align(pairs[start : start + CHUNK_PAIRS], views), start=start):
            if found is None:
                too_long.append(number)
            for place, seen in enumerate(found or [[]] * len(views)):
                lines[place].append(pharaoh(seen))
                if gold is not None:
                    agreements[place].add(seen, gold[number])
        tell(len(lines[0]))
    if gold is None:
        return Alignment(views[0], lines[0], too_long, None)
    best = min(range(len(views)), key=lambda place: agreements[place].aer)
    return Alignment(views[best], lines[best], too_long, agreements[best])
