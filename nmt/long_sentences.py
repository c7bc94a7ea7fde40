"""Lines of more tokens than a model can take, or than it has ever seen, in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nmt.data.tokenizer import Tokenizer

_SENTENCE_END = frozenset(".!?。！？…")
_BEGINS_WORD = "\u2581"
# A word that ends a sentence, with what closes after its mark; marks of scripts without blanks.
_ENDS = re.compile(r"[.!?。！？…][\"'”’»)\]」』]*$")
_WITHOUT_BLANK = frozenset("。！？")
_CLOSING = tuple("\"'”’»)]」』")
_ABBREVIATIONS = frozenset(
    [
        *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "fig"),
        *("hr", "fr", "nr", "bzw", "ca", "evtl", "ggf", "usw", "vgl"),
        *("mme", "mlle", "art"),
    ]
)


def split_long(
    ids: Sequence[int], tokenizer: Tokenizer, most: int, longest_seen: int | None = None
) -> list[list[int]]:
    """Cut a line into parts of at most `most` tokens that a model can be trusted with.

    A line of more tokens than the longest that training has seen is cut at every end of a sentence: a model
    that was trained on sentences translates the first of several and forgets the others. What is then still
    longer than `most` is cut in the second half of what fits: after the last sentence end there is, else
    before the last word, else anywhere. The parts together are the line.

    Args:
        longest_seen: tokens of the longest source line of training, where that is known.
    """
    if longest_seen is None or len(ids) <= longest_seen:
        return list(_fitting(ids, tokenizer, most))
    return [part for sentence in _sentences(ids, tokenizer) for part in _fitting(sentence, tokenizer, most)]


def _fitting(ids: Sequence[int], tokenizer: Tokenizer, most: int) -> Iterator[list[int]]:
    rest = list(ids)
    while len(rest) > most:
        pieces = tokenizer.pieces(rest[: most + 1])
        # A cut at i begins the next part with token i.
        places = range(most, most // 2, -1)
        begins_word = [i for i in places if pieces[i].startswith(_BEGINS_WORD) or tokenizer.word_level]
        after_end = [i for i in begins_word if pieces[i - 1][-1:] in _SENTENCE_END]
        place = next(iter(after_end or begins_word), most)
        yield rest[:place]
        rest = rest[place:]
    yield rest


def _sentences(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[list[int]]:
    pieces = tokenizer.pieces(ids)
    while pieces and not tokenizer.word_level and not pieces[-1].strip(_BEGINS_WORD):
        pieces.pop()  # blanks at the end go with the last sentence
    first = 0
    word = ""  # so far, from its first letter
    for place, piece in enumerate(pieces):
        begins = tokenizer.word_level or piece.startswith(_BEGINS_WORD)
        if word and (
            (begins and _ends_sentence(word, piece.lstrip(_BEGINS_WORD)))
            or (word[-1] in _WITHOUT_BLANK and not piece.lstrip(_BEGINS_WORD).startswith(_CLOSING))
        ):
            yield list(ids[first:place])
            first = place
            word = ""
        word = piece.lstrip(_BEGINS_WORD) if begins else word + piece
    yield list(ids[first:])


def _ends_sentence(word: str, following: str) -> bool:
    """Whether a word with its marks ends a sentence, by what it is and how the next one begins."""
    if not _ENDS.search(word):
        return False
    if "." not in word:
        return True
    core = word.strip(".\"'”’»)]」』(«„“").lower()
    is_short = core in _ABBREVIATIONS or (len(core) == 1 and core.isalpha())
    is_ordinal = core.isdigit() and len(core) <= 2  # "am 3. Mai"
    return not (is_short or is_ordinal or "." in core.rstrip(".") or following[:1].islower())
