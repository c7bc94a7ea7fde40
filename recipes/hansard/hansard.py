"""What the recipe hansard adds to nmt: the doctor with the recipe's rules, and AER on the gold sentences.

The gold sentences have another form than the training text: tokenised, lower-cased at the beginning, with
accents, and with what French writes together written in full ("je ai", "le heure"). A model reads them as the
training text would have them (`written`), and its attention is read for each word of the gold, wherever it
then stands in the line.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

from nmt import __version__, resampling
from nmt.data.corpus import find_side, read_lines, read_parallel
from nmt.errors import UserError
from nmt.files import write_file

Span = tuple[int, int]  # bytes of a line, the end exclusive
SYMMETRIZED = "grow-diag"  # fixed beforehand, as in the papers; the others are listed beside it

# The form of the training text


ELIDED = ("je", "me", "te", "se", "le", "de", "ne", "ce", "que", "jusque", "lorsque", "puisque", "quoique")
# Words with a mute h, by their beginning; "onze" and "oui" count as if a consonant began them.
MUTE_H = (
    *("habi", "harmon", "hebdo", "hectare", "herbe", "herit", "hesit", "heure", "hier", "histo", "hiver"),
    *("homm", "honn", "hon.", "honor", "hopit", "horaire", "horizon", "horreur", "hote", "huile"),
    *("humain", "humeur", "hypoth"),
)
NO_ELISION = ("onze", "onzieme", "oui")
ATTACH_LEFT = frozenset([",", ".", ";", ":", "?", "!", ")", "]", "...", "'s", "-", "/"])
ATTACH_RIGHT = frozenset(["(", "[", "-", "/"])


@dataclass(frozen=True)
class Written:
    """A line as the training text would have it, and where in its bytes each word of the gold is."""

    line: str
    spans: list[Span]


def written(tokens: Sequence[str], language: str) -> Written:
    """The words of a gold sentence in the form of the training text; their number stays.

    Accents are taken off, quotation marks are plain ones, marks stand where they stand in print, a vowel is
    left out before a vowel ("l'heure"), and the first letter is a capital. What French contracts ("de le",
    "du") stays two words, since "de le faire" does not contract and cannot be told apart.
    """
    words = [without_accents(token) for token in tokens]
    if language == "fr":
        words = [*map(elided, words, words[1:]), *words[-1:]]
    line = ""
    spans: list[Span] = []
    open_quote = attach = False
    for number, word in enumerate(words):
        closes = word == '"' and open_quote
        left = word in ATTACH_LEFT or closes or (word == "%" and language == "en")
        if number and not attach and not left:
            line += " "
        if not number:
            word = word[:1].upper() + word[1:]
        begin = len(line.encode())
        line += word
        spans.append((begin, len(line.encode())))
        open_quote = (word == '"') != open_quote
        attach = word in ATTACH_RIGHT or (word == '"' and open_quote) or (word == "$" and language == "en")
        attach = attach or (len(word) > 1 and word.endswith("'"))
    return Written(line, spans)


def without_accents(text: str) -> str:
    """As the training text has it; a word that is nothing but accents stays."""
    for mark, plain in (("œ", "oe"), ("Œ", "Oe"), ("æ", "ae"), ("«", '"'), ("»", '"'), ("’", "'")):
        text = text.replace(mark, plain)
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if not unicodedata.combining(part)) or text


def elided(word: str, after: str) -> str:
    """The word with an apostrophe for its last vowel where the word after it asks for that."""
    following = after.lower()
    vowel = following[:1] in tuple("aeiou") or following == "y" or following.startswith(MUTE_H)
    if following in NO_ELISION or not vowel:
        return word
    if word.lower() == "si":
        return f"{word[:-1]}'" if following in ("il", "ils") else word
    return f"{word[:-1]}'" if word.lower() in ELIDED else word


# What is wrong with the corpus


def check(config: Path, corpus: Path, output: Path) -> None:
    """check.json and check.md: the doctor's report, with what the rules of the configuration drop."""
    from nmt.config_file import load_config
    from nmt.data.check import examine
    from nmt.data.filter import Filter, HeldOut

    data = load_config(config).data
    held_out = HeldOut()
    for name in ("dev", "test"):
        prefix = corpus / name
        held_out.add(prefix, read_parallel(prefix, data.source_language, data.target_language))
    rules = Filter(**{key: getattr(data, key) for key in Filter.__dataclass_fields__})
    report = examine(
        corpus / "train", data.source_language, data.target_language, rules=rules, held_out=held_out
    )
    if report.errors:
        first = report.errors[0]
        raise UserError(f"{first.kind}; {first.advice}", file=first.places[0].file, line=first.places[0].line)
    write_file(output / "check.json", json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    lines = ["| found in train | pairs | what it means |", "| --- | ---: | --- |"]
    lines += [f"| {kind} | {count:,} | {advice} |" for _, kind, count, _, advice in report.rows()]
    lines += ["", "| preparation drops | pairs | share |", "| --- | ---: | ---: |"]
    lines += [f"| {row.reason} | {row.count:,} | {row.share:.2%} |" for row in report.dropped]
    lines += ["", f"{report.pairs_kept:,} of {report.source_lines:,} pairs are kept.", ""]
    write_file(output / "check.md", "\n".join(lines) + "\n")


# Alignment of the gold sentences


def align_words(loaded: Any, texts: Sequence[tuple[Written, Written]], view: Any) -> list[Any]:
    """For each pair the links (source word, target word) of the gold's words, as seen from a view."""
    from nmt.alignment import end_is_mark, links, merge
    from nmt.forced import attention
    from nmt.words import shares, token_spans

    tokenizers = loaded.source_tokenizer, loaded.target_tokenizer
    ids = [
        tokenizer.encode_all([pair[side].line for pair in texts]) for side, tokenizer in enumerate(tokenizers)
    ]
    found: list[Any] = [[] for _ in texts]
    for place, weights in attention(loaded, ids[0], ids[1]):
        source, target = texts[place]
        tokens = [
            token_spans(text.line, side[place], tokenizer)
            for text, side, tokenizer in zip((source, target), ids, tokenizers, strict=True)
        ]
        rows_I = deciding_rows(target, tokens[1])
        seen = merge(
            weights,
            shares(tokens[0], source.spans),
            [row + 1 for row in rows_I] if view.shift else rows_I,
            end_is_mark(*map(words_of, texts[place])),
        )
        found[place] = links(view.of(seen.words_LHIJ), view.of(seen.end_LHI))
    return found


def words_of(text: Written) -> list[str]:
    line = text.line.encode()
    return [line[begin:end].decode() for begin, end in text.spans]


def deciding_rows(text: Written, tokens: Sequence[Span]) -> list[int]:
    """As `nmt.words.deciding_tokens`: for each word the token with its first letter, else its first token."""
    ends = [end for _, end in tokens]
    rows = []
    for (begin, _), word in zip(text.spans, words_of(text), strict=True):
        first = next((i for i, character in enumerate(word) if character.isalnum()), 0)
        rows.append(bisect.bisect_right(ends, begin + len(word[:first].encode())))
    return rows


def choose_views(
    models: Sequence[Any], dev: Path, languages: Sequence[str]
) -> tuple[list[Any], float | None]:
    """Of each model the view to read: what it was trained for, else that of most agreement on the dev set."""
    from nmt.alignment import Aligner, View
    from nmt.text_alignment import choose_by_agreement, look

    guided = [loaded.config.guided_view for loaded in models]
    if None not in guided:
        return [View(*view) for view in guided], None
    pairs = list(read_parallel(dev, *languages))
    seen = []
    for loaded, text in zip(models, (pairs, [(t, s) for s, t in pairs]), strict=True):
        aligner = Aligner(loaded, "punctuation")
        seen.append(look(aligner, text, aligner.views((False, True))))
    forward, backward, agreement = choose_by_agreement(*seen)
    return [forward.view, backward.view], agreement


def align(
    models: Sequence[Path], dev: Path, alignments: Path, output: Path, results: Path, name: str
) -> None:
    """Links of both directions and of both together, their error rates, and rows of results."""
    from nmt.alignment import in_order, pharaoh
    from nmt.checkpoint import load_model, model_hash
    from nmt.device import choose_device
    from nmt.gold import Gold, agreement_of, read_gold
    from nmt.model_evaluation import ModelUnderTest
    from nmt.results import add_rows, of_model
    from nmt.symmetrize import METHODS

    languages = ("en", "fr")
    gold_lines = [list(read_lines(find_side(alignments / "hansard", language))) for language in languages]
    gold: list[Gold] = read_gold(
        find_side(alignments / "hansard", "gold"),
        list(zip(*gold_lines, strict=True)),
        words="blank",
        base=1,
    )
    english, french = (
        [written(line.split(), language) for line in lines]
        for lines, language in zip(gold_lines, languages, strict=True)
    )
    loaded = [load_model(model, choose_device("auto")) for model in models]
    views, agreement = choose_views(loaded, dev, languages)
    forward = align_words(loaded[0], list(zip(english, french, strict=True)), views[0])
    backward = [
        [(i, j) for j, i in found]
        for found in align_words(loaded[1], list(zip(french, english, strict=True)), views[1])
    ]
    both = {
        method: [in_order(combine(*sides)) for sides in zip(forward, backward, strict=True)]
        for method, combine in METHODS.items()
    }
    for language, lines in zip(languages, (english, french), strict=True):
        write_file(output / f"gold.{language}", "".join(f"{one.line}\n" for one in lines))
    everything = {"en-fr": forward, "fr-en": backward, **both}
    for kind, found in everything.items():
        write_file(output / f"{kind}.links", "".join(f"{pharaoh(links)}\n" for links in found))
    rates = {kind: agreement_of(found, gold) for kind, found in everything.items()}
    document = {
        "views": {name: asdict(view) for name, view in zip(("en-fr", "fr-en"), views, strict=True)},
        "agreement_on_dev": agreement,
        "aer": {kind: round(rate.aer, 4) for kind, rate in rates.items()},
        "precision": {kind: round(rate.precision, 4) for kind, rate in rates.items()},
        "recall": {kind: round(rate.recall, 4) for kind, rate in rates.items()},
    }
    write_file(output / "aer.json", json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    abouts = [ModelUnderTest(one, {}).about() for one in loaded]
    hashes = [model_hash(one.manifest) for one in loaded]
    suffixes = [of_model(hash_) for hash_ in hashes]
    rows = [
        row(f"{name}{kind}", everything[kind], gold, suffix, about)
        for kind, suffix, about in zip(("en-fr", "fr-en"), suffixes, abouts, strict=True)
    ]
    rows.append(row(f"{name}both, {SYMMETRIZED}", both[SYMMETRIZED], gold, of_model(*hashes), {}))
    add_rows(results, rows)


def link(models: Sequence[Path], text: Path, alignments: Path, output: Path) -> None:
    """Links of a training text, of both directions together: train.en-fr, and turned round train.fr-en.

    They are read from the views that `align` chose and wrote into its aer.json.
    """
    from nmt.alignment import Aligner, View, pharaoh
    from nmt.checkpoint import load_model
    from nmt.device import choose_device
    from nmt.text_alignment import choose, look, symmetric

    chosen = json.loads((alignments / "aer.json").read_text(encoding="utf-8"))["views"]
    pairs = list(read_parallel(text, "en", "fr"))
    turned = [(target, source) for source, target in pairs]
    found = []
    for model, direction, lines in zip(models, ("en-fr", "fr-en"), (pairs, turned), strict=True):
        aligner = Aligner(load_model(model, choose_device("auto")), "punctuation")
        found.append(choose(look(aligner, lines, [View(**chosen[direction])]), gold=None))
        print(f"{direction}: {len(lines):,} lines aligned", file=sys.stderr)
    links = symmetric(found[0], found[1], SYMMETRIZED, None).links
    write_file(output / "train.en-fr", "".join(f"{pharaoh(one)}\n" for one in links))
    back = ([(j, i) for i, j in one] for one in links)
    write_file(output / "train.fr-en", "".join(f"{pharaoh(one)}\n" for one in back))


def row(system: str, found: Sequence[Any], gold: Sequence[Any], suffix: str, about: dict[str, Any]) -> Any:
    """A row of results, with an interval by resampled sentences."""
    import numpy as np

    from nmt.gold import agreement_of
    from nmt.results import Row

    counts = [agreement_of([links], [right]).counts for links, right in zip(found, gold, strict=True)]

    def rates(sums: Any) -> Any:
        return 1 - (sums[:, 2] + sums[:, 3]) / np.maximum(sums[:, 0] + sums[:, 1], 1)

    mean, half = resampling.interval(resampling.resampled(counts, rates))
    return Row(
        system=system,
        test_set="hansard.gold",
        metric="AER",
        score=round(agreement_of(found, gold).aer, 4),
        confidence_low=round(mean - half, 4),
        confidence_high=round(mean + half, 4),
        signature=f"words:gold|view:chosen without gold|nmt:{__version__}|{resampling.signature()}{suffix}",
        lines=len(gold),
        **about,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("check", help="the doctor, with the rules of a configuration")
    command.add_argument("config", type=Path)
    command.add_argument("--corpus", type=Path, required=True)
    command.add_argument("--output", type=Path, required=True)
    command.set_defaults(run=lambda a: check(a.config, a.corpus, a.output))
    command = commands.add_parser("align", help="AER of two models")
    command.add_argument("models", type=Path, nargs=2, metavar="EN-FR FR-EN")
    command.add_argument(
        "--dev", type=Path, required=True, help="prefix of the text that views are chosen on"
    )
    command.add_argument("--alignments", type=Path, required=True, help="folder of hansard.en, .fr and .gold")
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--results", type=Path, required=True)
    command.add_argument("--name", default="", help="begins the names of the systems")
    command.set_defaults(run=lambda a: align(a.models, a.dev, a.alignments, a.output, a.results, a.name))
    command = commands.add_parser("link", help="links of a training text, for guided alignment")
    command.add_argument("models", type=Path, nargs=2, metavar="EN-FR FR-EN")
    command.add_argument("--text", type=Path, required=True, help="prefix of the training text")
    command.add_argument("--alignments", type=Path, required=True, help="what `align` wrote")
    command.add_argument("--output", type=Path, required=True)
    command.set_defaults(run=lambda a: link(a.models, a.text, a.alignments, a.output))
    arguments = parser.parse_args()
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
    except UserError as error:
        print(f"hansard: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
