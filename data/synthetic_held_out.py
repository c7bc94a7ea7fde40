"""The combinations that the compositional test alone may use; `nmt.data.synthetic` says what they are for."""

from __future__ import annotations

from collections.abc import Iterator

from nmt.data.synthetic_derivation import (
    Clause,
    Couple,
    NounPhrase,
    Prepositional,
    Sentence,
    Subject,
    object_cases,
)
from nmt.data.synthetic_lexicon import Case


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


HELD_OUT_VERB_FINAL = _set("abholen zumachen aufwachen aufschreiben mitbringen anrufen")
HELD_OUT_DATIVE = _set("Lehrer Kind Schwester Nachbar Katze Onkel Garten Kirche Bahnhof Dorf")
HELD_OUT_MODAL = {
    "can": _set("helfen kaufen aufstehen essen warten finden"),
    "must": _set("schreiben besuchen aufräumen fahren danken singen"),
    "should": _set("schlafen verkaufen einladen trinken gehen zeigen"),
    "will": _set("arbeiten treffen ankommen tanzen geben suchen"),
    "want to": _set("sehen reparieren ausgehen antworten schicken reisen"),
    "be allowed to": _set("spielen kochen fernsehen bringen bleiben tragen"),
}
# An adjective before a singular noun of this gender.
HELD_OUT_ADJECTIVE = {
    "m": _set("new red long"),
    "f": _set("old big friendly good"),
    "n": _set("small young beautiful"),
}
FAMILIES = ("verb-final", "modal", "dative", "adjective", "negated-past", "fronted-modal")


def _noun_phrases(clause: Clause) -> Iterator[tuple[NounPhrase, Case]]:
    """Every noun phrase of a clause (not of its relative clauses) and its case."""

    def parts(nominal: Subject, case: Case) -> Iterator[tuple[NounPhrase, Case]]:
        if isinstance(nominal, NounPhrase):
            yield nominal, case
        elif isinstance(nominal, Couple):
            yield from parts(nominal.first, case)
            yield from parts(nominal.second, case)

    yield from parts(clause.subject, "nominative")
    for nominal, case in zip(clause.objects, object_cases(clause), strict=True):
        yield from parts(nominal, case)
    for adjunct in (clause.complement, clause.company, clause.place):
        if isinstance(adjunct, Prepositional):
            yield from parts(adjunct.nominal, adjunct.preposition.case)


def _reserved_in_clause(clause: Clause, verb_final: bool) -> Iterator[str]:
    verb, modal = clause.verb, clause.modal
    if verb_final and clause.tense == "present" and verb.infinitive in HELD_OUT_VERB_FINAL:
        yield "verb-final"
    if verb_final and clause.tense == "past" and clause.negated:
        yield "negated-past"
    if modal and verb.infinitive in HELD_OUT_MODAL[modal.en]:
        yield "modal"
    if modal and clause.front == "place":
        yield "fronted-modal"
    for phrase, case in _noun_phrases(clause):
        if case == "dative" and phrase.noun.de in HELD_OUT_DATIVE:
            yield "dative"
        adjective = phrase.adjective
        if adjective and not phrase.plural and adjective.en in HELD_OUT_ADJECTIVE[phrase.noun.gender]:
            yield "adjective"
        if phrase.relative:
            yield from _reserved_in_clause(phrase.relative.clause, verb_final=True)


def reserved_combinations(sentence: Sentence) -> frozenset[str]:
    """The families of held-out combinations (`FAMILIES`) that a derivation uses."""
    found = set(_reserved_in_clause(sentence.main, verb_final=False))
    if sentence.second and sentence.conjunction:
        found |= set(_reserved_in_clause(sentence.second, sentence.conjunction.subordinate))
    return frozenset(found)
