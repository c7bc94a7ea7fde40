"""The offline corpus: its German and English, and their alignment, from derivations made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nmt.data import (
    synthetic_english,
    synthetic_german,
    synthetic_grammar,
    synthetic_lexicon,
    synthetic_lexicon_verbs,
)
from nmt.data.synthetic import Pair, tokenize
from nmt.data.synthetic_derivation import (
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
)
from nmt.data.synthetic_grammar import realise
from nmt.data.synthetic_lexicon import Case

NOUNS = {noun.en: noun for noun in synthetic_lexicon.NOUNS}
ADJECTIVES = {adjective.en: adjective for adjective in synthetic_lexicon.ADJECTIVES}
MODALS = {modal.en: modal for modal in synthetic_lexicon_verbs.MODALS}
VERBS = {
    verb.infinitive + (f" {verb.prep.de}" if verb.prep else ""): verb
    for verb in synthetic_lexicon_verbs.VERBS
}
BECAUSE = Conjunction("because", "weil")
THAT = Conjunction("that", "dass")
ANNA = Name("Anna", "Anna")
ME, YOU, HE, SHE, WE, THEY = (Pronoun(en) for en in ("I", "you", "he", "she", "we", "they"))
YESTERDAY, TODAY = Fixed("yesterday", "gestern"), Fixed("today", "heute")


def the(noun: str, determiner: str = "the", adjective: str = "", **more: object) -> NounPhrase:
    described = ADJECTIVES[adjective] if adjective else None
    return replace(NounPhrase(NOUNS[noun], determiner, adjective=described), **more)  # type: ignore[arg-type]


def clause(subject: Subject, verb: str, *objects: Nominal, **more: object) -> Clause:
    made = Clause(subject, VERBS[verb], objects=objects)
    return replace(made, **more)  # type: ignore[arg-type]


def modal(name: str) -> dict[str, object]:
    return {"tense": "modal", "modal": MODALS[name]}


def place(noun: str, preposition: str = "in") -> Prepositional:
    return Prepositional(synthetic_lexicon.Preposition(preposition, preposition), the(noun))


AT_SIX = Fixed("at six o'clock", "um sechs Uhr")
ON_3_MAY = Fixed("on 3 May", "am 3. Mai")
CHILD_PICKED_UP = clause(HE, "abholen", the("child"))
TIRED = clause(HE, "sein", complement=Fixed("tired", "müde"))
WHO_LIVES = Relative(clause(Gap(False), "wohnen", complement=place("city")), "subject")
THAT_ANNA_BUYS = Relative(clause(ANNA, "kaufen"), "object")
IN_BERLIN = Prepositional(synthetic_lexicon.IN, Name("Berlin", "Berlin"))

PAIRS = [
    (Sentence(clause(ANNA, "anrufen", the("doctor"))), "Anna calls the doctor.", "Anna ruft den Arzt an."),
    (
        Sentence(clause(ANNA, "anrufen", the("doctor"), time=TODAY, front="time")),
        "Today Anna calls the doctor.",
        "Heute ruft Anna den Arzt an.",
    ),
    (
        Sentence(clause(ANNA, "kaufen", the("apple", "a", "red"), tense="past", time=ON_3_MAY, front="time")),
        "On 3 May, Anna bought a red apple.",
        "Am 3. Mai hat Anna einen roten Apfel gekauft.",
    ),
    (
        Sentence(clause(ANNA, "schlafen"), BECAUSE, TIRED),
        "Anna sleeps because he is tired.",
        "Anna schläft, weil er müde ist.",
    ),
    (
        Sentence(clause(ANNA, "schlafen"), BECAUSE, TIRED, reverse=True),
        "Because he is tired, Anna sleeps.",
        "Weil er müde ist, schläft Anna.",
    ),
    (
        Sentence(clause(WE, "wissen"), THAT, CHILD_PICKED_UP),
        "We know that he picks up the child.",
        "Wir wissen, dass er das Kind abholt.",
    ),
    (
        Sentence(clause(HE, "abholen", THEY, **modal("want to"))),
        "He wants to pick them up.",
        "Er will sie abholen.",
    ),
    (
        Sentence(clause(WE, "schlafen"), BECAUSE, clause(SHE, "kaufen", the("car", "a"), **modal("can"))),
        "We sleep because she can buy a car.",
        "Wir schlafen, weil sie ein Auto kaufen kann.",
    ),
    (
        Sentence(clause(HE, "kaufen", the("book"), negated=True)),
        "He does not buy the book.",
        "Er kauft das Buch nicht.",
    ),
    (
        Sentence(clause(THEY, "kaufen", the("book", "a"), negated=True, tense="past")),
        "They did not buy a book.",
        "Sie haben kein Buch gekauft.",
    ),
    (
        Sentence(clause(ME, "anrufen", HE, negated=True, **modal("can"))),
        "I cannot call him.",
        "Ich kann ihn nicht anrufen.",
    ),
    (
        Sentence(clause(SHE, "sein", negated=True, complement=Fixed("ill", "krank"))),
        "She is not ill.",
        "Sie ist nicht krank.",
    ),
    (
        Sentence(clause(YOU, "helfen", the("student"), tense="past", time=YESTERDAY)),
        "You helped the student yesterday.",
        "Du hast dem Studenten gestern geholfen.",
    ),
    (
        Sentence(clause(ME, "geben", the("child"), the("book", "a"), time=TODAY)),
        "I give the child a book today.",
        "Ich gebe dem Kind heute ein Buch.",
    ),
    (
        Sentence(clause(the("man", relative=WHO_LIVES), "warten auf", the("bus"))),
        "The man who lives in the city waits for the bus.",
        "Der Mann, der in der Stadt wohnt, wartet auf den Bus.",
    ),
    (
        Sentence(clause(HE, "einladen", the("uncle", "my", relative=WHO_LIVES))),
        "He invites my uncle who lives in the city.",
        "Er lädt meinen Onkel ein, der in der Stadt wohnt.",
    ),
    (
        Sentence(clause(WE, "sehen", the("coat", relative=THAT_ANNA_BUYS))),
        "We see the coat that Anna buys.",
        "Wir sehen den Mantel, den Anna kauft.",
    ),
    (
        Sentence(clause(YOU, "aufstehen", time=AT_SIX), question=True),
        "Do you get up at six o'clock?",
        "Stehst du um sechs Uhr auf?",
    ),
    (
        Sentence(clause(ANNA, "wohnen"), question=True, question_word=Fixed("where", "wo")),
        "Where does Anna live?",
        "Wo wohnt Anna?",
    ),
    (
        Sentence(
            Clause(
                Expletive(),
                synthetic_lexicon_verbs.THERE_IS,
                objects=(the("dog", "a"),),
                place=place("garden"),
                front="place",
            )
        ),
        "In the garden, there is a dog.",
        "Im Garten gibt es einen Hund.",
    ),
    (
        Sentence(
            clause(Couple(ANNA, Name("Weber", "Weber", "Mr")), "fahren", tense="past", complement=IN_BERLIN),
        ),
        "Anna and Mr Weber drove in Berlin.",
        "Anna und Herr Weber sind in Berlin gefahren.",
    ),
    (
        Sentence(
            clause(HE, "arbeiten"),
            Conjunction("but", "aber", False),
            clause(SHE, "trinken", the("milk", "bare", "cold")),
        ),
        "He works, but she drinks cold milk.",
        "Er arbeitet, aber sie trinkt kalte Milch.",
    ),
    (
        Sentence(clause(the("party", "every"), "sein", tense="past", complement=Fixed("long", "lang"))),
        "Every party was long.",
        "Jede Party war lang.",
    ),
    (
        Sentence(clause(SHE, "teilnehmen an", the("concert"), frequency=Fixed("never", "nie"))),
        "She never takes part in the concert.",
        "Sie nimmt nie am Konzert teil.",
    ),
]


@pytest.mark.parametrize(("sentence", "source", "target"), PAIRS, ids=[source for _, source, _ in PAIRS])
def test_a_derivation_is_written_in_both_languages(sentence: Sentence, source: str, target: str) -> None:
    pair = realise(sentence)
    assert (pair.source, pair.target) == (source, target)


# For each kind of article: nominative, accusative, dative of m, f, n, plural, written out by hand.
DECLENSION = {
    "the": [
        ["der alte Hund", "die alte Tür", "das alte Buch", "die alten Bilder"],
        ["den alten Hund", "die alte Tür", "das alte Buch", "die alten Bilder"],
        ["dem alten Hund", "der alten Tür", "dem alten Buch", "den alten Bildern"],
    ],
    "this": [
        ["dieser alte Hund", "diese alte Tür", "dieses alte Buch", "diese alten Bilder"],
        ["diesen alten Hund", "diese alte Tür", "dieses alte Buch", "diese alten Bilder"],
        ["diesem alten Hund", "dieser alten Tür", "diesem alten Buch", "diesen alten Bildern"],
    ],
    "our": [
        ["unser alter Hund", "unsere alte Tür", "unser altes Buch", "unsere alten Bilder"],
        ["unseren alten Hund", "unsere alte Tür", "unser altes Buch", "unsere alten Bilder"],
        ["unserem alten Hund", "unserer alten Tür", "unserem alten Buch", "unseren alten Bildern"],
    ],
    "a": [
        ["ein alter Hund", "eine alte Tür", "ein altes Buch", ""],
        ["einen alten Hund", "eine alte Tür", "ein altes Buch", ""],
        ["einem alten Hund", "einer alten Tür", "einem alten Buch", ""],
    ],
    "bare": [
        ["alter Hund", "alte Tür", "altes Buch", "alte Bilder"],
        ["alten Hund", "alte Tür", "altes Buch", "alte Bilder"],
        ["altem Hund", "alter Tür", "altem Buch", "alten Bildern"],
    ],
    "no": [
        ["kein alter Hund", "keine alte Tür", "kein altes Buch", "keine alten Bilder"],
        ["keinen alten Hund", "keine alte Tür", "kein altes Buch", "keine alten Bilder"],
        ["keinem alten Hund", "keiner alten Tür", "keinem alten Buch", "keinen alten Bildern"],
    ],
    "owner": [
        ["Annas alter Hund", "Annas alte Tür", "Annas altes Buch", "Annas alte Bilder"],
        ["Annas alten Hund", "Annas alte Tür", "Annas altes Buch", "Annas alte Bilder"],
        ["Annas altem Hund", "Annas alter Tür", "Annas altem Buch", "Annas alten Bildern"],
    ],
}


@pytest.mark.parametrize("determiner", DECLENSION)
def test_articles_and_adjectives_agree_in_gender_number_and_case(determiner: str) -> None:
    cases: tuple[Case, ...] = ("nominative", "accusative", "dative")
    value = ("Anna", "Anna") if determiner == "owner" else ("", "")
    for case, row in zip(cases, DECLENSION[determiner], strict=True):
        for noun, expected in zip(("dog", "door", "book", "picture"), row, strict=True):
            phrase = the(noun, determiner, "old", plural=noun == "picture", value=value)
            if expected:
                assert " ".join(w.text for w in synthetic_grammar._nominal(phrase, case).de) == expected


def test_third_persons_in_english() -> None:
    thirds = {"buy": "buys", "cry": "cries", "stay": "stays", "go": "goes", "wash": "washes", "have": "has"}
    assert {base: synthetic_english._english_third(base) for base in thirds} == thirds


def test_weak_nouns_and_dative_plurals() -> None:
    def german(phrase: Nominal, case: Case) -> str:
        return " ".join(word.text for word in synthetic_grammar._nominal(phrase, case).de)

    assert german(the("student"), "accusative") == "den Studenten"
    assert german(the("boy", "a"), "dative") == "einem Jungen"
    assert german(Name("Weber", "Weber", "Mr"), "dative") == "Herrn Weber"
    assert german(the("dog", "count", plural=True, value=("two", "zwei")), "dative") == "zwei Hunden"
    assert german(the("car", plural=True), "dative") == "den Autos"
    assert [german(HE, case) for case in ("nominative", "accusative", "dative")] == ["er", "ihn", "ihm"]


def test_the_indefinite_article_in_english() -> None:
    phrases = (the("apple", "a"), the("apple", "a", "red"), the("dog", "a", "old"), the("uncle", "a"))
    english = [
        " ".join(w.text for w in synthetic_grammar._nominal(phrase, "nominative").en) for phrase in phrases
    ]
    assert english == ["an apple", "a red apple", "an old dog", "an uncle"]


@pytest.mark.parametrize("verb", synthetic_lexicon_verbs.VERBS, ids=lambda verb: verb.infinitive)
def test_german_verbs_agree(verb: synthetic_lexicon_verbs.Verb) -> None:
    ich, du, er, wir = (synthetic_german._german_present(verb, person) for person in ("1s", "2s", "3s", "1p"))
    assert er == verb.third
    if verb.infinitive not in ("sein", "wissen"):
        assert wir == verb.stem_infinitive
        assert ich == wir[:-1] or ich == "mag"
        # "du tanzt", "du reist", "du isst": no second s.
        assert du == er if re.search(r"[sßz]t$", er) else du.endswith("st")


@pytest.mark.parametrize(
    "verb", [v for v in synthetic_lexicon_verbs.VERBS if v.prefix], ids=lambda v: v.infinitive
)
def test_separable_prefixes(verb: synthetic_lexicon_verbs.Verb) -> None:
    present = Clause(HE, verb)
    parts = synthetic_german.german_verb(present, object(), object())
    assert [w.text for w in parts.finite + parts.tail] == [verb.third, verb.prefix]
    assert [w.text for w in parts.final] == [verb.prefix + verb.third]
    parts = synthetic_german.german_verb(
        replace(present, tense="modal", modal=MODALS["can"]), object(), object()
    )
    assert [w.text for w in parts.final] == [verb.prefix + verb.stem_infinitive, "kann"]
    assert verb.participle.startswith(verb.prefix)


def linked_words(pair: Pair) -> set[tuple[str, str]]:
    source, target = tokenize(pair.source), tokenize(pair.target)
    return {(source[i], target[j]) for i, j in pair.alignment}


def test_alignment_of_verbs_negation_and_contractions() -> None:
    sentence = Sentence(clause(HE, "anrufen", the("friend", "a"), negated=True))
    assert linked_words(realise(sentence)) == {
        *(
            ("He", "Er"),
            ("does", "ruft"),
            ("does", "an"),
            ("not", "keinen"),
            ("call", "ruft"),
            ("call", "an"),
        ),
        *(("a", "keinen"), ("friend", "Freund"), (".", ".")),
    }
    sentence = Sentence(clause(ANNA, "sitzen", tense="past", complement=place("park")))
    links = linked_words(realise(sentence))
    assert links >= {("sat", "hat"), ("sat", "gesessen"), ("in", "im"), ("the", "im"), ("park", "Park")}
