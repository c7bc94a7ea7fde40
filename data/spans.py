"""Words of a line, and which tokens spell them.

Spans are positions in the line's bytes, the end exclusive: byte pieces hold parts of characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.data.tokenizer import SPACE, Tokenizer

Span = tuple[int, int]

SEGMENTATIONS = ("blank", "punctuation")
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


def split_words(line: str, words: str = "blank") -> list[str]:
    """The words that alignments count.

    Args:
        words: "blank": what blanks (U+0020) part; "punctuation": as in the offline corpus, whose
            gold alignment counts punctuation marks too.
    """
    if words == "blank":
        return [word for word in line.split(" ") if word]
    from nmt.data.synthetic import tokenize  # a grammar comes with it, too slow to load for nothing

    return tokenize(line)


def word_spans(line: str, words: str = "blank") -> list[Span]:
    """Where the words of a line are."""
    spans = []
    character = byte = 0
    for word in split_words(line, words):
        # What is skipped is blank, so the first place the word is found at is where it was read.
        start = line.index(word, character)
        begin = byte + len(line[character:start].encode())
        character, byte = start + len(word), begin + len(word.encode())
        spans.append((begin, byte))
    return spans


def token_spans(line: str, ids: Sequence[int], tokenizer: Tokenizer) -> list[Span]:
    """Where the tokens of a line are; the first may begin at -1, with the blank put before a line."""
    if tokenizer.word_level:
        return word_spans(line)
    pieces = tokenizer.pieces(ids)
    sizes = [
        1 if _BYTE_PIECE.fullmatch(piece) else len(piece.replace(SPACE, " ").encode()) for piece in pieces
    ]
    ends = np.cumsum(sizes) + len(line.encode()) - sum(sizes)
    return [(end - size, end) for end, size in zip(ends.tolist(), sizes, strict=True)]


def shares(tokens: Sequence[Span], words: Sequence[Span]) -> npt.NDArray[np.float32]:
    """How much of each token belongs to each word: (tokens, words), by bytes; rows sum to 1.

    A token without a byte of a word, such as a lone blank, begins the next word. After the last word
    there is none, and the row is 0.
    """
    result = np.zeros((len(tokens), len(words)), dtype=np.float32)
    first = 0
    for row, (begin, end) in zip(result, tokens, strict=True):
        while first < len(words) and words[first][1] <= begin:
            first += 1
        word = first
        while word < len(words) and words[word][0] < end:
            row[word] = min(end, words[word][1]) - max(begin, words[word][0])
            word += 1
        if word > first:
            row /= row.sum()
        elif first < len(words):
            row[first] = 1
    return result


def tokens_of(tokens: Sequence[Span], words: Sequence[Span]) -> list[list[int]]:
    """For each word the tokens that have a share in it by `shares`."""
    found: list[list[int]] = [[] for _ in words]
    first = 0
    for place, (begin, end) in enumerate(tokens):
        while first < len(words) and words[first][1] <= begin:
            first += 1
        word = first
        while word < len(words) and words[word][0] < end:
            found[word].append(place)
            word += 1
        if word == first and first < len(words):
            found[first].append(place)
    return found
