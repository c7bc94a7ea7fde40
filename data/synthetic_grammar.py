"""Writes a derivation in English and German at once, word by word with the links between them.

Noun phrases first, then clauses and sentences, where the order of words is settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nmt.data import synthetic_lexicon as lexicon
from nmt.data.synthetic_derivation import (
    Adjunct,
    Clause,
    Conjunction,
    Couple,
    Expletive,
    Fixed,
    Gap,
    Name,
    Nominal,
    NounPhrase,
    Prepositional,
    Pronoun,
    Sentence,
    Subject,
    is_definite,
    object_cases,
)
from nmt.data.synthetic_english import english_determiner, english_verb
from nmt.data.synthetic_german import (
    CONTRACTIONS,
    GermanVerb,
    german_adjective,
    german_article,
    german_noun,
    german_relative_pronoun,
    german_verb,
)
from nmt.data.synthetic_held_out import reserved_combinations
from nmt.data.synthetic_lexicon import Case, Preposition
from nmt.data.synthetic_words import Pair, Phrase, Word, Words, aligned, joined, linked


def _noun_phrase(phrase: NounPhrase, case: Case, negation: object | None = None) -> Phrase:
    """With a `negation` link the article becomes kein, linked to the English "not" too."""
    en_noun = phrase.noun.en_plural if phrase.plural else phrase.noun.en
    en_adjective = phrase.adjective.en if phrase.adjective else ""
    negated = negation is not None
    article, adjective, noun = object(), object(), object()
    en = linked(english_determiner(phrase, en_adjective or en_noun), article)
    de = linked(german_article(phrase, case, negated), article, *([negation] if negated else []))
    if phrase.adjective:
        en += linked(en_adjective, adjective)
        de += linked(german_adjective(phrase, case, negated), adjective)
    return Phrase(en + linked(en_noun, noun), de + linked(german_noun(phrase, case), noun))


def _nominal(nominal: Nominal, case: Case, negation: object | None = None) -> Phrase:
    match nominal:
        case NounPhrase():
            return _noun_phrase(nominal, case, negation)
        case Name(title=""):
            return aligned(nominal.en, nominal.de)
        case Name():
            herr = "Herr" if case == "nominative" else "Herrn"
            title = herr if nominal.title == "Mr" else "Frau"
            return aligned(f"{nominal.title} {nominal.en}", f"{title} {nominal.de}")
        case Couple():
            parts = (_nominal(nominal.first, case), aligned("and", "und"), _nominal(nominal.second, case))
            return joined(*parts)
        case Pronoun():
            en_object, *german, _ = lexicon.PRONOUNS[nominal.en]
            en = nominal.en if case == "nominative" else en_object
            return aligned(en, german[("nominative", "accusative", "dative").index(case)])


def _prepositional(preposition: Preposition, nominal: Nominal) -> Phrase:
    link = object()
    phrase = _nominal(nominal, preposition.case)
    contracted = CONTRACTIONS.get((preposition.de, phrase.de[0].text))
    if contracted:
        german = [Word(contracted, phrase.de[0].links | {link}), *phrase.de[1:]]
    else:
        german = linked(preposition.de, link) + phrase.de
    return Phrase(linked(preposition.en, link) + phrase.en, german)


def _adjunct(adjunct: Adjunct | None) -> Phrase:
    match adjunct:
        case None:
            return Phrase([], [])
        case Fixed():
            return aligned(adjunct.en, adjunct.de)
        case Prepositional():
            return _prepositional(adjunct.preposition, adjunct.nominal)


# ---------------------------------------------------------------------------------------------
# Clauses and sentences.


class _Parts(NamedTuple):
    """A clause before its order is settled."""

    front: Phrase
    subject: Phrase
    english: Words
    english_question: Words
    german: GermanVerb
    middle: Words
    after: Phrase


def _comma(*links: object) -> Words:
    return linked(",", *links)


def _takes_kein(nominal: Nominal) -> bool:
    return isinstance(nominal, NounPhrase) and nominal.determiner in ("a", "bare")


def _clause(clause: Clause, question: bool = False) -> _Parts:
    main, auxiliary, negation = object(), object(), object()
    english = english_verb(clause, question, main, auxiliary, negation)
    german = german_verb(clause, main, auxiliary)
    kein = next((item for item in clause.objects if clause.negated and _takes_kein(item)), None)

    object_words: Words = []
    pronouns: Words = []
    definite: Words = []
    indefinite: Words = []
    for nominal, case in zip(clause.objects, object_cases(clause), strict=True):
        phrase = _nominal(nominal, case, negation if nominal is kein else None)
        if clause.verb.prep:
            phrase = _prepositional(clause.verb.prep, nominal)
            indefinite += phrase.de
        elif isinstance(nominal, Pronoun):
            pronouns += phrase.de
        else:
            (definite if is_definite(nominal) else indefinite).extend(phrase.de)
        object_words += phrase.en
    movable = len(clause.objects) == 1 and isinstance(clause.objects[0], Pronoun)
    objects_and_particle = object_words + english.particle if movable else english.particle + object_words

    slots = {"time": _adjunct(clause.time), "place": _adjunct(clause.place)}
    front = slots.pop(clause.front, Phrase([], []))
    time, place = slots.get("time", Phrase([], [])), slots.get("place", Phrase([], []))
    frequency, company = _adjunct(clause.frequency), _adjunct(clause.company)
    complement = _adjunct(clause.complement)

    has_not = clause.negated and not (clause.modal and clause.modal.en == "can")
    en_not = linked("not", negation) if has_not else []
    de_not = linked("nicht", negation) if clause.negated and kein is None else []
    ending = objects_and_particle + complement.en + company.en + place.en + time.en
    predicate = en_not + frequency.en + english.rest + ending
    middle = pronouns + definite + time.de + frequency.de + de_not + company.de + place.de + indefinite

    subject = _subject(clause.subject)
    return _Parts(
        front=front,
        subject=subject,
        english=subject.en + english.auxiliary + predicate,
        english_question=english.auxiliary + subject.en + predicate,
        german=german,
        middle=middle + complement.de,
        after=_relatives(clause.objects),
    )


def _subject(subject: Subject) -> Phrase:
    """The subject with its relative clause between commas in German."""
    if isinstance(subject, Gap):
        return Phrase([], [])
    if isinstance(subject, Expletive):
        return aligned("there", "es")
    phrase, relative = _nominal(subject, "nominative"), _relatives([subject])
    closing = _comma() if relative.de else []
    return Phrase(phrase.en + relative.en, phrase.de + relative.de + closing)


def _relatives(nominals: Iterable[Nominal]) -> Phrase:
    """The relative clause of any of these, the German one after a comma: at a clause's end if an object's."""
    for nominal in nominals:
        if isinstance(nominal, NounPhrase) and nominal.relative:
            parts = _clause(nominal.relative.clause)
            case: Case = "nominative" if nominal.relative.gap == "subject" else "accusative"
            person = {"person", "family"} & set(nominal.noun.classes)
            who = aligned("who" if person else "that", german_relative_pronoun(nominal, case))
            german = _comma() + who.de + parts.subject.de + parts.middle + parts.german.final
            return Phrase(who.en + parts.english, german)
    return Phrase([], [])


def _main_clause(sentence: Sentence, subordinate_first: Phrase | None) -> Phrase:
    parts = _clause(sentence.main, sentence.question)
    front = _adjunct(sentence.question_word) if sentence.question_word else parts.front
    if subordinate_first:
        front = subordinate_first
    english = parts.english_question if sentence.question else parts.english
    comma = _comma() if len(front.en) > 1 and not subordinate_first else []
    subject = parts.subject.de
    # Verb second: whatever is fronted, or else the subject, precedes the finite verb. Verb first if neither.
    inverted = bool(front.de) or sentence.question
    opening = front.de + parts.german.finite + subject if inverted else subject + parts.german.finite
    return Phrase(
        front.en + comma + english + parts.after.en,
        opening + parts.middle + parts.german.tail + parts.after.de,
    )


def _second_clause(conjunction: Conjunction, clause: Clause) -> Phrase:
    parts, opener = _clause(clause), aligned(conjunction.en, conjunction.de)
    verb = parts.german
    if conjunction.subordinate:
        german = parts.subject.de + parts.middle + verb.final
    else:
        german = parts.subject.de + verb.finite + parts.middle + verb.tail
    return Phrase(opener.en + parts.english, opener.de + german)


def _line(words: Sequence[Word]) -> str:
    text = ""
    for word in words:
        text += word.text if word.text in (",", ".", "?", "'s") or not text else f" {word.text}"
    return text[0].upper() + text[1:]


def _without_double_commas(words: Words) -> Words:
    """A comma before another comma or the final mark goes."""
    following = [word.text for word in words[1:]] + [""]
    return [
        w for w, after in zip(words, following, strict=True) if w.text != "," or after not in (",", ".", "?")
    ]


def realise(sentence: Sentence) -> Pair:
    """Writes a derivation in both languages."""
    comma, final = object(), object()
    if sentence.conjunction and sentence.second:
        second = _second_clause(sentence.conjunction, sentence.second)
        if sentence.reverse:
            both = Phrase(second.en + _comma(comma), second.de + _comma(comma))
            whole = _main_clause(sentence, both)
        else:
            # German: a comma before every second clause but one with "und"; English: only before "but".
            english = _comma(comma) if sentence.conjunction.en == "but" else []
            german = _comma(comma) if sentence.conjunction.en != "and" else []
            whole = joined(_main_clause(sentence, None), Phrase(english, german), second)
    else:
        whole = _main_clause(sentence, None)
    mark = linked("?" if sentence.question else ".", final)
    en, de = _without_double_commas(whole.en + mark), _without_double_commas(whole.de + mark)
    links = {(i, j) for i, s in enumerate(en) for j, t in enumerate(de) if s.links & t.links}
    return Pair(_line(en), _line(de), tuple(sorted(links)), reserved_combinations(sentence))
