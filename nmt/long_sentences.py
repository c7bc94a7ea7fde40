"""Sentences of more tokens than a model can take, in parts."""

from __future__ import annotations

from collections.abc import Sequence

from nmt.data.tokenizer import Tokenizer

_SENTENCE_END = frozenset(".!?。！？…")


def split_long(ids: Sequence[int], tokenizer: Tokenizer, most: int) -> list[list[int]]:
    """Cut a sentence of more than `most` tokens into parts that fit.

    Each cut is in the second half of what fits: after the last sentence end there is, else before
    the last word, else anywhere. The parts together are the sentence.
    """
    parts = []
    rest = list(ids)
    while len(rest) > most:
        pieces = tokenizer.pieces(rest[: most + 1])
        # A cut at i begins the next part with token i.
        places = range(most, most // 2, -1)
        begins_word = [i for i in places if pieces[i].startswith("\u2581") or tokenizer.word_level]
        after_end = [i for i in begins_word if pieces[i - 1][-1:] in _SENTENCE_END]
        place = next(iter(after_end or begins_word), most)
        parts.append(rest[:place])
        rest = rest[place:]
    return [*parts, rest]
