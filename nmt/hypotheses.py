"""Reading back what `nmt translate --format jsonl` writes: translations as the tokens that search chose.

To score them by a model their text would not do: search may choose other tokens for it than the tokenizer
does. To compare them with references it is `first_texts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nmt.data.tokenizer import BOS, EOS, PAD, Tokenizer
from nmt.errors import UserError

_REMEDY = "give what `nmt translate --format jsonl` writes"


@dataclass(frozen=True)
class Chosen:
    """One translation of a line as the token ids that were chosen for it."""

    ids: Sequence[int]  # without beginning and end of sentence
    # Source and target tokens of each part, where the line was translated in several.
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Record:
    """The translations of one line, best first."""

    translations: tuple[Chosen, ...]
    source: str | None  # what was translated, where the record says it


def is_record(line: str) -> bool:
    """Whether a line has the form of such a file's lines."""
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line).get("translations"), list)
    except (ValueError, RecursionError):
        return False


def first_texts(lines: Iterable[str], *, file: str) -> list[str]:
    """The text of the best translation of each line of such a file.

    Raises:
        UserError: a line is not such a record, or its number is another.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        refuse = _Refusal(file, number)
        translations, _ = _parse(line, number, refuse)
        text = translations[0].get("text") if isinstance(translations[0], dict) else None
        if not isinstance(text, str):
            refuse(f'the first translation has no "text"; {_REMEDY}')
        found.append(text)
    return found


def read_record(text: str, number: int, tokenizer: Tokenizer, *, file: str) -> Record:
    """Read one line of such a file.

    Args:
        number: which line it is, from 1; the record must bear it.
        tokenizer: of the target, to which the tokens belong.

    Raises:
        UserError: it is not such a record, its number is another, or the vocabulary has no such token.
    """

    refuse = _Refusal(file, number)
    translations, source = _parse(text, number, refuse)
    return Record(tuple(_chosen(translation, tokenizer, refuse) for translation in translations), source)


class _Refusal:
    """Refuses a line of a file."""

    def __init__(self, file: str, line: int):
        self._file, self._line = file, line

    def __call__(self, what: str) -> NoReturn:
        raise UserError(what, file=self._file, line=self._line)


def _parse(text: str, number: int, refuse: _Refusal) -> tuple[list[Any], str | None]:
    """The translations of a record, one at least, and its source."""
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        refuse(f"this is not a JSON record; {_REMEDY}, or name a file of plain text otherwise than .jsonl")
    if not isinstance(record, dict):
        refuse(f"the record is not a JSON object; {_REMEDY}")
    line, source = record.get("line", number), record.get("source")
    if type(line) is not int or line != number:
        refuse(
            f'the record says "line": {json.dumps(line):.40} where {number} is due; sort or complete the file'
        )
    translations = record.get("translations")
    if not (isinstance(translations, list) and translations):
        refuse(f'the record has no list of "translations"; {_REMEDY}')
    return translations, source if isinstance(source, str) else None


def _chosen(translation: Any, tokenizer: Tokenizer, refuse: _Refusal) -> Chosen:
    tokens = translation.get("tokens") if isinstance(translation, dict) else None
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        refuse('a translation has no list of "tokens"; give what `nmt translate --format jsonl` writes')
    ids = [tokenizer.id_by_piece.get(token, PAD) for token in tokens]
    for token, token_id in zip(tokens, ids, strict=True):
        if token_id in (PAD, BOS, EOS):
            what = (
                "is no part of a translation"
                if token in tokenizer.id_by_piece
                else "is not in its vocabulary"
            )
            refuse(f"the token {token!r:.60} {what}; score with a model that has the same target tokenizer")
    parts = translation.get("parts", [])
    if not (isinstance(parts, list) and all(map(_is_pair, parts))):
        refuse(
            '"parts" is not a list of pairs of token counts, source and target; leave it as it was written'
        )
    counted = sum(target for _, target in parts)
    if parts and counted != len(ids):
        refuse(f'"parts" counts {counted} tokens, and there are {len(ids)}; leave it as it was written')
    return Chosen(ids, tuple((source, target) for source, target in parts))


def _is_pair(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and all(type(count) is int and count >= 0 for count in part)
        and part[0] > 0
    )
