"""Encoding word by word: what SentencePiece gives, several times as fast.

A piece never reaches across a blank, and BPE merges the best pair wherever it stands: so the pieces of a line
are those of its words, and words come again. (Of the unigram model, which adds up probabilities along the
line, rounding could tell the two apart.)
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from nmt.data.tokenizer import SPACE, Tokenizer

_MOST_WORDS = 1 << 17  # remembered at a time, about
_LONGEST_WORD = 64  # characters; longer ones, such as lines of scripts without blanks, hardly come again
_TOGETHER = 64
_TYPES = {"uint16": "H", "uint32": "I"}


class LineEncoder:
    """Lines to ids in bytes, as token files hold them."""

    def __init__(self, tokenizer: Tokenizer, dtype: str, *, by_words: bool):
        """
        Args:
            dtype: of an id, "uint16" or "uint32".
            by_words: for BPE, where it changes nothing but the time taken.
        """
        self._tokenizer = tokenizer
        self._type = _TYPES[dtype]
        pieces = tokenizer.pieces(range(len(tokenizer)))
        across = any(SPACE in piece[1:] for piece in pieces)
        self._begins = [piece.startswith(SPACE) for piece in pieces]  # a word
        self._by_words = by_words and not across
        self._known: dict[str, bytes] = {}
        self._forget()

    def encode_all(self, lines: Sequence[str]) -> list[bytes]:
        """As `Tokenizer.encode_all`, each line in bytes."""
        if not self._by_words:
            return [self._bytes(ids) for ids in self._tokenizer.encode_all(lines, threads=1)]
        known = self._known
        look_up = known.__getitem__
        encoded: list[bytes] = []
        others: list[tuple[int, list[str]]] = []  # lines with words that are not known
        for index, line in enumerate(lines):
            words = line.split(" ")
            try:
                ids = b"".join(map(look_up, words)) if line else b""
            except KeyError:
                ids = b""
                if SPACE in line:
                    ids = self._bytes(self._tokenizer.encode(line))
                else:
                    others.append((index, words))
            encoded.append(ids)
        new = list({word for _, words in others for word in words if word not in known})
        known.update(zip(new, map(self._bytes, self._encode_words(new)), strict=True))
        for index, words in others:
            encoded[index] = b"".join(map(look_up, words))
        for word in new:
            if len(word) > _LONGEST_WORD:
                del known[word]
        if len(known) > _MOST_WORDS:
            self._forget()  # what comes often is soon learnt again
        return encoded

    def _forget(self) -> None:
        self._known.clear()
        # The word between two neighbouring blanks. A line of one blank is two marks that begin a word.
        marks = self._tokenizer.encode(" ")
        self._known[""] = self._bytes(marks[: len(marks) // 2])

    def _encode_words(self, words: Sequence[str]) -> Iterator[list[int]]:
        """The ids of each word, from lines of many words: a call of SentencePiece costs more than a word."""
        groups = [words[first : first + _TOGETHER] for first in range(0, len(words), _TOGETHER)]
        lines = self._tokenizer.encode_all([" ".join(group) for group in groups], threads=1)
        for group, ids in zip(groups, lines, strict=True):
            starts = [place for place, token_id in enumerate(ids) if self._begins[token_id]]
            if len(starts) == len(group):
                yield from (ids[a:b] for a, b in pairwise([*starts, len(ids)]))
            else:
                yield from self._tokenizer.encode_all(group, threads=1)

    def _bytes(self, ids: Iterable[int]) -> bytes:
        return array(self._type, ids).tobytes()
