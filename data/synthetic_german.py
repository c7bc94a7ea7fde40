"""German forms for the offline corpus: articles, adjectives, nouns, contractions and verbs."""

from __future__ import annotations

from typing import NamedTuple

from nmt.data import synthetic_lexicon as lexicon
from nmt.data.synthetic_derivation import Clause, NounPhrase, agreement_of
from nmt.data.synthetic_lexicon import Case
from nmt.data.synthetic_lexicon_verbs import Verb
from nmt.data.synthetic_words import Words, linked

# Each table has the endings for masculine, feminine, neuter and plural.
_COLUMNS = {"m": 0, "f": 1, "n": 2, "plural": 3}
_DEFINITE: dict[Case, tuple[str, ...]] = {
    "nominative": ("der", "die", "das", "die"),
    "accusative": ("den", "die", "das", "die"),
    "dative": ("dem", "der", "dem", "den"),
}
# dieser, jeder; and adjectives that no article precedes, or one without endings.
_STRONG: dict[Case, tuple[str, ...]] = {
    "nominative": ("er", "e", "es", "e"),
    "accusative": ("en", "e", "es", "e"),
    "dative": ("em", "er", "em", "en"),
}
# ein, kein, mein.
_INDEFINITE: dict[Case, tuple[str, ...]] = {
    "nominative": ("", "e", "", "e"),
    "accusative": ("en", "e", "", "e"),
    "dative": ("em", "er", "em", "en"),
}
# Adjectives after der, dieser, jeder ...
_WEAK: dict[Case, tuple[str, ...]] = {
    "nominative": ("e", "e", "e", "en"),
    "accusative": ("en", "e", "e", "en"),
    "dative": ("en", "en", "en", "en"),
}
# ... and after ein, kein, mein.
_MIXED: dict[Case, tuple[str, ...]] = {
    "nominative": ("er", "e", "es", "en"),
    "accusative": ("en", "e", "es", "en"),
    "dative": ("en", "en", "en", "en"),
}


def _column(phrase: NounPhrase) -> int:
    return _COLUMNS["plural" if phrase.plural else phrase.noun.gender]


def german_article(phrase: NounPhrase, case: Case, negated: bool) -> str:
    column = _column(phrase)
    if phrase.determiner == "the":
        return _DEFINITE[case][column]
    if phrase.determiner in ("this", "every"):
        return ("dies" if phrase.determiner == "this" else "jed") + _STRONG[case][column]
    if negated or phrase.determiner == "no":
        return "kein" + _INDEFINITE[case][column]
    if phrase.determiner == "a":
        return "ein" + _INDEFINITE[case][column]
    if phrase.determiner == "owner":
        return phrase.value[1] + "s"
    if phrase.determiner in ("bare", "count"):
        return phrase.value[1]
    return lexicon.POSSESSIVES[phrase.determiner] + _INDEFINITE[case][column]


def german_adjective(phrase: NounPhrase, case: Case, negated: bool) -> str:
    assert phrase.adjective is not None
    if phrase.determiner in ("the", "this", "every"):
        endings = _WEAK
    elif phrase.determiner in ("bare", "count", "owner") and not negated:
        endings = _STRONG
    else:
        endings = _MIXED
    return phrase.adjective.stem + endings[case][_column(phrase)]


def german_noun(phrase: NounPhrase, case: Case) -> str:
    noun = phrase.noun
    if not phrase.plural:
        return noun.de if case == "nominative" else noun.oblique
    ends_ready = noun.de_plural.endswith(("n", "s"))
    return noun.de_plural if case != "dative" or ends_ready else noun.de_plural + "n"


def german_relative_pronoun(phrase: NounPhrase, case: Case) -> str:
    """der, die, das, den: `case` is the pronoun's in its own clause."""
    return _DEFINITE[case][_column(phrase)]


CONTRACTIONS = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("von", "dem"): "vom",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}

_FORMS = {"1s": 0, "2s": 1, "3s": 2, "1p": 3, "3p": 3}
_IRREGULAR = {
    "sein": ("bin", "bist", "ist", "sind"),
    "haben": ("habe", "hast", "hat", "haben"),
    "wissen": ("weiß", "weißt", "weiß", "wissen"),
    "mögen": ("mag", "magst", "mag", "mögen"),
}


def _german_present(verb: Verb, agreement: str) -> str:
    """The finite stem: "ruft" of anrufen. The du form is made from the er form."""
    stem, third = verb.stem_infinitive, verb.third
    base = third.removesuffix("t")
    second = base + ("t" if base.endswith(("s", "ß", "z")) else "st")
    forms = _IRREGULAR.get(stem, (stem.removesuffix("en") + "e", second, third, stem))
    return forms[_FORMS[agreement]]


def _german_preterite(form: str, agreement: str) -> str:
    plural = form + ("n" if form.endswith("e") else "en")
    return (form, form + "st", form, plural)[_FORMS[agreement]]


class GermanVerb(NamedTuple):
    """The finite verb, what of it ends a main clause, and what ends a verb-final clause."""

    finite: Words
    tail: Words
    final: Words


def german_verb(clause: Clause, main: object, auxiliary: object) -> GermanVerb:
    verb, agreement = clause.verb, agreement_of(clause.subject)
    if clause.modal:
        finite = linked(clause.modal.forms[_FORMS[agreement]], auxiliary)
        infinitive = linked(verb.infinitive, main)
        return GermanVerb(finite, infinitive, infinitive + finite)
    if clause.tense == "past" and not verb.preterite:
        finite = linked(_IRREGULAR[verb.aux][_FORMS[agreement]], auxiliary)
        participle = linked(verb.participle, main)
        return GermanVerb(finite, participle, participle + finite)
    past = clause.tense == "past"
    form = _german_preterite(verb.preterite, agreement) if past else _german_present(verb, agreement)
    glued = linked(verb.prefix + form, main, auxiliary)
    return GermanVerb(linked(form, main, auxiliary), linked(verb.prefix, main, auxiliary), glued)
