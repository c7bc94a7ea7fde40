"""Moses's tokeniser in Python (sacremoses), in several processes, and the splitting of compounds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from typing import Any

from nmt.errors import UserError, install

CHUNK_LINES = 500
FEW_LINES = 2000  # for which no processes are started

# As tensor2tensor's get_ende_bleu.sh: "rich-text" is "rich ##AT##-##AT## text"; of "a-b-c" the first hyphen.
_HYPHEN = re.compile(r"(\S)-(\S)")


def sacremoses() -> Any:
    """The module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import sacremoses
    except ImportError:
        raise UserError(
            f"the protocol needs sacremoses, which is not installed; {install('recipes')}"
        ) from None
    return sacremoses


def signature(language: str) -> str:
    return f"sacremoses-{sacremoses().__version__}-{language}"


def tokenise(lines: Iterable[str], language: str) -> Iterator[str]:
    """Tokens with blanks between them, a line for a line. Nothing is escaped (`&` stays `&`)."""
    return _in_processes(partial(_tokenise, language), lines)


def detokenise(lines: Iterable[str], language: str) -> Iterator[str]:
    """Text as people write it, a line for a line. ``&quot;`` and the like, which Moses writes, are undone."""
    return _in_processes(partial(_detokenise, language), lines)


def split_compounds(line: str) -> str:
    """Hyphens between other characters as tokens of their own."""
    return _HYPHEN.sub(r"\1 ##AT##-##AT## \2", line)


@cache
def _tokeniser(language: str) -> Any:
    return sacremoses().MosesTokenizer(lang=language)


@cache
def _detokeniser(language: str) -> Any:
    return sacremoses().MosesDetokenizer(lang=language)


def _tokenise(language: str, lines: list[str]) -> list[str]:
    made = (_tokeniser(language).tokenize(line, escape=False) for line in lines)
    return [" ".join(tokens) for tokens in made]


def _detokenise(language: str, lines: list[str]) -> list[str]:
    return [
        " ".join(_detokeniser(language).detokenize(line.split(), unescape=True).split()) for line in lines
    ]


def _in_processes(function: Callable[[list[str]], list[str]], lines: Iterable[str]) -> Iterator[str]:
    """In order, with few chunks in memory."""
    sacremoses()
    lines = iter(lines)
    first = list(islice(lines, FEW_LINES + 1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(first) <= FEW_LINES or cores == 1:
        for chunk in _chunks(first, lines):
            yield from function(chunk)
        return
    with ProcessPoolExecutor(cores) as pool:
        waiting = []
        for chunk in _chunks(first, lines):
            waiting.append(pool.submit(function, chunk))
            if len(waiting) > 4 * cores:
                yield from waiting.pop(0).result()
        for done in waiting:
            yield from done.result()


def _chunks(first: list[str], rest: Iterator[str]) -> Iterator[list[str]]:
    for start in range(0, len(first), CHUNK_LINES):
        yield first[start : start + CHUNK_LINES]
    while chunk := list(islice(rest, CHUNK_LINES)):
        yield chunk
