"""Words of the offline corpus with the links that align them, and the sentence pair made of them.

Two words are aligned if they share a link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Pair:
    """A sentence pair, its gold alignment, and the families of held-out combinations it uses."""

    source: str
    target: str
    alignment: tuple[tuple[int, int], ...]
    reserved: frozenset[str] = frozenset()

    @property
    def held_out(self) -> bool:
        """Whether it uses a combination reserved for the compositional test."""
        return bool(self.reserved)


class Word(NamedTuple):
    text: str
    links: frozenset[object] = frozenset()


Words = list[Word]


class Phrase(NamedTuple):
    en: Words
    de: Words


def linked(text: str, *links: object) -> Words:
    """The words of a text, all with the same links."""
    return [Word(word, frozenset(links)) for word in text.split()]


def aligned(en: str, de: str) -> Phrase:
    """Words with the same number after a slash are linked; if none has one, words in order."""
    links: dict[str, object] = {}

    def words(side: str) -> Words:
        made: Words = []
        for position, unit in enumerate(side.split()):
            text, slash, number = unit.partition("/")
            key = number if slash else str(position)
            made += linked(text, links.setdefault(key, object())) if slash or not marked else [Word(text)]
        return made

    marked = "/" in en
    return Phrase(words(en), words(de))


def joined(*phrases: Phrase) -> Phrase:
    return Phrase([w for phrase in phrases for w in phrase.en], [w for phrase in phrases for w in phrase.de])
