"""One step of search: what the models, one or several, make of the last tokens.

B sentences, K hypotheses, N of them live, n in a piece, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nmt import kernels
from nmt.coverage import Attended
from nmt.data.batches import pad
from nmt.data.tokenizer import EOS, PAD
from nmt.ensemble import Ids, Reader, mean_log_probability
from nmt.models.fixed_state import FixedState
from nmt.models.packed import output_matrix
from nmt.models.seam import Memory, SearchModel, State
from nmt.products import Matrix
from nmt.search import Scores

# Rows of scores at once on a CPU: 32 x 8,000 float32 are 1 MB, a core's cache.
_PIECE = 32


class Decoder:
    """Models that decode together, as `nmt.models.fast.for_search` makes them."""

    def __init__(
        self,
        models: Sequence[SearchModel],
        readers: Sequence[Reader],
        *,
        ensemble_by: str,
        device: torch.device,
    ):
        """`readers` say how each model reads the source; `ensemble_by` as `mean_log_probability` has it."""
        self.models, self.readers = models, readers
        self.ensemble_by, self.device = ensemble_by, device
        # Where one model's projection can rank tokens by itself.
        self.output_matrix = output_matrix(models[0]) if len(models) == 1 else None

    def start(
        self,
        sources: Sequence[Ids],
        lines: Sequence[str | None] | None = None,
        *,
        attending: bool = False,
        tagged: bool = False,
    ) -> Decoding:
        """The state before the first token; with `attending` for `attending_step`.

        Args:
            lines: the text of sources that are whole lines, for `readers`.
            tagged: readers put a tag before the source.
        """
        texts = lines or [None] * len(sources)
        memories, masks = [], []
        for model, reader in zip(self.models, self.readers, strict=True):
            ids = [[*reader(*source), EOS] for source in zip(sources, texts, strict=True)]
            source_BS = torch.from_numpy(pad(ids, PAD)).to(self.device)
            masks.append(source_BS != PAD)
            memories.append(model.encode(source_BS, masks[-1]))
        states = tuple(model.start(memory) for model, memory in zip(self.models, memories, strict=True))
        attended = Attended.nothing(masks[0], tagged=tagged) if attending else None
        return Decoding(tuple(memories), states, attended)

    def attending_step(
        self, see: Callable[[Attended], None], token_BK: Tensor, decoding: Decoding, live_N: Tensor | None
    ) -> tuple[Scores, Decoding]:
        """As `step`; `see` is told what has been attended to."""
        records: list[list[Tensor]] = [[] for _ in self.models]
        scores, after = self.step(token_BK, decoding, live_N, records)
        assert decoding.attended is not None
        attended = decoding.attended.add(records)
        see(attended)
        return scores, replace(after, attended=attended)

    def step(
        self,
        token_BK: Tensor,
        decoding: Decoding,
        live_N: Tensor | None,
        records: list[list[Tensor]] | None = None,
    ) -> tuple[Scores, Decoding]:
        """One token further: a `nmt.search.Step`. `records` get each model's attention over the source."""
        hidden, states = [], []
        for place, model in enumerate(self.models):
            record = None if records is None else records[place]
            hidden_ND, next_state = model.step(
                token_BK, decoding.memories[place], decoding.states[place], live_N, record
            )
            hidden.append(hidden_ND.flatten(0, -2))
            states.append(next_state)
        return self._scores(hidden), Decoding(decoding.memories, tuple(states))

    def _scores(self, hidden: list[Tensor]) -> Scores:
        """Of the vectors of each model that are to be projected, (N, D)."""
        matrix = self.output_matrix
        return self._pieces(hidden) if matrix is None else Projected(self._pieces(hidden), matrix, hidden[0])

    def _pieces(self, hidden: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        # Wider matrices are longer in coming, and pay for more rows.
        size = max(_PIECE, hidden[0].size(1) // 4) if self.device.type == "cpu" else len(hidden[0])
        for start in range(0, len(hidden[0]), size):
            piece = slice(start, start + size)
            scores = [
                model.project(hidden_ND[piece]).float()
                for model, hidden_ND in zip(self.models, hidden, strict=True)
            ]
            totals = [log_total(scores_nV) for scores_nV in scores]
            if len(scores) == 1:
                yield scores[0], totals[0]
            else:
                log_probs = [s - t for s, t in zip(scores, totals, strict=True)]
                yield mean_log_probability(log_probs, self.ensemble_by), torch.zeros_like(totals[0])


@dataclass(frozen=True)
class Projected:
    """Scores of one model, in pieces or ranked: a `nmt.search.Ranked`."""

    pieces: Iterator[tuple[Tensor, Tensor]]
    matrix: Matrix
    hidden_ND: Tensor

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.pieces

    def best(self, count: int, end: int, banned: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        return self.matrix.rank(self.hidden_ND.contiguous(), min(count, self.matrix.outputs), end, banned)


@dataclass(frozen=True)
class Decoding:
    """The state of search: what the decoder of each model reads and what it remembers."""

    memories: tuple[Memory, ...]
    states: tuple[State, ...]
    attended: Attended | None = None  # with a coverage penalty

    @property
    def room(self) -> int | None:
        """Steps for which tensors can stay where they are (`nmt.replay`); None: for ever."""
        return min((state.room for state in self.states if isinstance(state, FixedState)), default=None)

    def aged(self) -> Decoding:
        """After a replayed step."""
        aged = (state.aged() if isinstance(state, FixedState) else state for state in self.states)
        return replace(self, states=tuple(aged))

    def select(self, beam_BK: Tensor) -> Decoding:
        return Decoding(
            self.memories,
            tuple(state.select(beam_BK) for state in self.states),
            None if self.attended is None else self.attended.select(beam_BK),
        )

    def keep(self, sentences_B: Tensor) -> Decoding:
        return Decoding(
            tuple(memory.keep(sentences_B) for memory in self.memories),
            tuple(state.keep(sentences_B) for state in self.states),
            None if self.attended is None else self.attended.keep(sentences_B),
        )

    def put(self, sentences_R: Tensor, other: Decoding) -> Decoding:
        return Decoding(
            tuple(m.put(sentences_R, new) for m, new in zip(self.memories, other.memories, strict=True)),
            tuple(s.put(sentences_R, new) for s, new in zip(self.states, other.states, strict=True)),
            None
            if self.attended is None or other.attended is None
            else self.attended.put(sentences_R, other.attended),
        )


def log_total(scores_NV: Tensor) -> Tensor:
    """log sum exp of each row, (N, 1), in fewer passes than `torch.logsumexp` makes: the largest
    probability p = exp(largest - total)."""
    if kernels.usable(scores_NV):
        return kernels.log_total(scores_NV)
    largest = scores_NV.amax(dim=-1, keepdim=True)
    return largest - scores_NV.softmax(dim=-1).amax(dim=-1, keepdim=True).log()
