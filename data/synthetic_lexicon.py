"""The words of the offline corpus: one line a word, one German counterpart for each English word.

Written by hand for this project; the verbs are in `synthetic_lexicon_verbs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Case = Literal["nominative", "accusative", "dative"]
Gender = Literal["m", "f", "n"]


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun; `classes` says what it may stand for, `oblique` its weak-declension form (den Studenten)."""

    en: str
    en_plural: str
    gender: Gender
    de: str
    de_plural: str
    classes: tuple[str, ...]
    oblique: str


def _noun(
    en: str, plural: str, gender: Gender, de: str, de_plural: str, classes: str, oblique: str = ""
) -> Noun:
    return Noun(en, plural, gender, de, de_plural, tuple(classes.split()), oblique or de)


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective; `stem` takes the endings, `classes` are the nouns it goes with."""

    en: str
    de: str
    stem: str
    classes: tuple[str, ...]


def _adjective(en: str, de: str, classes: str, stem: str = "") -> Adjective:
    return Adjective(en, de, stem or de.removesuffix("e"), tuple(classes.split()))


@dataclass(frozen=True, slots=True)
class Preposition:
    """A preposition and the case it governs in German; `en` may be several words."""

    en: str
    de: str
    case: Case = "dative"


NOUNS = (
    # People. Family is always somebody's ("my uncle", "Anna's uncle"), strangers never.
    _noun("man", "men", "m", "Mann", "Männer", "person stranger"),
    _noun("woman", "women", "f", "Frau", "Frauen", "person stranger"),
    _noun("child", "children", "n", "Kind", "Kinder", "person"),
    _noun("boy", "boys", "m", "Junge", "Jungen", "person stranger", "Jungen"),
    _noun("girl", "girls", "n", "Mädchen", "Mädchen", "person stranger"),
    _noun("teacher", "teachers", "m", "Lehrer", "Lehrer", "person"),
    _noun("doctor", "doctors", "m", "Arzt", "Ärzte", "person"),
    _noun("student", "students", "m", "Student", "Studenten", "person", "Studenten"),
    _noun("neighbour", "neighbours", "m", "Nachbar", "Nachbarn", "person", "Nachbarn"),
    _noun("friend", "friends", "m", "Freund", "Freunde", "person"),
    _noun("colleague", "colleagues", "m", "Kollege", "Kollegen", "person", "Kollegen"),
    _noun("guest", "guests", "m", "Gast", "Gäste", "person"),
    _noun("cook", "cooks", "m", "Koch", "Köche", "person"),
    _noun("brother", "brothers", "m", "Bruder", "Brüder", "family"),
    _noun("sister", "sisters", "f", "Schwester", "Schwestern", "family"),
    _noun("daughter", "daughters", "f", "Tochter", "Töchter", "family"),
    _noun("son", "sons", "m", "Sohn", "Söhne", "family"),
    _noun("uncle", "uncles", "m", "Onkel", "Onkel", "family"),
    _noun("aunt", "aunts", "f", "Tante", "Tanten", "family"),
    _noun("grandmother", "grandmothers", "f", "Großmutter", "Großmütter", "family"),
    # Animals.
    _noun("dog", "dogs", "m", "Hund", "Hunde", "animal"),
    _noun("cat", "cats", "f", "Katze", "Katzen", "animal"),
    _noun("horse", "horses", "n", "Pferd", "Pferde", "animal"),
    _noun("bird", "birds", "m", "Vogel", "Vögel", "animal"),
    _noun("cow", "cows", "f", "Kuh", "Kühe", "animal"),
    # What is written.
    _noun("book", "books", "n", "Buch", "Bücher", "text"),
    _noun("letter", "letters", "m", "Brief", "Briefe", "text"),
    _noun("message", "messages", "f", "Nachricht", "Nachrichten", "text"),
    _noun("story", "stories", "f", "Geschichte", "Geschichten", "text"),
    _noun("poem", "poems", "n", "Gedicht", "Gedichte", "text"),
    _noun("report", "reports", "m", "Bericht", "Berichte", "text"),
    # What is eaten and drunk.
    _noun("apple", "apples", "m", "Apfel", "Äpfel", "food"),
    _noun("cake", "cakes", "m", "Kuchen", "Kuchen", "food"),
    _noun("egg", "eggs", "n", "Ei", "Eier", "food dish"),
    _noun("orange", "oranges", "f", "Orange", "Orangen", "food"),
    _noun("potato", "potatoes", "f", "Kartoffel", "Kartoffeln", "food dish"),
    _noun("tomato", "tomatoes", "f", "Tomate", "Tomaten", "food dish"),
    _noun("soup", "soups", "f", "Suppe", "Suppen", "food dish"),
    _noun("coffee", "", "m", "Kaffee", "", "drink"),
    _noun("tea", "", "m", "Tee", "", "drink"),
    _noun("milk", "", "f", "Milch", "", "drink"),
    _noun("water", "", "n", "Wasser", "", "drink"),
    _noun("wine", "", "m", "Wein", "", "drink"),
    # Things.
    _noun("table", "tables", "m", "Tisch", "Tische", "thing portable"),
    _noun("chair", "chairs", "m", "Stuhl", "Stühle", "thing portable"),
    _noun("key", "keys", "m", "Schlüssel", "Schlüssel", "thing portable"),
    _noun("picture", "pictures", "n", "Bild", "Bilder", "thing portable"),
    _noun("flower", "flowers", "f", "Blume", "Blumen", "thing portable"),
    _noun("umbrella", "umbrellas", "m", "Regenschirm", "Regenschirme", "thing portable"),
    _noun("knife", "knives", "n", "Messer", "Messer", "thing portable"),
    _noun("plate", "plates", "m", "Teller", "Teller", "thing portable"),
    _noun("bicycle", "bicycles", "n", "Fahrrad", "Fahrräder", "thing machine"),
    _noun("car", "cars", "n", "Auto", "Autos", "thing machine"),
    _noun("clock", "clocks", "f", "Uhr", "Uhren", "thing machine"),
    _noun("lamp", "lamps", "f", "Lampe", "Lampen", "thing portable machine device"),
    _noun("computer", "computers", "m", "Computer", "Computer", "thing machine device"),
    _noun("radio", "radios", "n", "Radio", "Radios", "thing machine device"),
    _noun("television", "televisions", "m", "Fernseher", "Fernseher", "thing machine device"),
    _noun("door", "doors", "f", "Tür", "Türen", "opening"),
    _noun("window", "windows", "n", "Fenster", "Fenster", "opening"),
    _noun("bag", "bags", "f", "Tasche", "Taschen", "thing portable opening container"),
    _noun("suitcase", "suitcases", "m", "Koffer", "Koffer", "thing portable opening container"),
    _noun("present", "presents", "n", "Geschenk", "Geschenke", "thing portable container"),
    _noun("coat", "coats", "m", "Mantel", "Mäntel", "clothing"),
    _noun("hat", "hats", "m", "Hut", "Hüte", "clothing"),
    _noun("dress", "dresses", "n", "Kleid", "Kleider", "clothing"),
    _noun("shirt", "shirts", "n", "Hemd", "Hemden", "clothing"),
    _noun("jacket", "jackets", "f", "Jacke", "Jacken", "clothing"),
    # What one waits for, and what takes place.
    _noun("bus", "buses", "m", "Bus", "Busse", "vehicle"),
    _noun("train", "trains", "m", "Zug", "Züge", "vehicle"),
    _noun("ship", "ships", "n", "Schiff", "Schiffe", "vehicle"),
    _noun("tram", "trams", "f", "Straßenbahn", "Straßenbahnen", "vehicle"),
    _noun("party", "parties", "f", "Party", "Partys", "event outing"),
    _noun("trip", "trips", "f", "Reise", "Reisen", "event outing"),
    _noun("exam", "exams", "f", "Prüfung", "Prüfungen", "event"),
    _noun("concert", "concerts", "n", "Konzert", "Konzerte", "event outing"),
    _noun("course", "courses", "m", "Kurs", "Kurse", "event"),
    # Places; only the private ones are somebody's.
    _noun("house", "houses", "n", "Haus", "Häuser", "place private building"),
    _noun("garden", "gardens", "m", "Garten", "Gärten", "place private"),
    _noun("school", "schools", "f", "Schule", "Schulen", "place building"),
    _noun("city", "cities", "f", "Stadt", "Städte", "place"),
    _noun("village", "villages", "n", "Dorf", "Dörfer", "place"),
    _noun("park", "parks", "m", "Park", "Parks", "place goal"),
    _noun("forest", "forests", "m", "Wald", "Wälder", "place"),
    _noun("kitchen", "kitchens", "f", "Küche", "Küchen", "place private room"),
    _noun("office", "offices", "n", "Büro", "Büros", "place private room"),
    _noun("room", "rooms", "n", "Zimmer", "Zimmer", "place private room"),
    _noun("hospital", "hospitals", "n", "Krankenhaus", "Krankenhäuser", "place building"),
    _noun("hotel", "hotels", "n", "Hotel", "Hotels", "place building"),
    _noun("church", "churches", "f", "Kirche", "Kirchen", "place building"),
    _noun("museum", "museums", "n", "Museum", "Museen", "place building"),
    _noun("library", "libraries", "f", "Bibliothek", "Bibliotheken", "place building"),
    _noun("station", "stations", "m", "Bahnhof", "Bahnhöfe", "place building"),
    _noun("lake", "lakes", "m", "See", "Seen", "place goal"),
    _noun("market", "markets", "m", "Markt", "Märkte", "place goal"),
)

_LIVING = "person family animal"
_THINGS = "text thing opening clothing"
_PLACES = "place"

ADJECTIVES = (
    _adjective("old", "alt", f"{_LIVING} {_THINGS} vehicle {_PLACES}"),
    _adjective("new", "neu", f"{_THINGS} vehicle building room"),
    _adjective("big", "groß", f"animal {_THINGS} vehicle {_PLACES} food"),
    _adjective("small", "klein", f"{_LIVING} {_THINGS} {_PLACES} food vehicle"),
    _adjective("beautiful", "schön", f"animal {_THINGS} {_PLACES} outing"),
    _adjective("expensive", "teuer", "thing clothing building", "teur"),
    _adjective("cheap", "billig", "thing clothing"),
    _adjective("red", "rot", "thing clothing opening vehicle"),
    _adjective("blue", "blau", "thing clothing opening vehicle"),
    _adjective("green", "grün", "thing clothing opening vehicle"),
    _adjective("black", "schwarz", "thing clothing animal"),
    _adjective("white", "weiß", "thing clothing animal"),
    _adjective("young", "jung", _LIVING),
    _adjective("good", "gut", "text food drink event"),
    _adjective("friendly", "freundlich", _LIVING),
    _adjective("tired", "müde", _LIVING),
    _adjective("hungry", "hungrig", _LIVING),
    _adjective("ill", "krank", _LIVING),
    _adjective("happy", "glücklich", "person family"),
    _adjective("sad", "traurig", "person family"),
    _adjective("famous", "berühmt", "person text building"),
    _adjective("heavy", "schwer", "thing"),
    _adjective("dirty", "schmutzig", "thing clothing opening room"),
    _adjective("dark", "dunkel", "room clothing", "dunkl"),
    _adjective("modern", "modern", "thing room building vehicle"),
    _adjective("interesting", "interessant", "text event"),
    _adjective("important", "wichtig", "text event"),
    _adjective("long", "lang", "text event"),
    _adjective("short", "kurz", "text event"),
    _adjective("fresh", "frisch", "food drink"),
    _adjective("hot", "heiß", "drink"),
    _adjective("cold", "kalt", "food drink"),
)

# Pronouns: English subject and object; German nominative, accusative, dative; agreement.
PRONOUNS = {
    "I": ("me", "ich", "mich", "mir", "1s"),
    "you": ("you", "du", "dich", "dir", "2s"),
    "he": ("him", "er", "ihn", "ihm", "3s"),
    "she": ("her", "sie", "sie", "ihr", "3s"),
    "we": ("us", "wir", "uns", "uns", "1p"),
    "they": ("them", "sie", "sie", "ihnen", "3p"),
}
POSSESSIVES = {"my": "mein", "your": "dein", "his": "sein", "her": "ihr", "our": "unser", "their": "ihr"}

# First names whose genitive is a plain -s ("Annas Hund").
NAMES = (
    "Anna",
    "Peter",
    "Maria",
    "Paul",
    "Julia",
    "David",
    "Laura",
    "Martin",
    "Emma",
    "Daniel",
    "Lena",
    "Simon",
)
SURNAMES = ("Weber", "Schmidt", "Fischer", "Becker", "Wagner")
CITIES = (
    ("Berlin", "Berlin"),
    ("Hamburg", "Hamburg"),
    ("Munich", "München"),
    ("Cologne", "Köln"),
    ("Vienna", "Wien"),
    ("Zurich", "Zürich"),
    ("Leipzig", "Leipzig"),
    ("London", "London"),
    ("Paris", "Paris"),
    ("Rome", "Rom"),
    ("Prague", "Prag"),
)

# Where one is at a place: the preposition of the place itself, or one that goes with any building.
AT = {"station": Preposition("at", "an"), "lake": Preposition("at", "an"), "market": Preposition("at", "auf")}
IN = Preposition("in", "in")
AROUND = (Preposition("in front of", "vor"), Preposition("behind", "hinter"), Preposition("next to", "neben"))
TO, TO_CITY = Preposition("to", "zu"), Preposition("to", "nach")
WITH, WITHOUT = Preposition("with", "mit"), Preposition("without", "ohne", "accusative")
FOR = Preposition("for", "für", "accusative")
# What one does for somebody, and adjectives for a passing state ("is tired today").
FOR_SOMEBODY = (
    *("kaufen", "schreiben", "kochen", "suchen", "finden", "planen", "reparieren", "zeichnen", "waschen"),
    *("tragen", "aufräumen", "vorbereiten", "auspacken", "singen", "tanzen", "arbeiten", "spielen"),
)
PASSING = ("tired", "hungry", "ill", "happy", "sad", "friendly", "dirty", "dark", "hot", "cold")

COUNTS = (
    ("two", "zwei"),
    ("three", "drei"),
    ("four", "vier"),
    ("five", "fünf"),
    ("six", "sechs"),
    ("seven", "sieben"),
    ("eight", "acht"),
    ("nine", "neun"),
    ("ten", "zehn"),
    ("eleven", "elf"),
    ("twelve", "zwölf"),
)
FREQUENCIES = (
    ("often", "oft"),
    ("always", "immer"),
    ("never", "nie"),
    ("rarely", "selten"),
    ("sometimes", "manchmal"),
)
MANNERS = (("quietly", "leise"), ("alone", "allein"), ("together with friends", "zusammen mit Freunden"))
WEEKDAYS = (
    ("Monday", "Montag"),
    ("Tuesday", "Dienstag"),
    ("Wednesday", "Mittwoch"),
    ("Thursday", "Donnerstag"),
    ("Friday", "Freitag"),
    ("Saturday", "Samstag"),
    ("Sunday", "Sonntag"),
)
MONTHS = (
    ("January", "Januar"),
    ("February", "Februar"),
    ("March", "März"),
    ("April", "April"),
    ("May", "Mai"),
    ("June", "Juni"),
    ("July", "Juli"),
    ("August", "August"),
    ("September", "September"),
    ("October", "Oktober"),
    ("November", "November"),
    ("December", "Dezember"),
)
# Times: words that share a number are linked; without numbers the words are linked in order.
DAYTIMES = (("in/1 the/1 morning/2", "am/1 Morgen/2"), ("in/1 the/1 evening/2", "am/1 Abend/2"))
PRESENT_TIMES = (
    ("every day", "jeden Tag"),
    ("every week", "jede Woche"),
    ("every year", "jedes Jahr"),
    ("every evening", "jeden Abend"),
    *DAYTIMES,
)
PAST_TIMES = (
    ("yesterday", "gestern"),
    ("last week", "letzte Woche"),
    ("last month", "letzten Monat"),
    ("last year", "letztes Jahr"),
    ("this morning", "heute Morgen"),
    ("yesterday evening", "gestern Abend"),
)
FUTURE_TIMES = (
    ("today", "heute"),
    ("tomorrow", "morgen"),
    ("next week", "nächste Woche"),
    ("next month", "nächsten Monat"),
    ("next year", "nächstes Jahr"),
    ("this evening", "heute Abend"),
)
# Units after a number, German in the dative: "two weeks ago", "vor zwei Wochen".
UNITS = (("days", "Tagen"), ("weeks", "Wochen"), ("months", "Monaten"), ("years", "Jahren"))
