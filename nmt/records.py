"""What is written of each line's translation: the text, or a JSON object with all that is known of it.

S and T source and target tokens, the end of sentence not counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.alignment import View, default_view, end_is_mark, links, merge, pharaoh
from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import EOS
from nmt.forced import Ids, Weights, attention, require_attention
from nmt.translations import Candidate, Translation
from nmt.words import deciding_tokens, shares, split_words, token_spans, word_spans


@dataclass(frozen=True)
class Records:
    """Makes records, each one line without its newline.

    Attention and alignment are those of `loaded`, the first model of an ensemble, over the tokens it
    translated from and into. A line that was translated in parts has null for both: no part has seen the
    others.

    Args:
        json_lines: else the text alone.
        alignment: add the word links that attention gives, as `nmt align` reads them off.
        attention: add the attention of each target token, the mean of layers and heads.

    Raises:
        UserError: the model has no attention.
    """

    loaded: LoadedModel
    json_lines: bool = False
    alignment: bool = False
    attention: bool = False

    def __post_init__(self) -> None:
        if self.alignment or self.attention:
            require_attention(self.loaded)

    def write(self, first: int, lines: Sequence[str], translations: Sequence[Translation]) -> list[str]:
        """A record for each line; `first` is the number of the first, from 1."""
        if not self.json_lines:
            return [translation.text for translation in translations]
        sources = self._sources(lines)
        seen = self._see(lines, sources, translations)
        records = []
        for place, (line, translation) in enumerate(zip(lines, translations, strict=True)):
            record: dict[str, Any] = {"line": first + place, "source": line}
            if self.attention:
                record["source_tokens"] = self.loaded.source_tokenizer.pieces([*sources[place], EOS])
            record["translations"] = [
                _candidate(candidate) | seen.get((place, rank), {})
                for rank, candidate in enumerate(translation.candidates)
            ]
            records.append(json.dumps(record, ensure_ascii=False))
        return records

    def _sources(self, lines: Sequence[str]) -> list[list[int]]:
        if not (self.alignment or self.attention):
            return []
        return self.loaded.source_tokenizer.encode_all(lines)

    def _see(
        self, lines: Sequence[str], sources: Sequence[Ids], translations: Sequence[Translation]
    ) -> dict[tuple[int, int], dict[str, Any]]:
        """What attention adds to each candidate, by line and rank."""
        if not sources:
            return {}
        result: dict[tuple[int, int], dict[str, Any]] = {}
        whole = []
        for place, translation in enumerate(translations):
            for rank, candidate in enumerate(translation.candidates):
                blank = not candidate.lengths
                result[place, rank] = self._keys("" if blank else None, [] if blank else None)
                if len(candidate.lengths) == 1:
                    whole.append((place, rank, candidate))
        id_of = self.loaded.target_tokenizer.id_of
        targets = [[id_of(piece) for piece in candidate.tokens] for _, _, candidate in whole]
        for index, weights_LHTS in attention(self.loaded, [sources[i] for i, _, _ in whole], targets):
            place, rank, candidate = whole[index]
            result[place, rank] = self._keys(
                self._links(weights_LHTS, (lines[place], candidate.text), (sources[place], targets[index]))
                if self.alignment
                else None,
                np.round(View().of(weights_LHTS)[:-1].astype(float), 4).tolist() if self.attention else None,
            )
        return result

    def _keys(self, alignment: str | None, rows: list[list[float]] | None) -> dict[str, Any]:
        keys: dict[str, Any] = {"alignment": alignment} if self.alignment else {}
        return keys | {"attention": rows} if self.attention else keys

    def _links(self, weights_LHTS: Weights, texts: tuple[str, str], ids: tuple[Ids, Ids]) -> str | None:
        """None where the words of the text cannot be traced to tokens: an unknown word was replaced by
        several, or bytes spell no character."""
        source, target = texts
        tokens = token_spans(target, ids[1], self.loaded.target_tokenizer)
        # The first token may begin with the blank put before a line, at -1; else the spans fill the text.
        fills = len(tokens) == len(ids[1]) and (not tokens or tokens[0][0] in (-1, 0))
        if not fills:
            return None
        words = merge(
            weights_LHTS,
            shares(token_spans(source, ids[0], self.loaded.source_tokenizer), word_spans(source)),
            deciding_tokens(target, "blank", tokens),
            end_is_mark(split_words(source), split_words(target)),
        )
        view = default_view(self.loaded)
        return pharaoh(links(view.of(words.words_LHIJ), view.of(words.end_LHI)))


def _candidate(candidate: Candidate) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": candidate.text,
        "score": candidate.score,
        "log_probability": candidate.log_probability,
        "tokens": candidate.tokens,
    }
    if candidate.utility is not None:
        found["utility"] = candidate.utility
    if len(candidate.lengths) > 1:
        found["parts"] = candidate.lengths
    return found
