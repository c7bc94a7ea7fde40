"""Text in, text out: one translation a line, in order, whatever the lines hold.

B sentences, S source length, K hypotheses, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from nmt.beam import Beam, beam_search
from nmt.checkpoint import LoadedModel
from nmt.config import SearchConfig
from nmt.data.batches import pad
from nmt.data.tokenizer import BOS, EOS, PAD, UNK, Tokenizer
from nmt.errors import UserError
from nmt.models.packed import packed
from nmt.parallel import in_threads
from nmt.search import Hypothesis, Scores, Sentence

# Lines translated together: enough to fill batches of equal lengths, few enough to keep memory flat.
CHUNK_LINES = 2000
# Fewer than these, and one search with all cores is as fast.
_SENTENCES_A_WORKER = 16
# Rows of scores at once on a CPU: 64 x 8,000 float32 are 2 MB.
_PIECE = 64
_SENTENCE_END = frozenset(".!?。！？…")


@dataclass(frozen=True)
class Candidate:
    """One translation of a line. Scores of a line that was split are the sums over its parts."""

    text: str
    score: float
    log_probability: float
    tokens: tuple[str, ...]
    lengths: tuple[tuple[int, int], ...] = ()  # source and target tokens of each part


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
        return [
            self._join(
                parts[span.start : span.stop], found[span.start : span.stop], texts[span.start : span.stop]
            )
            for span in parts_of
        ]

    def translate_ids(self, sources: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        """The n best hypotheses of each source (token ids without end of sentence)."""
        result: list[list[Hypothesis]] = [[] for _ in sources]
        # Longest first: if memory runs out it does so at once.
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        workers = self._workers(len(sources))

        def work(indices: list[int]) -> None:
            batch_tokens = self.search.batch_tokens // workers
            for place, hypotheses in self._search([sources[i] for i in indices], batch_tokens):
                result[indices[place]] = hypotheses

        if workers == 1:
            work(order)
        else:
            in_threads([partial(work, order[worker::workers]) for worker in range(workers)])
        return result

    def _workers(self, count: int) -> int:
        """Searches at once: one a core where there are sentences enough."""
        cores = torch.get_num_threads() if self.device.type == "cpu" else 1
        return max(1, min(cores, count // _SENTENCES_A_WORKER))

    def longest(self, source_tokens: int) -> int:
        """The most tokens of the translation of so many source tokens, end of sentence included."""
        most = int(self.search.max_length_factor * (source_tokens + 1)) + self.search.max_length_offset
        return most if self.most_target_tokens is None else min(most, self.most_target_tokens)

    @cached_property
    def fast_models(self) -> list[Any]:
        """The models as they are searched with."""
        return [packed(model) for model in self.models] if self.device.type == "cpu" else self.models

    @torch.inference_mode()
    def _search(
        self, sources: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[tuple[int, list[Hypothesis]]]:
        """The hypotheses of sources, longest first, with the index of each, as they are found."""
        beam = Beam(
            self.search.beam_size,
            end=EOS,
            alpha=self.search.length_penalty,
            n_best=self.n_best,
            forbidden=[PAD, BOS] if self.target_tokenizer.word_level else [PAD, BOS, UNK],
            device=self.device,
        )
        for index, found in beam_search(
            self._step,
            lambda indices: self._start([sources[i] for i in indices]),
            [Sentence(self.longest(len(source))) for source in sources],
            beam,
            begin=BOS,
            room=[batch_tokens // (len(source) + 1) for source in sources],
            device=self.device,
        ):
            if not found:
                raise UserError("the model gives no finite scores: its weights are damaged; train it again")
            yield index, found

    def _start(self, sources: Sequence[Sequence[int]]) -> Decoding:
        source_BS = torch.from_numpy(pad([[*source, EOS] for source in sources], PAD)).to(self.device)
        memories = tuple(model.encode(source_BS, source_BS != PAD) for model in self.fast_models)
        states = tuple(model.start(memory) for model, memory in zip(self.fast_models, memories, strict=True))
        return Decoding(memories, states)

    def _step(self, token_BK: Tensor, decoding: Decoding, live_N: Tensor | None) -> tuple[Scores, Decoding]:
        hidden, states = [], []
        for model, memory, state in zip(self.fast_models, decoding.memories, decoding.states, strict=True):
            hidden_ND, next_state = model.step(token_BK, memory, state, live_N)
            hidden.append(hidden_ND.flatten(0, -2))
            states.append(next_state)
        return self._scores(hidden), Decoding(decoding.memories, tuple(states))

    def _scores(self, hidden: list[Tensor]) -> Scores:
        """Of the vectors of each model that are to be projected, (N, D), in pieces."""
        size = _PIECE if self.device.type == "cpu" else len(hidden[0])
        for start in range(0, len(hidden[0]), size):
            piece = slice(start, start + size)
            scores = [
                model.project(hidden_ND[piece]).float()
                for model, hidden_ND in zip(self.fast_models, hidden, strict=True)
            ]
            totals = [log_total(scores_nV) for scores_nV in scores]
            if len(scores) == 1:
                yield scores[0], totals[0]
            else:
                log_probs = [s - t for s, t in zip(scores, totals, strict=True)]
                yield (
                    torch.stack(log_probs).logsumexp(dim=0),
                    torch.full_like(totals[0], math.log(len(scores))),
                )

    def _write(self, parts: Sequence[Part], found: Sequence[Sequence[Hypothesis]]) -> list[list[str]]:
        return [[self.target_tokenizer.decode(hypothesis.tokens) for hypothesis in part] for part in found]

    def _join(
        self,
        sources: Sequence[Part],
        parts: Sequence[Sequence[Hypothesis]],
        texts: Sequence[Sequence[str]],
    ) -> Translation:
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
                    tuple((len(s.ids), len(h.tokens)) for s, h in zip(sources, chosen, strict=True)),
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

    def put(self, sentences_R: Tensor, other: Decoding) -> Decoding:
        return Decoding(
            tuple(m.put(sentences_R, new) for m, new in zip(self.memories, other.memories, strict=True)),
            tuple(s.put(sentences_R, new) for s, new in zip(self.states, other.states, strict=True)),
        )


def log_total(scores_NV: Tensor) -> Tensor:
    """log sum exp of each row, (N, 1), in fewer passes than `torch.logsumexp` makes: the largest
    probability p = exp(largest - total)."""
    largest = scores_NV.amax(dim=-1, keepdim=True)
    return largest - scores_NV.softmax(dim=-1).amax(dim=-1, keepdim=True).log()


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
