"""Draws what the sentences of the offline corpus say: `Draw.sentence`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import TypeVar

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
    Relative,
    Sentence,
    Subject,
    Tense,
    is_definite,
)
from nmt.data.synthetic_lexicon import Adjective, Noun
from nmt.data.synthetic_lexicon_verbs import MODALS, THERE_IS, TO_BE, VERBS, Modal, Verb

_T = TypeVar("_T")

# Determiners and their weights, by what the phrase is for.
_SUBJECT = ("the",) * 7 + ("a",) * 3 + ("this",) * 2 + ("possessive",) * 4 + ("every", "owner", "count")
_OBJECT = ("the",) * 6 + ("a",) * 6 + ("this",) + ("possessive",) * 4 + ("count",) * 2 + ("owner",)
_NEGATED = ("the",) * 4 + ("a",) * 6 + ("this",) + ("possessive",) * 2
_KNOWN = ("the",) * 6 + ("this",) + ("possessive",) * 3 + ("owner",)
_PLACE = ("the",) * 9 + ("a",) * 2 + ("this",) + ("possessive",)
_EXISTING = ("a",) * 5 + ("count",) * 2 + ("no",) * 2

_BECAUSE, _ALTHOUGH = Conjunction("because", "weil"), Conjunction("although", "obwohl")
_IF, _WHEN = Conjunction("if", "wenn"), Conjunction("when", "als")
_WHILE, _BEFORE = Conjunction("while", "während"), Conjunction("before", "bevor")
_THAT, _WHETHER = Conjunction("that", "dass"), Conjunction("whether", "ob")
_AND, _BUT = Conjunction("and", "und", False), Conjunction("but", "aber", False)


@cache
def _nouns(classes: tuple[str, ...]) -> tuple[Noun, ...]:
    wanted = set(classes)
    return tuple(noun for noun in lexicon.NOUNS if "any" in wanted or wanted & set(noun.classes))


@cache
def _adjectives(noun: Noun) -> tuple[Adjective, ...]:
    return tuple(a for a in lexicon.ADJECTIVES if set(a.classes) & set(noun.classes))


@cache
def _verbs(with_clause: bool) -> tuple[Verb, ...]:
    return tuple(verb for verb in VERBS if (verb.frame == "S") == with_clause)


def _mentions(nominal: Subject) -> set[str]:
    """Who or what a nominal is about, so that nobody sees himself and no dog sees a dog."""
    match nominal:
        case Pronoun():
            return {"I" if nominal.en == "we" else nominal.en}
        case Name():
            return {nominal.en}
        case NounPhrase():
            return {nominal.noun.en, nominal.value[0]} - {""}
        case Couple():
            return _mentions(nominal.first) | _mentions(nominal.second)
    return set()


class Draw:
    """Draws derivations from `random()` alone, whose sequence Python guarantees."""

    def __init__(self, seed: str):
        self._random = Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, items: Sequence[_T]) -> _T:
        return items[int(self._random() * len(items))]

    def sentence(self) -> Sentence:
        kind = self._random()
        if kind < 0.40:
            return self._statement()
        if kind < 0.62:
            return self._with_subordinate()
        if kind < 0.74:
            return self._with_content()
        if kind < 0.82:
            main = self.clause(plain=True)
            conjunction = _AND if self.chance(0.6) else _BUT
            return Sentence(main, conjunction, self.clause(plain=True, without=_mentions(main.subject)))
        return self._question() if kind < 0.95 else self._existence()

    def _statement(self) -> Sentence:
        clause = self._fronted(self.clause())
        if self.chance(0.15) and isinstance(clause.subject, NounPhrase) and clause.subject.noun.en_plural:
            return Sentence(replace(clause, subject=self._described(clause.subject)))
        last = clause.objects[-1] if clause.objects else None
        parted = clause.negated and last is not None and is_definite(last)  # "das Buch nicht, das ..."
        if self.chance(0.3) and not parted and isinstance(last, NounPhrase) and last.noun.en_plural:
            # The German relative clause moves to the end, so nothing may follow the English one.
            clause = replace(
                clause, company=None, place=None, time=clause.time if clause.front == "time" else None
            )
            clause = replace(clause, front=clause.front if clause.time else "")
            return Sentence(replace(clause, objects=(*clause.objects[:-1], self._described(last))))
        return Sentence(clause)

    def _described(self, phrase: NounPhrase) -> NounPhrase:
        """With a relative clause in which it is the subject or the accusative object."""
        for _ in range(4):
            clause = self.clause(plain=True, without=_mentions(phrase))
            verb = clause.verb
            classes = {"person" if name == "family" else name for name in phrase.noun.classes}
            able = classes & set(verb.subjects)
            if verb.frame == "A" and set(verb.classes) & classes - {"person"}:
                clause = replace(clause, objects=(), negated=False)
                return replace(phrase, relative=Relative(clause, "object"))
            if able and not (clause.modal and "person" not in able):
                clause = replace(clause, subject=Gap(phrase.plural))
                return replace(phrase, relative=Relative(clause, "subject"))
        # Nothing that it does or that one does with it came up, so what it is like, and only once.
        adjective = self.pick(_adjectives(phrase.noun))
        tense: Tense = "past" if self.chance(0.3) else "present"
        complement = Fixed(adjective.en, adjective.de)
        clause = Clause(Gap(phrase.plural), TO_BE, tense, complement=complement)
        return replace(phrase, adjective=None, relative=Relative(clause, "subject"))

    def _with_subordinate(self) -> Sentence:
        conjunction = self.pick((_BECAUSE, _BECAUSE, _ALTHOUGH, _IF, _WHEN, _WHILE, _BEFORE))
        first: Tense | None = None
        second: Tense | None = None
        if conjunction is _IF:
            first, second = "modal" if self.chance(0.6) else "present", "present"
        elif conjunction is _WHEN:
            first = second = "past"
        elif conjunction in (_WHILE, _BEFORE):
            first = second = "past" if self.chance(0.6) else "present"
        main = self.clause(tense=first, plain=True, negatable=conjunction is not _BEFORE)
        reverse = self.chance(0.35)
        if not reverse:
            main = self._fronted(main)
        temporal = conjunction in (_BEFORE, _WHEN, _WHILE)
        clause = self.clause(
            tense=second, plain=True, without=_mentions(main.subject), negatable=not temporal
        )
        if temporal:  # Not "before he never slept".
            clause = replace(clause, frequency=None)
        return Sentence(main, conjunction, clause, reverse=reverse)

    def _with_content(self) -> Sentence:
        verb = self.pick(_verbs(True))
        tense: Tense = "past" if self.chance(0.35) else "present"
        subject = self._subject(("person",))
        each = isinstance(subject, NounPhrase) and subject.determiner == "every"
        main = Clause(subject, verb, tense, negated=not each and self.chance(0.2))
        whether = verb.preterite == "wusste" and main.negated
        conjunction = _WHETHER if whether else _THAT
        return Sentence(
            main, conjunction, self.clause(plain=self.chance(0.7), without=_mentions(main.subject))
        )

    def _question(self) -> Sentence:
        clause = self.clause(negatable=False)
        frame, roll = clause.verb.frame, self._random()
        if roll < 0.12 and clause.tense != "present":
            return Sentence(
                replace(clause, time=None, frequency=None), question=True, question_word=Fixed("when", "wann")
            )
        if roll < 0.25:
            return Sentence(replace(clause, time=None), question=True, question_word=Fixed("why", "warum"))
        if roll < 0.40 and (frame == "L" or (frame in ("", "A") and not clause.verb.stative)):
            clause = replace(clause, place=None, complement=None)
            return Sentence(clause, question=True, question_word=Fixed("where", "wo"))
        return Sentence(clause, question=True)

    def _existence(self) -> Sentence:
        what = self._noun_phrase(THERE_IS.classes, _EXISTING)
        tense: Tense = "past" if self.chance(0.3) else "present"
        place = self._place({what.noun.en})
        clause = Clause(Expletive(), THERE_IS, tense, objects=(what,), place=place)
        if what.determiner != "no" and self.chance(0.25):
            return Sentence(clause, question=True)
        return Sentence(self._fronted(clause))

    def _fronted(self, clause: Clause) -> Clause:
        if clause.time and self.chance(0.4):
            return replace(clause, front="time")
        if clause.place and self.chance(0.35):
            return replace(clause, front="place")
        if clause.negated and not clause.verb.stative and clause.verb.frame not in "LT" and self.chance(0.1):
            place = self._place(_mentions(clause.subject).union(*map(_mentions, clause.objects)))
            return replace(clause, place=place, front="place")
        return clause

    def clause(
        self,
        tense: Tense | None = None,
        *,
        plain: bool = False,
        negatable: bool = True,
        without: Iterable[str] = (),
    ) -> Clause:
        """A clause that says nothing about `without`; a plain one has fewer adverbials."""
        verb = TO_BE if self.chance(0.1) else self.pick(_verbs(False))
        subject = self._subject(("any",) if verb.frame == "B" else verb.subjects, without)
        roll = self._random()
        if tense is None:
            tense = "modal" if roll < 0.27 else "past" if roll < 0.57 else "present"
        modal = self._modal(verb, subject) if tense == "modal" else None
        if tense == "modal" and modal is None:
            tense = "present"
        negated = negatable and self.chance(0.18) and not (modal and modal.en == "must")
        negated = negated and not (isinstance(subject, NounPhrase) and subject.determiner == "every")
        used = _mentions(subject) | set(without)
        objects = self._objects(verb, used, negated)
        clause = Clause(subject, verb, tense, modal, negated, objects)
        for item in objects:
            used |= _mentions(item)
        clause = replace(clause, complement=self._complement(clause, used))
        return self._with_adverbials(clause, used, 0.35 if plain else 1.0)

    def _modal(self, verb: Verb, subject: Nominal) -> Modal | None:
        if verb.infinitive == "mögen":
            return None
        if verb.frame == "B" or verb.stative:
            return MODALS[3]
        personal = not isinstance(subject, NounPhrase) or {"person", "family"} & set(subject.noun.classes)
        return self.pick(MODALS if personal else MODALS[:4])

    def _with_adverbials(self, clause: Clause, used: set[str], scale: float) -> Clause:
        verb, settled = clause.verb, clause.negated or clause.verb.stative
        frequency = time = None
        company: Adjunct | None = None
        place: Adjunct | None = None
        roll = self._random() / scale
        if roll < 0.18 and not clause.negated:
            frequency = Fixed(*self.pick(lexicon.FREQUENCIES))
        elif roll < 0.5:
            time = self._time(clause)
        roll = self._random() / scale
        if roll < 0.1 and not settled:
            if verb.frame == "" and self.chance(0.4):
                company = Fixed(*self.pick(lexicon.MANNERS))
            else:
                company = self._company(verb, used)
        elif roll < 0.35 and not settled and verb.frame not in ("L", "T"):
            place = self._place(used)
        return replace(clause, frequency=frequency, time=time, company=company, place=place)

    def _objects(self, verb: Verb, used: set[str], negated: bool) -> tuple[Nominal, ...]:
        objects: tuple[Nominal, ...] = ()
        if "D" in verb.frame:
            # In a negated clause with two objects only the second may become kein.
            only = verb.frame == "D" and negated
            determiners = _NEGATED if only else _KNOWN if negated else _OBJECT
            objects = (self._distinct(("person", "family"), determiners, used),)
            used = used | _mentions(objects[0])
        if "A" in verb.frame:
            objects = (*objects, self._distinct(verb.classes, _NEGATED if negated else _OBJECT, used))
        elif "P" in verb.frame:
            objects = (self._distinct(verb.classes, _KNOWN if negated else _OBJECT, used),)
        return objects

    def _complement(self, clause: Clause, used: set[str]) -> Adjunct | None:
        match clause.verb.frame:
            case "L":
                return self._place(used, city=clause.verb.infinitive in ("wohnen", "bleiben"))
            case "T" if self.chance(0.5):
                return Prepositional(lexicon.TO_CITY, Name(*self.pick(lexicon.CITIES)))
            case "T":
                return Prepositional(lexicon.TO, self._noun_phrase(("building", "goal"), _PLACE, used))
            case "B":
                noun = clause.subject.noun if isinstance(clause.subject, NounPhrase) else lexicon.NOUNS[0]
                adjective = self.pick(_adjectives(noun))
                return Fixed(adjective.en, adjective.de)
        return None

    def _company(self, verb: Verb, used: set[str]) -> Prepositional:
        roll = self._random()
        preposition = lexicon.WITH if roll < 0.6 else lexicon.WITHOUT
        if verb.infinitive in lexicon.FOR_SOMEBODY and roll > 0.6:
            preposition = lexicon.FOR
        return Prepositional(preposition, self._distinct(("person", "family"), _KNOWN, used))

    def _place(self, used: set[str], city: bool = True) -> Prepositional:
        if city and self.chance(0.25):
            return Prepositional(lexicon.IN, Name(*self.pick(lexicon.CITIES)))
        around = self.chance(0.25)
        phrase = self._noun_phrase(("building",) if around else ("place",), _PLACE, used)
        at = lexicon.AT.get(phrase.noun.en, lexicon.IN)
        return Prepositional(self.pick(lexicon.AROUND) if around else at, phrase)

    def _subject(self, classes: tuple[str, ...], without: Iterable[str] = ()) -> Nominal:
        avoided = set(without)
        others = tuple(c for c in classes if c != "person")
        if others and self.chance(0.4):
            return self._noun_phrase(others, _SUBJECT, avoided)
        for _ in range(50):
            roll = self._random()
            if roll < 0.36:
                subject: Nominal = Pronoun(self.pick(tuple(lexicon.PRONOUNS)))
            elif roll < 0.55:
                subject = self._name()
            elif roll < 0.62:
                subject = Couple(self._name(), self._noun_phrase(("person", "family"), _KNOWN))
                if _mentions(subject.first) & _mentions(subject.second):
                    continue
            else:
                subject = self._noun_phrase(("person", "family"), _SUBJECT)
            if not _mentions(subject) & avoided:
                return subject
        return self._noun_phrase(("person", "family"), _SUBJECT, avoided)

    def _distinct(self, classes: tuple[str, ...], determiners: Sequence[str], used: set[str]) -> Nominal:
        """An object, perhaps a pronoun or a name if it may be a person."""
        roll = self._random()
        if {"person", "family"} & set(classes) and roll < 0.4:
            for _ in range(10):
                item: Nominal = Pronoun(self.pick(tuple(lexicon.PRONOUNS))) if roll < 0.25 else self._name()
                if not _mentions(item) & used:
                    return item
        return self._noun_phrase(classes, determiners, used)

    def _name(self) -> Name:
        if self.chance(0.15):
            surname = self.pick(lexicon.SURNAMES)
            return Name(surname, surname, "Mr" if self.chance(0.5) else "Mrs")
        first = self.pick(lexicon.NAMES)
        return Name(first, first)

    def _noun_phrase(
        self,
        classes: tuple[str, ...],
        determiners: Sequence[str],
        used: set[str] | frozenset[str] = frozenset(),
    ) -> NounPhrase:
        noun = self.pick(tuple(noun for noun in _nouns(classes) if noun.en not in used))
        determiner = self.pick(determiners)
        if "family" in noun.classes:
            determiner = "owner" if self.chance(0.25) else "possessive"
        public = "stranger" in noun.classes or ("place" in noun.classes and "private" not in noun.classes)
        if public and determiner in ("owner", "possessive"):
            determiner = "the"
        if "drink" in noun.classes and determiner in ("a", "count", "every", "this"):
            determiner = "bare"
        plural = determiner == "count" or self.chance(0.15 if "place" in noun.classes else 0.3)
        plural = plural and bool(noun.en_plural) and determiner != "every"
        if plural and determiner == "a":
            determiner = "bare"
        value = ("", "")
        if determiner == "count":
            value = self._count()
        elif determiner == "owner":
            value = (owner := self.pick(tuple(n for n in lexicon.NAMES if n not in used)), owner)
        elif determiner == "possessive":
            determiner = self.pick(tuple(lexicon.POSSESSIVES))
        adjective = self.pick(_adjectives(noun)) if self.chance(0.28) else None
        return NounPhrase(noun, determiner, plural, adjective, value)

    def _count(self) -> tuple[str, str]:
        if self.chance(0.75):
            return self.pick(lexicon.COUNTS)
        return (number := str(13 + int(self._random() * 87)), number)

    def _time(self, clause: Clause) -> Fixed | None:
        """A time that suits the tense; a lasting state has only long ones, and no present one."""
        complement, past = clause.complement, clause.tense == "past"
        if clause.verb.frame == "B" and isinstance(complement, Fixed) and complement.en in lexicon.PASSING:
            if clause.tense == "present":
                return Fixed("today", "heute")
        elif clause.verb.stative:
            return self._long_ago(clause) if past else None
        if self.chance(0.12):
            return self._clock()
        day_en, day_de = self.pick(lexicon.WEEKDAYS)
        if clause.tense == "present":
            if clause.negated:  # "not every day" is another thing than "every day not".
                return Fixed(*self.pick(lexicon.DAYTIMES))
            if self.chance(0.25):
                return Fixed(f"every {day_en}", f"jeden {day_de}")
            return Fixed(*self.pick(lexicon.PRESENT_TIMES))
        roll = self._random()
        if roll < 0.2:
            return Fixed(f"on {day_en}", f"am {day_de}")
        if roll < 0.4:
            day = 1 + int(self._random() * 28)
            month_en, month_de = self.pick(lexicon.MONTHS)
            return Fixed(f"on {day} {month_en}", f"am {day}. {month_de}")
        if roll < 0.6 and past:
            return self._long_ago(clause)
        if roll < 0.55:
            (en, de), (unit_en, unit_de) = self.pick(lexicon.COUNTS), self.pick(lexicon.UNITS)
            return Fixed(f"in {en} {unit_en}", f"in {de} {unit_de}")
        return Fixed(*self.pick(lexicon.PAST_TIMES if past else lexicon.FUTURE_TIMES))

    def _long_ago(self, clause: Clause) -> Fixed:
        counted = any(isinstance(item, NounPhrase) and item.determiner == "count" for item in clause.objects)
        if self.chance(0.5) and not counted:  # Not "im Jahr 1995 26 Bilder".
            year = 1990 + int(self._random() * 35)
            return Fixed(f"in/1 {year}/2", f"im/1 Jahr {year}/2")
        (en, de), (unit_en, unit_de) = self.pick(lexicon.COUNTS), self.pick(lexicon.UNITS)
        return Fixed(f"{en}/1 {unit_en}/2 ago/3", f"vor/3 {de}/1 {unit_de}/2")

    def _clock(self) -> Fixed:
        if self.chance(0.6):
            en, de = self.pick(lexicon.COUNTS)
            return Fixed(f"at {en} o'clock", f"um {de} Uhr")
        clock = f"{7 + int(self._random() * 15)}:{self.pick(('15', '30', '45'))}"
        return Fixed(f"at/1 {clock}/2", f"um/1 {clock}/2 Uhr")
