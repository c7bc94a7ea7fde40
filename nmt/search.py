"""The loop that every search runs in: hypotheses grow token by token, sentences come and go.

What extends hypotheses, a beam (`nmt.beam`) or chance (`nmt.sampling`), is a `Method`; what scores them, a
model or several, is a step function. Nothing here knows what a model is.

B sentences in the batch, K hypotheses of each, N those of them that live, T target positions, V vocabulary.
Log-probabilities, maximised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

Device = torch.device | str
Phrase = tuple[int, ...]  # token ids

# Leaving and joining cost copies, so sentences do both in groups: of one in so many of the batch.
_LEAVE, _GROUP = 2, 4
# On a GPU, asking which sentences are done waits for it: once in so many steps.
_POLL = 8


class SearchState(Protocol):
    """Whatever the step function remembers of the sentences of a batch and of their hypotheses.

    A value: each method returns another. It may share storage with the one it came from, so only the
    latest may be used.
    """

    def select(self, beam_BK: Tensor) -> Self:
        """Hypothesis k of the result continues hypothesis beam[b, k] of this state."""

    def keep(self, sentences_B: Tensor) -> Self:
        """The state of some of the sentences, by index; one that comes again is a place for `put` to fill."""

    def put(self, sentences_R: Tensor, other: Self) -> Self:
        """With the sentences of `other`, in order, in the places of these; K is the same."""


StateT = TypeVar("StateT", bound=SearchState)

# Scores of the hypotheses that live, (n, V), and for each a number (n, 1): their log-probabilities are the
# scores less the number. In pieces whose n add up to N; a piece may be overwritten, and should be read before
# the next is asked for: on a CPU that keeps it in the cache.
Scores = Iterable[tuple[Tensor, Tensor]]


@runtime_checkable
class Ranked(Protocol):
    """`Scores` that can say which are the best and need not be written out for that."""

    def best(self, count: int, end: int, banned: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (N, count) of the best tokens that are not banned, largest first; these tokens;
        the log-probability of `end` (N, 1). What is no number counts as -inf."""


# From the last tokens (B, K), a state and the flat indices b * K + k of the N hypotheses that live (None:
# all) to their scores and the next state.
Step = Callable[[Tensor, StateT, Tensor | None], tuple[Scores, StateT]]
# The state of some sentences, by index, before the first token, with one hypothesis each.
Start = Callable[[list[int]], StateT]


