"""Text of one language, of several files, for back-translation: every sentence once, in their order.

Blank lines, and lines of `--without` (the target side of what is validated and tested on), are left out. With
`--tokenize LANGUAGE` a line becomes what the dataset's own script, scripts/task2-tokenize.sh, makes of it:
lower case, then Moses' normalize-punctuation.perl and tokenizer.perl of the version in that repository.
tests/test_recipe_multi30k.py compares: all lines of task 1 come out as the dataset has them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nmt.data.corpus import read_lines
from nmt.errors import UserError, install
from nmt.files import write_file

# Where sacremoses is newer than that version of Moses: there a right single quote is a quotation mark, unless
# it is between two letters of ASCII.
_QUOTE = re.compile("(?<![A-Za-z])’|’(?![A-Za-z])")


def tokenizer(language: str) -> Callable[[str], str]:
    """From a raw line to the dataset's lower-cased, normalised, tokenised one.

    Raises:
        UserError: sacremoses is not installed.
    """
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise UserError(f"tokenising as the dataset does needs sacremoses; {install('recipes')}") from None
    normalizer, moses = MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)

    def tokenize(line: str) -> str:
        # The newline is the character after a final quotation mark that one rule asks for: ." becomes ".
        text = normalizer.normalize(_QUOTE.sub('"', line.lower()) + "\n")
        found: str = moses.tokenize(text, return_str=True)
        return found

    return tokenize


def sentences(lines: Iterable[str], without: Iterable[str], change: Callable[[str], str]) -> Iterator[str]:
    """Each line once, changed, if anything is left of it and it is none of `without`."""
    seen = {" ".join(line.split()) for line in without} | {""}
    for line in lines:
        text = " ".join(change(line).split())
        if text not in seen:
            seen.add(text)
            yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--without", nargs="*", type=Path, default=[], help="lines that are left out")
    parser.add_argument("--tokenize", metavar="LANGUAGE", help="en, de or fr; --without is tokenised already")
    given = parser.parse_args()
    try:
        change = tokenizer(given.tokenize) if given.tokenize else str
        lines = [line for file in given.files for line in read_lines(file)]
        without = [line for file in given.without for line in read_lines(file)]
        found = list(sentences(lines, without, change))
        if not found:
            raise UserError("nothing is left of the monolingual text", file=given.files[0])
    except UserError as error:
        print(f"nmt: {error}", file=sys.stderr)
        sys.exit(2)
    write_file(given.output, "".join(f"{line}\n" for line in found))
    print(f"{given.output}: {len(found):,} sentences of {len(lines):,} lines", file=sys.stderr)


if __name__ == "__main__":
    main()
