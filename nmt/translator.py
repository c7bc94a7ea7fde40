"""Text in, text out: one translation a line, in order, whatever the lines hold.

B sentences, S source length, K hypotheses, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.data.batches import cut, pad
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from nmt.errors import UserError
from nmt.search import Hypothesis, beam_search

# Lines translated together: enough to fill batches of equal lengths, few enough to keep memory flat.
CHUNK_LINES = 2000
_SENTENCE_END = frozenset(".!?。！？…")


@dataclass(frozen=True)
class Candidate:
    """One translation of a line. Scores of a line that was split are the sums over its parts."""

    text: str
    score: float
    log_probability: float
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Translation:
    """The translations of one line, best first; a blank line has one, empty."""

    candidates: tuple[Candidate, ...]
    parts: int = 1  # more where the line was longer than the model can take

    @property
    def text(self) -> str:
        return self.candidates[0].text


@dataclass(frozen=True)
class Part:
    """What is translated at once: a line, or tokens `first` and following of a line that is too long."""

    line: str
    line_ids: Sequence[int]
    first: int
    ids: Sequence[int]


# From parts and the hypotheses of each to their texts.
Write = Callable[[Sequence[Part], Sequence[Sequence[Hypothesis]]], list[list[str]]]


class Translator:
    """A model and how to search with it."""

    def __init__(
        self,
        model: Any,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        search: SearchConfig,
        *,
        n_best: int = 1,
        ensemble: Sequence[Any] = (),
        write: Write | None = None,
    ):
        """`model` is an nmt.models.Model in evaluation mode, on its device.

        `ensemble` are further models with the same tokenizers; the mean of their probabilities decides.
        `write` makes text of hypotheses in place of the tokenizer.
        """
        self.models = [model, *ensemble]
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.search = search
        self.n_best = n_best
        self.write = write or self._write
        self.device = next(model.parameters()).device
        sources = [m.most_source_tokens for m in self.models if m.most_source_tokens is not None]
        targets = [m.most_target_tokens for m in self.models if m.most_target_tokens is not None]
        self.most_source_tokens = min([search.max_source_tokens, *(n - 1 for n in sources)])
        self.most_target_tokens = min(targets, default=None)  # end of sentence included

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        search: SearchConfig | None = None,
        *,
        n_best: int = 1,
        ensemble: Sequence[LoadedModel] = (),
        write: Write | None = None,
    ) -> Translator:
        """From model folders; UserError where an ensemble's models have different tokenizers."""
        for other in ensemble:
            pairs = zip(_tokenizers(loaded), _tokenizers(other), strict=True)
            if any(mine.model != theirs.model for mine, theirs in pairs):
                raise UserError(
                    f"has other vocabularies than {loaded.folder}; an ensemble needs models with the same "
                    "tokenizers",
                    file=other.folder,
                )
        return cls(
            loaded.model,
            loaded.source_tokenizer,
            loaded.target_tokenizer,
            search or loaded.config.search,
            n_best=n_best,
            ensemble=[other.model for other in ensemble],
            write=write,
        )

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """One translation for each line, in order. Lines are taken `CHUNK_LINES` at a time."""
        chunk: list[str] = []
        for line in lines:
            chunk.append(line)
            if len(chunk) == CHUNK_LINES:
                yield from self.translate_all(chunk)
                chunk = []
        yield from self.translate_all(chunk)

    def translate_all(self, lines: Sequence[str]) -> list[Translation]:
        """Translate lines together, in batches of similar length."""
        parts: list[Part] = []
        parts_of: list[range] = []
        encoded = self.source_tokenizer.encode_all(lines)
        for line, ids in zip(lines, encoded, strict=True):
            begin = len(parts)
            if line.strip() and ids:
                first = 0
                for part in split_long(ids, self.source_tokenizer, self.most_source_tokens):
                    parts.append(Part(line, ids, first, part))
                    first += len(part)
            parts_of.append(range(begin, len(parts)))
        found = self.translate_ids([part.ids for part in parts])
        texts = self.write(parts, found)
        return [self._join([found[i] for i in span], [texts[i] for i in span]) for span in parts_of]

    def translate_ids(self, sources: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        """The n best hypotheses of each source (token ids without end of sentence)."""
        result: list[list[Hypothesis]] = [[] for _ in sources]
        # Longest first: if memory runs out it does so at once.
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        lengths = np.array([len(sources[i]) + 1 for i in order])
        for start, end in cut(lengths, self.search.batch_tokens):
            batch = order[start:end]
            for index, hypotheses in zip(batch, self._search([sources[i] for i in batch]), strict=True):
                result[index] = hypotheses
        return result

    def longest(self, source_tokens: int) -> int:
        """The most tokens of the translation of so many source tokens, end of sentence included."""
        most = int(self.search.max_length_factor * (source_tokens + 1)) + self.search.max_length_offset
        return most if self.most_target_tokens is None else min(most, self.most_target_tokens)

    @torch.inference_mode()
    def _search(self, sources: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        source_BS = torch.from_numpy(pad([[*source, EOS] for source in sources], PAD)).to(self.device)
        memories = tuple(model.encode(source_BS, source_BS != PAD) for model in self.models)
        states = tuple(model.start(memory) for model, memory in zip(self.models, memories, strict=True))
        forbidden = [PAD, BOS] if self.target_tokenizer.word_level else [PAD, BOS, UNK]
        found = beam_search(
            self._step,
            Decoding(memories, states),
            [self.longest(len(source)) for source in sources],
            beam_size=self.search.beam_size,
            begin=BOS,
            end=EOS,
            alpha=self.search.length_penalty,
            n_best=self.n_best,
            forbidden=forbidden,
            device=self.device,
        )
        if not all(found):
            raise UserError("the model gives no finite scores: its weights are damaged; train it again")
        return found

    def _step(self, token_BK: Tensor, decoding: Decoding) -> tuple[Tensor, Decoding]:
        log_probs, states = [], []
        for model, memory, state in zip(self.models, decoding.memories, decoding.states, strict=True):
            hidden_BKD, next_state = model.step(token_BK, memory, state)
            log_probs.append(model.project(hidden_BKD).float().log_softmax(dim=-1))
            states.append(next_state)
        if len(log_probs) == 1:
            log_probs_BKV = log_probs[0]
        else:
            log_probs_BKV = torch.stack(log_probs).logsumexp(dim=0) - math.log(len(log_probs))
        return log_probs_BKV, Decoding(decoding.memories, tuple(states))

    def _write(self, parts: Sequence[Part], found: Sequence[Sequence[Hypothesis]]) -> list[list[str]]:
        return [[self.target_tokenizer.decode(hypothesis.tokens) for hypothesis in part] for part in found]

    def _join(self, parts: Sequence[Sequence[Hypothesis]], texts: Sequence[Sequence[str]]) -> Translation:
        """The line's translation from the hypotheses of its parts; the n-th best joins the n-th bests."""
        if not parts:
            return Translation((Candidate("", 0.0, 0.0, ()),))
        candidates = []
        for rank in range(max(map(len, parts))):
            ranks = [min(rank, len(part) - 1) for part in parts]
            chosen = [part[place] for part, place in zip(parts, ranks, strict=True)]
            candidates.append(
                Candidate(
                    _one_line(" ".join(text[place] for text, place in zip(texts, ranks, strict=True))),
                    sum(hypothesis.score for hypothesis in chosen),
                    sum(hypothesis.log_probability for hypothesis in chosen),
                    tuple(p for h in chosen for p in self.target_tokenizer.pieces(h.tokens)),
                )
            )
        return Translation(tuple(candidates), len(parts))


@dataclass(frozen=True)
class Decoding:
    """The state of search: what the decoder of each model reads and what it remembers."""

    memories: tuple[Any, ...]
    states: tuple[Any, ...]

    def select(self, beam_BK: Tensor) -> Decoding:
        return Decoding(self.memories, tuple(state.select(beam_BK) for state in self.states))

    def keep(self, sentences_B: Tensor) -> Decoding:
        return Decoding(
            tuple(memory.keep(sentences_B) for memory in self.memories),
            tuple(state.keep(sentences_B) for state in self.states),
        )


def split_long(ids: Sequence[int], tokenizer: Tokenizer, most: int) -> list[list[int]]:
    """Cut a sentence of more than `most` tokens into parts that fit.

    Each cut is in the second half of what fits: after the last sentence end there is, else before
    the last word, else anywhere. The parts together are the sentence.
    """
    parts = []
    rest = list(ids)
    while len(rest) > most:
        pieces = tokenizer.pieces(rest[: most + 1])
        # A cut at i begins the next part with token i.
        places = range(most, most // 2, -1)
        begins_word = [i for i in places if pieces[i].startswith("\u2581") or tokenizer.word_level]
        after_end = [i for i in begins_word if pieces[i - 1][-1:] in _SENTENCE_END]
        place = next(iter(after_end or begins_word), most)
        parts.append(rest[:place])
        rest = rest[place:]
    return [*parts, rest]


def _tokenizers(loaded: LoadedModel) -> tuple[Tokenizer, Tokenizer]:
    return loaded.source_tokenizer, loaded.target_tokenizer


def _one_line(text: str) -> str:
    """Text that a byte token could have broken into lines, as one."""
    return text.replace("\r", " ").replace("\n", " ")
