"""Text that a translation must hold, must not hold, or begins with, as automata that read tokens.

A phrase is found in the text, not in one segmentation of it: every way to spell it in tokens counts.

V vocabulary, S states, L bytes of the longest token.
"""

from __future__ import annotations

import unicodedata
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.data.tokenizer import SPACE, SPECIAL_IDS, UNK, Tokenizer

Array = npt.NDArray[Any]

UNREACHABLE = 1 << 20  # tokens; what cannot be spelled at all
_OPEN, _BREAK = 0, 1  # states of a `Pattern` that has read none of the phrase: within a word, at its edge
# Scripts whose words are not parted by blanks: Thai, Lao, Burmese, Khmer, Chinese, Japanese; Korean has
# blanks, but particles follow a word without one.
_UNBROKEN = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x9FFF), (0xAC00, 0xD7AF)),
    *((0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
# Of a byte, whether it is part of a word. Bytes of longer characters count as such: see `Surfaces.broken`.
_IS_WORD = np.array([byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") for byte in range(256)])


class Surfaces:
    """What each token adds to a text, in bytes. A blank before the whole text does not count."""

    def __init__(self, surfaces: list[bytes], usable_V: Array, blanks: frozenset[int] = frozenset()):
        """`usable_V`: tokens that search may take; `blanks`: tokens that are blanks even at the beginning."""
        self.surfaces, self.usable_V, self.blanks = surfaces, usable_V, blanks
        self.length_V, self.bytes_VL = _matrix(surfaces)
        self.pattern = lru_cache(maxsize=128)(
            self._pattern
        )  # tables are large, and most lines have their own

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Surfaces:
        """Of a tokenizer's vocabulary."""
        if tokenizer.word_level:
            surfaces = [" " + tokenizer.decode([i]) for i in range(len(tokenizer))]
        else:
            surfaces = [piece.replace(SPACE, " ") for piece in tokenizer.pieces(range(len(tokenizer)))]
        # What breaks a line is written as a blank: `nmt.translator`.
        found = [surface.replace("\r", " ").replace("\n", " ").encode() for surface in surfaces]
        blanks = set()
        for byte in range(256) if tokenizer.byte_fallback else ():
            token = tokenizer.id_of(f"<0x{byte:02X}>")
            found[token] = b" " if byte in b"\r\n" else bytes([byte])
            if found[token] == b" ":
                blanks.add(token)
        usable_V = np.ones(len(found), dtype=bool)
        for token in SPECIAL_IDS:
            if token != UNK or not tokenizer.word_level:
                usable_V[token], found[token] = False, b""
        return cls(found, usable_V, frozenset(blanks))

    @cached_property
    def broken(self) -> tuple[Array, Array]:
        """Lengths and bytes where a longer character that is no part of a word, a dash say, is a line end."""
        return _matrix([_break_words(surface) for surface in self.surfaces])

    def _pattern(self, phrase: str, whole_words: bool) -> Pattern:
        return Pattern(phrase, self, whole_words=whole_words)


class Pattern:
    """A phrase that may stand anywhere in a text: an automaton after Knuth, Morris and Pratt (1977).

    Its states: 0 and 1, nothing of the phrase was read last (within a word, or not); 1 + k, its first k
    bytes were; `whole`, all of it, and if the text goes on within the word, it was not the phrase; `done`,
    for good.
    """

    def __init__(self, phrase: str, surfaces: Surfaces, *, whole_words: bool):
        """With `whole_words` a word's part does not count as the phrase, unless the script has no blanks."""
        if not phrase:
            raise ValueError("an empty phrase is everywhere")
        self.phrase = phrase
        text = phrase.encode()
        begins, ends = (whole_words and _is_spaced(phrase[place]) for place in (0, -1))
        length_V, bytes_VL = (surfaces.length_V, surfaces.bytes_VL)
        if whole_words and _break_words(text) == text:
            length_V, bytes_VL = surfaces.broken
        self.begin = _BREAK
        self.whole, self.done = len(text) + 1, len(text) + 2
        delta_SC = _transitions(text, begins, ends)
        self.next_SV = _read(delta_SC, length_V, bytes_VL)
        # Those that begin with no part of a word whichever way one looks at longer characters.
        breaks_V = (surfaces.length_V > 0) & ~_IS_WORD[surfaces.bytes_VL[:, 0]]
        self._measure(surfaces.usable_V)
        self.open_S = self._one_more(surfaces.usable_V & breaks_V)
        self.open_S[self.whole :] = 0
        self.is_word = ends  # at its end: a next token may show that it was part of a longer one
        self.most = int(self.distance_S[_OPEN])  # tokens, from wherever one is
        self.most_after_word = max(self.most, int(self.open_S.max()))  # where the first is to end a word

    def _one_more(self, usable_V: Array) -> Array:
        """Tokens to the whole phrase from each state, the first of them one of these."""
        after_SV = np.where(usable_V, self.distance_S[self.next_SV], UNREACHABLE)
        distance_S: Array = np.minimum(after_SV.min(axis=1) + 1, UNREACHABLE)
        return distance_S

    def _measure(self, usable_V: Array) -> None:
        """Set `distance_S`: tokens to the whole phrase from each state, by whatever way is shortest."""
        self.distance_S: Array = np.full(self.done + 1, UNREACHABLE, dtype=np.int32)
        self.distance_S[self.whole :] = 0
        while True:
            shorter_S: Array = np.minimum(self.distance_S, self._one_more(usable_V))
            if (shorter_S == self.distance_S).all():
                return
            self.distance_S = shorter_S


class Beginning:
    """A text that translations begin with. States are tokens and then bytes that were read, `done` for good.

    The tokenizer's tokens are forced, but those of the last word: that may be spelled in any way and may go
    on, unless a blank ends it.
    """

    def __init__(self, forced: list[int], rest: bytes, surfaces: Surfaces):
        """Tokens, and then bytes that any tokens may spell, with the blank before them."""
        self.forced, self.rest = forced, rest
        cut = len(forced)
        self.done = cut + len(self.rest)
        self.surfaces = surfaces
        usable_V = surfaces.usable_V.copy()
        usable_V[list(surfaces.blanks)] = False
        self.next_SV = np.array([self._after(place, usable_V) for place in range(len(self.rest))])
        # A blank asks for nothing: the text may end there.
        self.blank_from = cut + len(self.rest.rstrip(b" ")) if self.rest else self.done
        distance = [0] * (len(self.rest) + 1)
        for place in reversed(range(len(self.rest))):
            next_V = self.next_SV[place]
            reached = next_V[next_V > place]
            distance[place] = min(
                (distance[after] + 1 for after in set(reached.tolist())), default=UNREACHABLE
            )
            if cut + place >= self.blank_from:
                distance[place] = 0
        self.distance_S = np.array([cut - place for place in range(cut)], dtype=np.int32) + distance[0]
        self.distance_S = np.concatenate((self.distance_S, np.array(distance, dtype=np.int32)))

    @classmethod
    def of(cls, prefix: str, tokenizer: Tokenizer, surfaces: Surfaces) -> Beginning:
        """Of a text that is not blank."""
        ids = tokenizer.encode(prefix)
        if tokenizer.word_level:  # which knows no blanks, nor words outside the vocabulary
            closed = prefix.endswith(" ")
            return cls(ids, b"", surfaces) if closed else cls(ids[:-1], _last_word(prefix), surfaces)
        parts = [surfaces.surfaces[token] for token in ids]
        cut = max((place for place, part in enumerate(parts) if part.startswith(b" ")), default=0)
        return cls(ids[:cut], b"".join(parts[cut:]), surfaces)

    def _after(self, place: int, usable_V: Array) -> Array:
        """Where each token leads from byte `place` of the rest; -1: it does not fit."""
        rest = np.frombuffer(self.rest[place:], dtype=np.uint8)
        width = min(self.surfaces.bytes_VL.shape[1], len(rest))
        compared_VL = self.surfaces.bytes_VL[:, :width] == rest[:width]
        beyond_VL = np.arange(width) >= self.surfaces.length_V[:, None]
        fits_V = (compared_VL | beyond_VL).all(axis=1) & usable_V & (self.surfaces.length_V > 0)
        return np.where(fits_V, np.minimum(place + self.surfaces.length_V, len(self.rest)), -1)

    def next(self, state: int) -> Array:
        """The states after each token, -1 where it does not fit."""
        cut = len(self.forced)
        if state >= cut:
            next_V: Array = self.next_SV[state - cut]
            return np.where(next_V >= 0, next_V + cut, -1)
        next_V = np.full(len(self.surfaces.surfaces), -1)
        next_V[self.forced[state]] = state + 1
        return next_V


def _last_word(text: str) -> bytes:
    return f" {text.rpartition(' ')[2]}".encode()


def _matrix(surfaces: list[bytes]) -> tuple[Array, Array]:
    """Lengths (V,) and bytes (V, L), zeros behind."""
    longest = max(map(len, surfaces), default=0)
    padded = b"".join(surface.ljust(longest, b"\0") for surface in surfaces)
    lengths = np.array([len(surface) for surface in surfaces], dtype=np.int32)
    return lengths, np.frombuffer(padded, dtype=np.uint8).reshape(len(surfaces), longest)


def _read(delta_SC: Array, length_V: Array, bytes_VL: Array) -> Array:
    """The state after each token (S, V), from that after each byte (S, 256)."""
    state_SV = np.tile(np.arange(len(delta_SC), dtype=np.int16)[:, None], (1, len(length_V)))
    for place in range(bytes_VL.shape[1]):
        (longer_N,) = (length_V > place).nonzero()
        state_SV[:, longer_N] = delta_SC[state_SV[:, longer_N], bytes_VL[longer_N, place]]
    return state_SV


def _transitions(text: bytes, begins: bool, ends: bool) -> Array:
    """The state after each byte, (S, 256); `begins`, `ends`: there the phrase is at the edge of a word."""
    size = len(text)
    edge_C = np.where(_IS_WORD, _OPEN if begins else _BREAK, _BREAK)
    delta_SC = np.tile(edge_C.astype(np.int16), (size + 3, 1))
    counts_of = {byte: [n for n in range(size, 0, -1) if text[n - 1] == byte] for byte in set(text)}
    for state in range(size + 2):
        before = text[: max(state - 1, 0)]
        for byte, counts in counts_of.items():
            read = before + bytes([byte])
            for count in counts:
                if not read.endswith(text[:count]):
                    continue
                if count < len(read):
                    at_edge = not _IS_WORD[read[-count - 1]]
                else:
                    at_edge = state != _OPEN
                if at_edge or not begins:
                    delta_SC[state, byte] = 1 + count
                    break
    delta_SC[size + 1, ~_IS_WORD] = size + 2
    delta_SC[size + 2] = size + 2
    if not ends:
        delta_SC[delta_SC == size + 1] = size + 2
    return delta_SC


def _is_spaced(character: str) -> bool:
    """Whether it is of a word that blanks or punctuation part from the next."""
    code = ord(character)
    return (character.isalnum() or character == "_") and not any(a <= code <= b for a, b in _UNBROKEN)


def _break_words(surface: bytes) -> bytes:
    """With longer characters that are no part of a word replaced by a line end, which no text holds."""
    try:
        text = surface.decode()
    except UnicodeDecodeError:
        return surface
    if text.isascii():
        return surface
    broken = (c if c.isascii() or unicodedata.category(c)[0] in "LMN" else "\n" for c in text)
    return "".join(broken).encode()
