"""The verbs of the offline corpus: one line a verb, its forms in both languages and what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from nmt.data.synthetic_lexicon import Preposition


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of both languages.

    `en` is the base form, where "+up" is a particle that a pronoun object precedes ("pick him up");
    `prefix` is the separable one. A verb with a `preterite` uses it for the past, all others the
    perfect. `frame` is what the verb takes:

    - "": nothing; "A", "D", "DA": objects in the accusative and dative
    - "P": an object after `prep`; "L": a place it is at; "T": a place it goes to
    - "S": a that-clause; "B": an adjective (to be)
    """

    en: str
    en_past: str
    prefix: str
    stem_infinitive: str
    third: str
    participle: str
    frame: str
    classes: tuple[str, ...]
    subjects: tuple[str, ...]
    prep: Preposition | None
    aux: str
    preterite: str
    stative: bool

    @property
    def infinitive(self) -> str:
        return self.prefix + self.stem_infinitive


def _verb(
    en: str,
    past: str,
    de: str,
    third: str,
    participle: str,
    frame: str = "",
    classes: str = "",
    *,
    subjects: str = "person",
    prep: Preposition | None = None,
    aux: str = "haben",
    preterite: str = "",
    stative: bool = False,
) -> Verb:
    prefix, _, stem = de.rpartition("|")
    taken = (frame, tuple(classes.split()), tuple(subjects.split()), prep, aux, preterite, stative)
    return Verb(en, past, prefix, stem, third, participle, *taken)


@dataclass(frozen=True, slots=True)
class Modal:
    """A modal verb: `en` is what stands before the English verb, `forms` those of ich, du, er, plural."""

    en: str
    de: str
    forms: tuple[str, str, str, str]


_AUF, _AN = Preposition("for", "auf", "accusative"), Preposition("of", "an", "accusative")
_UEBER, _VON = Preposition("about", "über", "accusative"), Preposition("about", "von")
_PEOPLE = "person family"
_OWNED, _CARRIED = "thing text clothing", "portable text clothing"