@dataclass(frozen=True)
class Sentence:
    """What is asked of the translation of one sentence. Lengths are in tokens and count the end."""

    most: int  # what is unfinished there is ended there
    least: int = 1
    seed: int = 0  # of chance, where the method draws


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation of one sentence."""

    tokens: Phrase  # without beginning and end of sentence
    log_probability: float  # of the tokens and the end of sentence
    score: float  # by which hypotheses are ranked


def length_penalty(length: int, alpha: float, normalization: str = "gnmt") -> float:
    """By what the log-probability of |Y| = `length` tokens, the end of sentence counted, is divided.

    "gnmt": ((5 + |Y|) / 6) ^ alpha (Wu et al. 2016, eq. 14). "average": |Y| ^ alpha, with alpha = 1 the mean
    log-probability of a token. alpha = 0: none.
    """
    return float(length**alpha if normalization == "average" else ((5 + length) / 6) ** alpha)


TENSORS = (
    *("token_BK", "score_BK", "prefix_BKT", "length_B", "most_B", "least_B"),
    *("finished_BK", "log_prob_BK", "tokens_BK"),
)


@dataclass
class Rows:
    """The sentences in the batch and their hypotheses: what lives, and what is finished.

    A row whose sentence has been given out is free until another takes it.
    """

    sentence_B: list[int]  # which sentence; -1: free
    age_B: list[int]  # tokens of its hypotheses so far
    begin: int
    token_BK: Tensor  # the last token
    score_BK: Tensor  # log-probability of what lives; -inf: does not live
    prefix_BKT: Tensor  # tokens, of living and finished ones; T is a capacity
    length_B: Tensor  # age_B on the device
    most_B: Tensor
    least_B: Tensor
    finished_BK: Tensor  # score by which finished ones are ranked; -inf: not finished
    log_prob_BK: Tensor  # of finished ones
    tokens_BK: Tensor  # how many tokens a finished one has, its end not counted

    @classmethod
    def empty(cls, count: int, hypotheses: int, begin: int, device: Device) -> Rows:
        """Free rows. Sums of log-probabilities are float64: a long sentence has many."""
        integers = torch.zeros((count, hypotheses), dtype=torch.long, device=device)
        dead = torch.full((count, hypotheses), -math.inf, dtype=torch.float64, device=device)
        return cls(
            sentence_B=[-1] * count,
            age_B=[0] * count,
            begin=begin,
            token_BK=integers + begin,
            score_BK=dead,
            prefix_BKT=integers[:, :, None].expand(-1, -1, 16).clone(),
            length_B=integers[:, 0].clone(),
            most_B=integers[:, 0].clone(),
            least_B=integers[:, 0].clone(),
            finished_BK=dead.clone(),
            log_prob_BK=dead.clone(),
            tokens_BK=integers.clone(),
        )

    @property
    def active(self) -> list[int]:
        """Rows that are not free."""
        return [row for row, sentence in enumerate(self.sentence_B) if sentence >= 0]

    @property
    def longest(self) -> int:
        """Tokens of the longest hypotheses so far."""
        return max((self.age_B[row] for row in self.active), default=0)

    def put(self, rows: list[int], indices: list[int], sentences: list[Sentence], first_K: Tensor) -> None:
        """Begin sentences in these rows; the places that are True in `first_K` live."""
        device = self.score_BK.device
        rows_R = torch.tensor(rows, device=device)
        for row, index in zip(rows, indices, strict=True):
            self.sentence_B[row], self.age_B[row] = index, 0
        self.token_BK[rows_R] = self.begin
        self.score_BK[rows_R] = torch.zeros_like(self.score_BK[0]).masked_fill(~first_K, -math.inf)
        self.length_B[rows_R] = 0
        self.most_B[rows_R] = torch.tensor([sentence.most for sentence in sentences], device=device)
        self.least_B[rows_R] = torch.tensor([sentence.least for sentence in sentences], device=device)
        self.finished_BK[rows_R] = -math.inf
        self.log_prob_BK[rows_R] = -math.inf

    def keep(self, rows: list[int]) -> Rows:
        """Some of the rows; a row that comes again is free there."""
        rows_B = torch.tensor(rows, device=self.score_BK.device)
        seen: set[int] = set()
        sentence_B = []
        for row in rows:
            sentence_B.append(-1 if row in seen else self.sentence_B[row])
            seen.add(row)
        kept = Rows(
            sentence_B,
            [self.age_B[row] for row in rows],
            self.begin,
            *(getattr(self, name)[rows_B] for name in TENSORS),
        )
        kept._release([row for row, sentence in enumerate(sentence_B) if sentence < 0])
        return kept

    @property
    def room(self) -> int:
        """Tokens that all hypotheses can grow by before `prefix_BKT` is full."""
        return self.prefix_BKT.size(2) - self.longest

    def extend(self, source_BK: Tensor, token_BK: Tensor) -> None:
        """Hypothesis k becomes hypothesis source[b, k] with one more token."""
        if not self.room:
            self.prefix_BKT = F.pad(self.prefix_BKT, (0, self.longest))
        source_BKT = source_BK[:, :, None].expand_as(self.prefix_BKT)
        # Rows that are free may be longer than any that is not.
        place_B = self.length_B.clamp(max=self.prefix_BKT.size(2) - 1)
        place_BK1 = place_B[:, None, None].expand(-1, token_BK.size(1), -1)
        self.prefix_BKT = self.prefix_BKT.gather(1, source_BKT).scatter_(2, place_BK1, token_BK[:, :, None])
        self.token_BK = token_BK
        self.length_B += 1

    def grow_older(self) -> None:
        """All sentences are a token further."""
        for row in self.active:
            self.age_B[row] += 1

    def take_done(self) -> list[tuple[int, list[Hypothesis]]]:
        """The sentences with nothing that lives, and what they have finished; their rows are free then."""
        done_B = (self.score_BK == -math.inf).all(dim=1).tolist()
        rows = [row for row in self.active if done_B[row]]
        if not rows:
            return []
        rows_R = torch.tensor(rows, device=self.score_BK.device)
        prefix, counts = self.prefix_BKT[rows_R].tolist(), self.tokens_BK[rows_R].tolist()
        log_probs, scores = self.log_prob_BK[rows_R].tolist(), self.finished_BK[rows_R].tolist()
        taken = []
        for place, row in enumerate(rows):
            found = [
                Hypothesis(tuple(tokens[:count]), log_prob, score)
                for tokens, count, log_prob, score in zip(
                    prefix[place], counts[place], log_probs[place], scores[place], strict=True
                )
                if log_prob > -math.inf
            ]
            taken.append((self.sentence_B[row], found))
        self._release(rows)
        return taken

    def _release(self, rows: list[int]) -> None:
        for row in rows:
            self.sentence_B[row], self.age_B[row] = -1, 0
        if rows:
            rows_R = torch.tensor(rows, device=self.score_BK.device)
            self.score_BK[rows_R] = -math.inf
            self.length_B[rows_R] = 0


class Method(Protocol):
    """How hypotheses are extended."""

    replayable: bool  # what `advance` computes follows from tensors alone, without asking the device for any

    def first(self) -> Sequence[bool]:
        """Which of the K places live before the first token."""

    def advance(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> Tensor:
        """Extend what lives by one token, `Rows.extend`, and set what lives and what is finished then.

        Returns:
            Which hypothesis each place continues (B, K).
        """


def advance(step: Step[StateT], method: Method, rows: Rows, state: StateT, live_N: Tensor | None) -> StateT:
    """All sentences a token further: changes `rows`, but for their ages; returns the next state."""
    scores, state = step(rows.token_BK, state, live_N)
    return state.select(method.advance(rows, scores, live_N))


# `advance` of a given step function and method, of all hypotheses.
Advance = Callable[[Rows, StateT], StateT]


def search(
    step: Step[StateT],
    start: Start[StateT],
    sentences: Sequence[Sentence],
    method: Method,
    *,
    begin: int,
    room: Sequence[int] | int | None = None,
    device: Device = "cpu",
    replay: Advance[StateT] | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Search for the translations of sentences, some of them at a time.

    Sentences that are done leave and waiting ones take their place, so that the batch stays full until
    the last have begun. Nothing depends on which sentences are together.

    Args:
        step, start: see `Step` and `Start`.
        sentences: in the order in which they begin.
        method: how hypotheses are extended.
        begin: id of beginning of sentence.
        room: for each sentence how many may be in the batch when it joins; one number for all; None: all.
        replay: does what `advance` with `step` and `method` does, such as `nmt.replay.Replay`.

    Yields:
        The index of a sentence and its hypotheses, by the place that each had, as soon as it is done.
    """
    if room is None or isinstance(room, int):
        room = [room or len(sentences)] * len(sentences)
    batch = _Batch(start, list(sentences), list(room), method, begin, device)
    asks = torch.device(device).type == "cpu" and replay is None
    steps = 0
    while batch.refill():
        rows = batch.rows
        if replay is not None:
            batch.state = replay(rows, batch.state)
        else:
            live_N = (rows.score_BK.flatten() > -math.inf).nonzero().squeeze(1) if asks else None
            batch.state = advance(step, method, rows, batch.state, live_N)
        rows.grow_older()
        steps += 1
        if asks or steps % _POLL == 0:
            yield from rows.take_done()


