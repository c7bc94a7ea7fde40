"""Word links of a training text, and the links of tokens that attention is to learn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nmt.data.spans import split_words, token_spans, tokens_of, word_spans
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError

Links = list[tuple[int, int]]  # (source word, target word), both from 0

FILES = ("train.links.tokens", "train.links.offsets")
_LINK = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)


def find_links(path: str | Path) -> Path:
    """The file, else the file with ``.gz``; UserError where there is neither."""
    for candidate in (Path(path), Path(f"{path}.gz")):
        if candidate.is_file():
            return candidate
    raise UserError("no such file of word links; `nmt align` writes one", file=path)


def parse_links(
    line: str, source: str, target: str, *, words: str, file: str | Path = "", number: int = 0
) -> Links:
    """The links of a line, "0-0 1-2", without repetitions.

    Args:
        words: of `nmt.data.spans.SEGMENTATIONS`.
        file, number: what errors name.

    Raises:
        UserError: it holds something else, or a word that its sentence does not have.
    """
    found: dict[tuple[int, int], None] = {}
    for text in line.split():
        match = _LINK.fullmatch(text)
        if match is None:
            raise UserError(
                f"{text[:40]!r} is no link; write source-target, counted from 0, as in 3-4",
                file=file,
                line=number,
            )
        found[int(match[1]), int(match[2])] = None
    if found:
        counts = len(split_words(source, words)), len(split_words(target, words))
        for i, j in found:
            if i >= counts[0] or j >= counts[1]:
                raise UserError(
                    f"link {i}-{j} is outside {counts[0]} source and {counts[1]} target words counted from "
                    "0; give the links of this text, or set data.alignment_words",
                    file=file,
                    line=number,
                )
    return list(found)


class TokenLinks:
    """Links of words as links of tokens: each token of the one word with each of the other."""

    def __init__(self, source: Tokenizer, target: Tokenizer, words: str):
        """`words` is of `nmt.data.spans.SEGMENTATIONS`."""
        self._tokenizers = source, target
        self._words = words

    def __call__(
        self, links: Links, lines: tuple[str, str], ids: tuple[Sequence[int], Sequence[int]], first: int = 0
    ) -> list[int]:
        """Source token, target token, source token, ..., in the order of the target, then of the source.

        Args:
            ids: of both lines, without what is not text.
            first: how many tokens stand before the source ids.
        """
        if not links:
            return []
        source, target = (
            tokens_of(token_spans(line, side, tokenizer), word_spans(line, self._words))
            for line, side, tokenizer in zip(lines, ids, self._tokenizers, strict=True)
        )
        found = sorted({(t, s + first) for i, j in links for t in target[j] for s in source[i]})
        return [number for t, s in found for number in (s, t)]
