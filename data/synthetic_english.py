"""English forms for the offline corpus: determiners and verbs."""

from __future__ import annotations

from typing import NamedTuple

from nmt.data.synthetic_derivation import Clause, Expletive, NounPhrase, agreement_of
from nmt.data.synthetic_words import Word, Words, linked


def english_determiner(phrase: NounPhrase, following: str) -> str:
    if phrase.determiner == "a":
        return "an" if following[0] in "aeiou" else "a"
    if phrase.determiner == "this":
        return "these" if phrase.plural else "this"
    if phrase.determiner == "owner":
        return f"{phrase.value[0]} 's"
    return phrase.value[0] if phrase.determiner in ("bare", "count") else phrase.determiner


def _english_agreement(clause: Clause) -> str:
    subject = clause.objects[0] if isinstance(clause.subject, Expletive) else clause.subject
    return agreement_of(subject)


def _english_third(base: str) -> str:
    if base == "have":
        return "has"
    if base.endswith(("s", "x", "ch", "sh", "o")):
        return base + "es"
    return base[:-1] + "ies" if base.endswith("y") and base[-2] not in "aeou" else base + "s"


def _english_be(past: bool, agreement: str) -> str:
    present_form, past_form = {"1s": ("am", "was"), "3s": ("is", "was")}.get(agreement, ("are", "were"))
    return past_form if past else present_form


class EnglishVerb(NamedTuple):
    """The auxiliary (which a question puts first), the rest, and a particle that may follow an object."""

    auxiliary: Words
    rest: Words
    particle: Words


def english_verb(
    clause: Clause, question: bool, main: object, auxiliary: object, negation: object
) -> EnglishVerb:
    agreement = _english_agreement(clause)
    head, *others = clause.verb.en.split()
    rest = [word for word in others if not word.startswith("+")]
    particle = [Word(word[1:], frozenset({main})) for word in others if word.startswith("+")]
    past, third = clause.tense == "past", agreement == "3s"
    finite_links: tuple[object, ...] = (main, auxiliary)
    prior: Words = []
    if clause.modal:
        modal, *to = clause.modal.en.split()
        infinitive = linked(" ".join([head, *rest]), main)
        if modal == "can" and clause.negated:
            return EnglishVerb(linked("cannot", auxiliary, negation), infinitive, particle)
        if modal not in ("be", "want"):
            return EnglishVerb(linked(modal, auxiliary), infinitive, particle)
        head, rest, finite_links, prior = modal, to, (auxiliary,), infinitive
    if head == "be":
        be = linked(_english_be(past, agreement), *finite_links)
        return EnglishVerb(be, linked(" ".join(rest), *finite_links) + prior, particle)
    if question or clause.negated:
        support = linked("did", auxiliary) if past else linked("does" if third else "do", *finite_links)
        links = (main,) if past else finite_links
        return EnglishVerb(support, linked(" ".join([head, *rest]), *links) + prior, particle)
    form = clause.verb.en_past if past else _english_third(head) if third else head
    return EnglishVerb([], linked(" ".join([form, *rest]), *finite_links) + prior, particle)