TO_BE = _verb("be", "was", "sein", "ist", "gewesen", "B", subjects="any", preterite="war", stative=True)
THERE_IS = _verb(
    "be",
    "was",
    "geben",
    "gibt",
    "gegeben",
    "A",
    "animal portable machine dish",
    preterite="gab",
    stative=True,
)
VERBS = (
    TO_BE,
    _verb("have", "had", "haben", "hat", "gehabt", "A", f"{_OWNED} animal", preterite="hatte", stative=True),
    # Nothing but a subject.
    _verb("sleep", "slept", "schlafen", "schläft", "geschlafen", subjects="person animal"),
    _verb("work", "worked", "arbeiten", "arbeitet", "gearbeitet"),
    _verb("sing", "sang", "singen", "singt", "gesungen"),
    _verb("dance", "danced", "tanzen", "tanzt", "getanzt"),
    _verb("cry", "cried", "weinen", "weint", "geweint"),
    _verb("swim", "swam", "schwimmen", "schwimmt", "geschwommen", aux="sein", subjects="person animal"),
    _verb("wait", "waited", "warten", "wartet", "gewartet", subjects="person animal"),
    _verb("play", "played", "spielen", "spielt", "gespielt", subjects="person animal"),
    _verb("get up", "got", "auf|stehen", "steht", "aufgestanden", aux="sein"),
    _verb("wake up", "woke", "auf|wachen", "wacht", "aufgewacht", aux="sein", subjects="person animal"),
    _verb("arrive", "arrived", "an|kommen", "kommt", "angekommen", aux="sein", subjects="person vehicle"),
    _verb("leave", "left", "ab|fahren", "fährt", "abgefahren", aux="sein", subjects="person vehicle"),
    _verb("come back", "came", "zurück|kommen", "kommt", "zurückgekommen", aux="sein"),
    _verb("go out", "went", "aus|gehen", "geht", "ausgegangen", aux="sein"),
    _verb("watch TV", "watched", "fern|sehen", "sieht", "ferngesehen"),
    # A place.
    _verb("live", "lived", "wohnen", "wohnt", "gewohnt", "L", stative=True),
    _verb("sit", "sat", "sitzen", "sitzt", "gesessen", "L", subjects="person animal"),
    _verb("stand", "stood", "stehen", "steht", "gestanden", "L", subjects="person animal"),
    _verb("stay", "stayed", "bleiben", "bleibt", "geblieben", "L", aux="sein"),
    _verb("go", "went", "gehen", "geht", "gegangen", "T", aux="sein"),
    _verb("drive", "drove", "fahren", "fährt", "gefahren", "T", aux="sein"),
    _verb("run", "ran", "laufen", "läuft", "gelaufen", "T", aux="sein", subjects="person animal"),
    _verb("travel", "travelled", "reisen", "reist", "gereist", "T", aux="sein"),
    # An accusative object.
    _verb("see", "saw", "sehen", "sieht", "gesehen", "A", "person family animal thing vehicle"),
    _verb("buy", "bought", "kaufen", "kauft", "gekauft", "A", f"{_OWNED} food animal"),
    _verb("sell", "sold", "verkaufen", "verkauft", "verkauft", "A", "thing clothing food animal"),
    _verb("write", "wrote", "schreiben", "schreibt", "geschrieben", "A", "text"),
    _verb("understand", "understood", "verstehen", "versteht", "verstanden", "A", f"text {_PEOPLE}"),
    _verb("eat", "ate", "essen", "isst", "gegessen", "A", "food", subjects="person animal"),
    _verb("cook", "cooked", "kochen", "kocht", "gekocht", "A", "dish"),
    _verb("drink", "drank", "trinken", "trinkt", "getrunken", "A", "drink"),
    _verb("find", "found", "finden", "findet", "gefunden", "A", f"{_OWNED} animal"),
    _verb("lose", "lost", "verlieren", "verliert", "verloren", "A", _OWNED),
    _verb("look for", "looked", "suchen", "sucht", "gesucht", "A", f"{_OWNED} person animal"),
    _verb("know", "knew", "kennen", "kennt", "gekannt", "A", f"{_PEOPLE} text", stative=True),
    _verb("love", "loved", "lieben", "liebt", "geliebt", "A", f"{_PEOPLE} animal", stative=True),
    _verb("like", "liked", "mögen", "mag", "gemocht", "A", "food animal", preterite="mochte", stative=True),
    _verb("visit", "visited", "besuchen", "besucht", "besucht", "A", f"{_PEOPLE} place"),
    _verb("meet", "met", "treffen", "trifft", "getroffen", "A", _PEOPLE),
    _verb("need", "needed", "brauchen", "braucht", "gebraucht", "A", f"{_OWNED} food", stative=True),
    _verb("repair", "repaired", "reparieren", "repariert", "repariert", "A", "machine"),
    _verb("draw", "drew", "zeichnen", "zeichnet", "gezeichnet", "A", "animal thing place vehicle"),
    _verb("carry", "carried", "tragen", "trägt", "getragen", "A", "portable"),
    _verb("wash", "washed", "waschen", "wäscht", "gewaschen", "A", "clothing animal"),
    _verb("forget", "forgot", "vergessen", "vergisst", "vergessen", "A", _OWNED),
    _verb("plan", "planned", "planen", "plant", "geplant", "A", "event"),
    _verb("call", "called", "an|rufen", "ruft", "angerufen", "A", _PEOPLE),
    _verb("pick +up", "picked", "ab|holen", "holt", "abgeholt", "A", _PEOPLE),
    _verb("invite", "invited", "ein|laden", "lädt", "eingeladen", "A", _PEOPLE),
    _verb("look at", "looked", "an|sehen", "sieht", "angesehen", "A", f"{_PEOPLE} animal thing"),
    _verb("open", "opened", "auf|machen", "macht", "aufgemacht", "A", "opening"),
    _verb("close", "closed", "zu|machen", "macht", "zugemacht", "A", "opening"),
    _verb("turn +on", "turned", "ein|schalten", "schaltet", "eingeschaltet", "A", "device"),
    _verb("turn +off", "turned", "aus|schalten", "schaltet", "ausgeschaltet", "A", "device"),
    _verb(
        "bring +along", "brought", "mit|bringen", "bringt", "mitgebracht", "A", f"{_PEOPLE} food container"
    ),
    _verb("write +down", "wrote", "auf|schreiben", "schreibt", "aufgeschrieben", "A", "text"),
    _verb("throw +away", "threw", "weg|werfen", "wirft", "weggeworfen", "A", _CARRIED),
    _verb("tidy +up", "tidied", "auf|räumen", "räumt", "aufgeräumt", "A", "room"),
    _verb("try +on", "tried", "an|probieren", "probiert", "anprobiert", "A", "clothing"),
    _verb("unpack", "unpacked", "aus|packen", "packt", "ausgepackt", "A", "container"),
    _verb("prepare", "prepared", "vor|bereiten", "bereitet", "vorbereitet", "A", "event"),
    # A dative object.
    _verb("help", "helped", "helfen", "hilft", "geholfen", "D", _PEOPLE),
    _verb("thank", "thanked", "danken", "dankt", "gedankt", "D", _PEOPLE),
    _verb("answer", "answered", "antworten", "antwortet", "geantwortet", "D", _PEOPLE),
    _verb("follow", "followed", "folgen", "folgt", "gefolgt", "D", f"{_PEOPLE} animal", aux="sein"),
    _verb("trust", "trusted", "vertrauen", "vertraut", "vertraut", "D", _PEOPLE, stative=True),
    _verb("congratulate", "congratulated", "gratulieren", "gratuliert", "gratuliert", "D", _PEOPLE),
    _verb("listen to", "listened", "zu|hören", "hört", "zugehört", "D", _PEOPLE),
    # A dative and an accusative object.
    _verb("give", "gave", "geben", "gibt", "gegeben", "DA", f"{_OWNED} food"),
    _verb("show", "showed", "zeigen", "zeigt", "gezeigt", "DA", f"{_OWNED} room"),
    _verb("send", "sent", "schicken", "schickt", "geschickt", "DA", "text container"),
    _verb("bring", "brought", "bringen", "bringt", "gebracht", "DA", f"{_CARRIED} food"),
    _verb("lend", "lent", "leihen", "leiht", "geliehen", "DA", "thing clothing"),
    # An object after a preposition.
    _verb("wait", "waited", "warten", "wartet", "gewartet", "P", f"{_PEOPLE} vehicle", prep=_AUF),
    _verb("think", "thought", "denken", "denkt", "gedacht", "P", f"{_PEOPLE} event", prep=_AN),
    _verb("talk", "talked", "sprechen", "spricht", "gesprochen", "P", "person text event", prep=_UEBER),
    _verb("dream", "dreamed", "träumen", "träumt", "geträumt", "P", "animal event", prep=_VON),
    _verb(
        "take part",
        "took",
        "teil|nehmen",
        "nimmt",
        "teilgenommen",
        "P",
        "event",
        prep=Preposition("in", "an"),
    ),
    # A that-clause.
    _verb("know", "knew", "wissen", "weiß", "gewusst", "S", preterite="wusste", stative=True),
    _verb("believe", "believed", "glauben", "glaubt", "geglaubt", "S", stative=True),
    _verb("say", "said", "sagen", "sagt", "gesagt", "S"),
    _verb("hope", "hoped", "hoffen", "hofft", "gehofft", "S", stative=True),
    _verb("hear", "heard", "hören", "hört", "gehört", "S", stative=True),
)

MODALS = (
    Modal("can", "können", ("kann", "kannst", "kann", "können")),
    Modal("must", "müssen", ("muss", "musst", "muss", "müssen")),
    Modal("should", "sollen", ("sollte", "solltest", "sollte", "sollten")),
    Modal("will", "werden", ("werde", "wirst", "wird", "werden")),
    Modal("want to", "wollen", ("will", "willst", "will", "wollen")),
    Modal("be allowed to", "dürfen", ("darf", "darfst", "darf", "dürfen")),
)
