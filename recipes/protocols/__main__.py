"""`python -m protocols text|join|score`: text and scores as papers had them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nmt.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"protocols: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="protocols", description=__doc__)
    commands = parser.add_subparsers(required=True)

    text = commands.add_parser("text", help="pairs as Moses tokens")
    text.add_argument("prefixes", nargs="+", metavar="PREFIX")
    text.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    text.add_argument("--output", type=Path, required=True, help="prefix; NAME.gz for gzipped files")
    text.add_argument("--lowercase", action="store_true")
    text.add_argument("--straight", action="store_true", help="make typographic apostrophes straight")
    text.add_argument("--most", type=int, default=0, help="tokens of a side; pairs with more are left out")
    text.add_argument("--ratio", type=float, default=0.0, help="most tokens of a side for one of the other")
    text.add_argument("--every", type=int, default=0, help="each so many-th pair goes to --held-out")
    text.add_argument("--held-out", type=Path)
    text.set_defaults(run=_text)

    join = commands.add_parser("join", help="texts of one language as one")
    join.add_argument("prefixes", nargs="+", metavar="PREFIX")
    join.add_argument("--language", required=True)
    join.add_argument("--output", type=Path, required=True)
    join.add_argument("--lowercase", action="store_true")
    join.set_defaults(run=_join)

    score = commands.add_parser("score", help="BLEU of tokens, into results.json")
    score.add_argument("model", type=Path, metavar="MODEL", help="that made the translation")
    score.add_argument("--system", required=True)
    score.add_argument("--test-set", required=True)
    score.add_argument("--hypothesis", type=Path, required=True)
    score.add_argument("--reference", type=Path, required=True)
    score.add_argument("--language", required=True, help="of the translation")
    score.add_argument("--given", action="store_true", help="both are tokens already")
    score.add_argument("--plain", type=Path, help="the reference as text, with --given")
    score.add_argument("--compounds", action="store_true", help="split at hyphens (##AT##-##AT##)")
    score.add_argument("--lowercase", action="store_true")
    score.add_argument("--results", type=Path, required=True)
    score.set_defaults(run=_score)
    return parser


def _text(options: argparse.Namespace) -> None:
    from .text import Cleaning, prepare

    cleaning = Cleaning(options.lowercase, options.straight, options.most, options.ratio)
    source, target = options.languages
    kept, seen = prepare(
        options.prefixes,
        (source, target),
        options.output,
        cleaning,
        every=options.every,
        held_out=options.held_out,
    )
    print(f"{options.output}: {kept:,} of {seen:,} pairs", file=sys.stderr)


def _join(options: argparse.Namespace) -> None:
    from .text import join

    count = join(options.prefixes, options.language, options.output, lowercase=options.lowercase)
    print(f"{options.output}: {count:,} lines", file=sys.stderr)


def _score(options: argparse.Namespace) -> None:
    from .score import Protocol, add

    protocol = Protocol(options.language, options.compounds, options.lowercase, options.given)
    rows = add(
        options.results,
        options.model,
        protocol,
        system=options.system,
        test_set=options.test_set,
        hypothesis=options.hypothesis,
        reference=options.reference,
        plain=options.plain,
    )
    for row in rows:
        print(f"{row.system} {row.test_set} {row.metric} {row.score:.2f}")


if __name__ == "__main__":
    sys.exit(main())