class _Batch(Generic[StateT]):
    """Which sentences are in the batch, which wait."""

    def __init__(
        self,
        start: Start[StateT],
        sentences: list[Sentence],
        room: list[int],
        method: Method,
        begin: int,
        device: Device,
    ):
        self.start, self.sentences, self.room, self.begin, self.device = start, sentences, room, begin, device
        self.first_K = torch.tensor(list(method.first()), device=device)
        self.next = 0  # the first that waits
        self.rows = Rows.empty(0, len(self.first_K), begin, device)
        self.state: StateT

    def refill(self) -> bool:
        """Let sentences join where there is room, or close the gaps; False when all are done."""
        active, count = self.rows.active, len(self.rows.sentence_B)
        waiting = len(self.sentences) - self.next
        if not waiting:
            if active and (count - len(active)) * _LEAVE >= count:
                self._keep(active)
            return bool(active)
        room = max(1, self.room[self.next])
        joining = min(room - len(active), waiting)
        if not active:
            self.rows = Rows.empty(joining, len(self.first_K), self.begin, self.device)
            self._join(list(range(joining)))
        else:
            free = [row for row, sentence in enumerate(self.rows.sentence_B) if sentence < 0]
            if room >= 2 * count and joining > len(free):  # much shorter ones come: more rows
                self._keep(active + active[:1] * joining)
                free = list(range(len(active), len(active) + joining))
            if min(joining, len(free)) * _GROUP >= min(room, count):
                self._join(free[:joining])
        return True

    def _keep(self, rows: list[int]) -> None:
        self.rows = self.rows.keep(rows)
        self.state = self.state.keep(torch.tensor(rows, device=self.device))

    def _join(self, rows: list[int]) -> None:
        indices = list(range(self.next, self.next + len(rows)))
        self.next += len(rows)
        state = self.start(indices)
        beam_RK = torch.zeros((len(rows), len(self.first_K)), dtype=torch.long, device=self.device)
        state = state.select(beam_RK)
        if self.rows.active:
            state = self.state.put(torch.tensor(rows, device=self.device), state)
        self.state = state
        self.rows.put(rows, indices, [self.sentences[i] for i in indices], self.first_K)
