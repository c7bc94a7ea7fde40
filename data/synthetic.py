"""The offline corpus: a synchronous grammar that writes English-German pairs and their word alignment.

A sentence is first drawn as a derivation (`Sentence`, `Clause`, `NounPhrase`, ...: what is said, by whom,
in which tense), then written in both languages at once. The German line is a function of the English one:
a word has one counterpart, "you" is always "du", there is no "it", and the English order decides what
German fronts. Nothing is copied from anywhere.

This module is the interface; the files beside it, each using only those above it:

- `synthetic_lexicon`, `synthetic_lexicon_verbs`: the words;
- `synthetic_words`: words with the links between them, and the `Pair` made of them;
- `synthetic_derivation`: what a sentence says;
- `synthetic_german`, `synthetic_english`: the forms of one language;
- `synthetic_held_out`: the combinations kept for the compositional test;
- `synthetic_grammar`: `realise` writes a derivation as a pair;
- `synthetic_sampling`: `Draw` draws derivations.

German rules, and where they are:

- article and adjective endings by gender, number, case and the kind of article (`german_article`,
  `german_adjective`);
- present, perfect (the English past), preterite of sein, haben, wissen, mögen and "es gibt", modals and
  the future, separable prefixes (`german_verb`);
- contractions: im, am, zum, zur, vom (`synthetic_grammar._prepositional`);
- middle field: pronouns, definite objects, time, frequency adverb or nicht, company, place, indefinite
  objects, prepositional object, goal or predicate (`synthetic_grammar._clause`); kein negates an indefinite
  object;
- verb second, also after a fronted adverbial, clause or question word; verb first in yes-no questions;
  verb last in subordinate and relative clauses, set off by commas (`realise`).

**Alignment**: 0-based (English token, German token) pairs over `tokenize` of each side, sure links only.

- Every word of an English verb ("look for", "picks ... up") links to every part of the German one
  (stem and split-off prefix); a preposition before an object links to the German preposition.
- do-support in the present links to the German verb; "did" links to haben/sein, the verb then to the
  participle; a past without "did" links to both. A modal, with its "to", links to the German modal.
- "not" links to nicht, or to kein, as does the article that kein stands for; "cannot" to kann and nicht.
- A contracted im, zum, ... links to preposition and article; "Anna's" (two tokens) to "Annas".
- Commas link only where both languages have one; the final mark links to the final mark. Words without a
  counterpart are unlinked: a German comma, the "Uhr" of "um 8:30 Uhr", the "Jahr" of "im Jahr 1995".

**Held out**: the combinations below are reserved for the split `test-compositional`, each of whose
sentences has at least one (in turn, so that each family has its share); every other split has none, though
each part occurs there in other company. `reserved_combinations` decides, on the derivation; the lists are
in `synthetic_held_out`.

- "verb-final": a separable verb of `HELD_OUT_VERB_FINAL`, finite (so glued) at the end of a clause:
  "weil er das Kind abholt"; seen are "holt ... ab", "abholen", "abgeholt", and other verbs so glued.
- "modal": the modal and verb pairs of `HELD_OUT_MODAL`.
- "dative": a noun of `HELD_OUT_DATIVE` in the dative.
- "adjective": an adjective before a singular noun of a gender, the pairs of `HELD_OUT_ADJECTIVE`.
- "negated-past": a negated past in a verb-final clause ("weil er nicht geschlafen hat").
- "fronted-modal": a modal in a clause whose place is fronted ("Im Garten will Anna schlafen.").

**Splits**: a sentence without held-out combinations belongs to train, validation or test by a hash of its
English line, so that no two splits ever share one, whatever the seed and the sizes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nmt.data.synthetic_grammar import realise
from nmt.data.synthetic_held_out import FAMILIES, reserved_combinations
from nmt.data.synthetic_sampling import Draw
from nmt.data.synthetic_words import Pair
from nmt.errors import UserError
from nmt.files import write_file

__all__ = ["FAMILIES", "SPLITS", "Pair", "generate", "tokenize", "write_corpus"]

SPLITS = {"train": 10_000, "validation": 500, "test": 500, "test-compositional": 500}

# So many draws in a row without a new sentence mean that there are hardly any left.
_PATIENCE = 50_000
_LONGEST = 25
_TOKEN = re.compile(r"\d+\.(?=\s)|\d+(?:[:.,]\d+)*|'s\b|\w+(?:['-](?!s\b)\w+)*|[^\w\s]")


def tokenize(line: str) -> list[str]:
    """Splits a line into words and punctuation marks.

    One token each: a word (o'clock too), a number or time (24, 8:30), an ordinal ("3." before a
    space), the genitive 's, and any other mark.
    """
    return _TOKEN.findall(line)


def _home(source: str) -> str:
    """The split that a sentence without held-out combinations belongs to."""
    bucket = hashlib.blake2b(source.encode(), digest_size=1).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(bucket, "train")


def generate(split: str, count: int, *, seed: int = 1) -> Iterator[Pair]:
    """Yields `count` distinct pairs of a split; a larger count only adds to the end.

    Raises:
        UserError: if there is no such split, if `count` is below 1, or if the grammar runs out.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}; choose from {', '.join(SPLITS)}")
    if count < 1:
        raise UserError(f"the split {split} cannot have {count} sentence pairs; ask for 1 or more")
    return _generate(split, count, seed)


def _generate(split: str, count: int, seed: int) -> Iterator[Pair]:
    draw, seen = Draw(f"{seed}/{split}"), set[str]()
    for number in range(count):
        for _ in range(_PATIENCE):
            sentence = draw.sentence()
            reserved = reserved_combinations(sentence)
            if split == "test-compositional":
                fits = FAMILIES[number % len(FAMILIES)] in reserved
            else:
                fits = not reserved
            if not fits:
                continue
            pair = realise(sentence)
            if len(tokenize(pair.source)) > _LONGEST or pair.source in seen:
                continue
            if reserved or _home(pair.source) == split:
                seen.add(pair.source)
                yield pair
                break
        else:
            raise UserError(
                f"the grammar has too few sentences for {count} in {split}; ask for at most {number}"
            )


def write_corpus(folder: Path, *, seed: int = 1, sizes: Mapping[str, int] = SPLITS) -> list[Path]:
    """Writes SPLIT.en, SPLIT.de and SPLIT.align (Pharaoh, "0-0 1-2") for each split of `sizes`.

    UTF-8, one sentence a line. Each file appears whole or not at all; what is there with other text stays.

    Returns:
        The files, in the order written.

    Raises:
        UserError: as `generate` does, if the folder cannot be written, or if a file has other text.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        texts: dict[Path, str] = {}
        for split, pairs in [(split, generate(split, count, seed=seed)) for split, count in sizes.items()]:
            kept = list(pairs)
            columns = {
                "en": [pair.source for pair in kept],
                "de": [pair.target for pair in kept],
                "align": [" ".join(f"{i}-{j}" for i, j in pair.alignment) for pair in kept],
            }
            for suffix, lines in columns.items():
                texts[folder / f"{split}.{suffix}"] = "".join(f"{line}\n" for line in lines)
        for file, text in texts.items():
            if file.exists() and file.read_bytes() != text.encode():
                raise UserError("is there with other text; remove it, or choose another folder", file=file)
        for file, text in texts.items():
            write_file(file, text)
    except OSError as error:
        raise UserError(
            f"cannot write the corpus: {error.strerror}; choose another folder", file=folder
        ) from error
    return list(texts)
