"""What a sentence of the offline corpus says, before it is written in either language.

By whom, to whom, in which tense: `synthetic_sampling` draws it and `synthetic_grammar` writes it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nmt.data import synthetic_lexicon as lexicon
from nmt.data.synthetic_lexicon import Adjective, Case, Noun, Preposition
from nmt.data.synthetic_lexicon_verbs import Modal, Verb


@dataclass(frozen=True)
class Pronoun:
    en: str


@dataclass(frozen=True)
class Name:
    """A first name, a city, or a surname after Mr or Mrs."""

    en: str
    de: str
    title: Literal["", "Mr", "Mrs"] = ""


@dataclass(frozen=True)
class Relative:
    """A relative clause; its noun is the clause's subject or accusative object."""

    clause: Clause
    gap: Literal["subject", "object"]


@dataclass(frozen=True)
class NounPhrase:
    """`determiner`: the, this, every, a, no, bare (none), count, owner, or a possessive ("my").

    `value` is the count in both languages, or the owner's name twice.
    """

    noun: Noun
    determiner: str = "the"
    plural: bool = False
    adjective: Adjective | None = None
    value: tuple[str, str] = ("", "")
    relative: Relative | None = None


@dataclass(frozen=True)
class Couple:
    first: Nominal
    second: Nominal


@dataclass(frozen=True)
class Gap:
    """The subject that the relative pronoun stands for."""

    plural: bool


@dataclass(frozen=True)
class Expletive:
    """The subject of "there is", "es gibt"; the English verb agrees with the object."""


Nominal = Pronoun | Name | NounPhrase | Couple
Subject = Nominal | Gap | Expletive


@dataclass(frozen=True)
class Fixed:
    """An adverb, adjective or time in both languages, in the notation of `aligned`."""

    en: str
    de: str


@dataclass(frozen=True)
class Prepositional:
    preposition: Preposition
    nominal: Nominal


Adjunct = Fixed | Prepositional
Tense = Literal["present", "past", "modal"]


@dataclass(frozen=True)
class Clause:
    """A clause. `objects` are in English order; `complement` is a place, a goal or an adjective."""

    subject: Subject
    verb: Verb
    tense: Tense = "present"
    modal: Modal | None = None
    negated: bool = False
    objects: tuple[Nominal, ...] = ()
    complement: Adjunct | None = None
    frequency: Fixed | None = None
    time: Adjunct | None = None
    company: Adjunct | None = None
    place: Adjunct | None = None
    front: Literal["", "time", "place"] = ""


@dataclass(frozen=True)
class Conjunction:
    en: str
    de: str
    subordinate: bool = True


@dataclass(frozen=True)
class Sentence:
    """A main clause, perhaps with a second one; `reverse` puts the subordinate clause first."""

    main: Clause
    conjunction: Conjunction | None = None
    second: Clause | None = None
    reverse: bool = False
    question: bool = False
    question_word: Fixed | None = None


def agreement_of(subject: Subject) -> str:
    """Person and number, "1s" to "3p", which both languages share."""
    match subject:
        case Pronoun():
            return lexicon.PRONOUNS[subject.en][-1]
        case Couple():
            return "3p"
        case NounPhrase() | Gap():
            return "3p" if subject.plural else "3s"
    return "3s"


def is_definite(nominal: Nominal) -> bool:
    """Whether it is known who or what is meant; German puts that before the rest."""
    return not isinstance(nominal, NounPhrase) or nominal.determiner not in ("a", "no", "bare", "count")


def object_cases(clause: Clause) -> tuple[Case, ...]:
    """The cases of `clause.objects`."""
    if clause.verb.prep:
        return (clause.verb.prep.case,)
    table: dict[str, tuple[Case, ...]] = {"D": ("dative",), "DA": ("dative", "accusative")}
    return table.get(clause.verb.frame, ("accusative",))[: len(clause.objects)]
