"""Greedy and beam search over any step function; nothing here knows what a model is.

B sentences, K hypotheses, T target positions, V vocabulary. Log-probabilities, maximised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


class SearchState(Protocol):
    """Whatever the step function remembers."""

    def select(self, beam_BK: Tensor) -> Self:
        """Hypothesis k of the result continues hypothesis beam[b, k] of this state."""

    def keep(self, sentences_B: Tensor) -> Self:
        """The state of some of the sentences, by index."""


StateT = TypeVar("StateT", bound=SearchState)


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation of one sentence."""

    tokens: tuple[int, ...]  # without beginning and end of sentence
    log_probability: float  # of the tokens and the end of sentence
    score: float  # log_probability / length_penalty(tokens and end of sentence)


def length_penalty(length: int, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6) ^ alpha, |Y| with the end of sentence (Wu et al. 2016, eq. 14)."""
    return float(((5 + length) / 6) ** alpha)


def beam_search(
    step: Callable[[Tensor, StateT], tuple[Tensor, StateT]],
    state: StateT,
    max_lengths: Sequence[int],
    *,
    beam_size: int,
    begin: int,
    end: int,
    alpha: float = 0.0,
    n_best: int = 1,
    forbidden: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The best translations found for each sentence, best first.

    A sentence has `beam_size` places. In each step the candidates, every unfinished hypothesis
    extended by every token, compete by log-probability for the places that finished hypotheses
    have left; a candidate that ends in `end` keeps its place for good. A sentence is done when no
    unfinished hypothesis is left, or none can still reach the n best. Nothing depends on the other
    sentences of the batch. With one place this is greedy search.

    Args:
        step: from the last tokens (B, K) and a state to log-probabilities (B, K, V), which may be
            overwritten, and the next state. K is 1 in the first call, then `beam_size`.
        state: the state before the first token, with one hypothesis a sentence.
        max_lengths: for each sentence the most tokens of a hypothesis, `end` included: what is
            unfinished there is ended there.
        begin, end: ids of beginning and end of sentence.
        alpha: of the length penalty by which finished hypotheses are ranked; 0 is none.
        n_best: how many to return for a sentence; at most `beam_size`.
        forbidden: ids never generated.

    Returns:
        For each sentence 1 to n_best hypotheses.
    """
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"n_best = {n_best} is not between 1 and beam_size = {beam_size}")
    count = len(max_lengths)
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    if not count:
        return finished
    sentence_B = list(range(count))  # which sentence each row of the batch is
    most_B = torch.tensor(list(max_lengths), device=device)
    banned = torch.tensor([*forbidden, end], device=device)
    prefix_BKT = torch.empty((count, 1, 0), dtype=torch.long, device=device)
    token_BK = torch.full((count, 1), begin, device=device)
    score_BK = torch.zeros((count, 1), device=device)
    places_B = torch.full((count,), beam_size, device=device)

    for length in range(1, max(max_lengths) + 1):
        log_probs_BKV, state = step(token_BK, state)
        ending_BK = score_BK + log_probs_BKV[:, :, end]
        log_probs_BKV[:, :, banned] = -math.inf
        extended_BK, beam_BK, token_BK = _best_extensions(score_BK, log_probs_BKV, beam_size)
        # A hypothesis at its last position can only end.
        extended_BK = extended_BK.masked_fill((most_B <= length)[:, None], -math.inf)

        ends_BK = _wins_a_place(ending_BK, extended_BK, places_B)
        _collect(finished, sentence_B, prefix_BKT, ending_BK, ends_BK, length, alpha)
        places_B = places_B - ends_BK.sum(dim=1)
        place_K = torch.arange(beam_size, device=device)
        score_BK = extended_BK.masked_fill(place_K >= places_B[:, None], -math.inf)

        done = _done(finished, sentence_B, score_BK[:, 0], max_lengths, alpha, n_best)
        if all(done):
            break
        rows = beam_BK[:, :, None].expand(-1, -1, length - 1)
        prefix_BKT = torch.cat((prefix_BKT.gather(1, rows), token_BK[:, :, None]), dim=-1)
        state = state.select(beam_BK)
        # Leaving costs a copy of the state, so sentences leave in groups of an eighth of the batch.
        if sum(done) * 8 >= len(done):
            rows_B = torch.tensor([i for i, is_done in enumerate(done) if not is_done], device=device)
            sentence_B = [sentence_B[i] for i in rows_B.tolist()]
            state = state.keep(rows_B)
            most_B, places_B = most_B[rows_B], places_B[rows_B]
            prefix_BKT, token_BK, score_BK = prefix_BKT[rows_B], token_BK[rows_B], score_BK[rows_B]

    return [sorted(found, key=lambda h: -h.score)[:n_best] for found in finished]


def _best_extensions(
    score_BK: Tensor, log_probs_BKV: Tensor, beam_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best `beam_size` extensions of a sentence's hypotheses: score, hypothesis and token of each."""
    vocabulary = log_probs_BKV.size(-1)
    best_BKC, token_BKC = top_k(log_probs_BKV, min(beam_size, vocabulary))
    candidate_BX = (score_BK[:, :, None] + best_BKC).flatten(1)
    best = candidate_BX.topk(min(beam_size, candidate_BX.size(1)), dim=1)
    score, index = best.values, best.indices
    missing = beam_size - score.size(1)
    if missing:  # fewer candidates than places: fill up with dead ones
        score = torch.nn.functional.pad(score, (0, missing), value=-math.inf)
        index = torch.nn.functional.pad(index, (0, missing))
    beam = index.div(token_BKC.size(-1), rounding_mode="floor")
    return score, beam, token_BKC.flatten(1).gather(1, index)


def top_k(x: Tensor, k: int, block: int = 64) -> tuple[Tensor, Tensor]:
    """As ``x.topk(k)`` on the last axis, several times as fast on a CPU for k far below the size.

    The k largest elements lie in the k blocks with the largest maxima.
    """
    size = x.size(-1)
    if k * 8 >= size // block or x.is_cuda:
        best = x.topk(k, dim=-1)
        return best.values, best.indices
    whole = size // block * block
    blocks = x[..., :whole].reshape(*x.shape[:-1], whole // block, block)
    chosen = blocks.amax(dim=-1).topk(k, dim=-1).indices  # (..., k)
    inside = blocks.gather(-2, chosen[..., None].expand(*chosen.shape, block)).flatten(-2)
    position = (chosen[..., None] * block + torch.arange(block, device=x.device)).flatten(-2)
    if whole < size:
        inside = torch.cat((inside, x[..., whole:]), dim=-1)
        rest = torch.arange(whole, size, device=x.device).expand(*position.shape[:-1], -1)
        position = torch.cat((position, rest), dim=-1)
    best = inside.topk(k, dim=-1)
    return best.values, position.gather(-1, best.indices)


def _wins_a_place(ending_BK: Tensor, extended_BK: Tensor, places_B: Tensor) -> Tensor:
    """Which ending candidates are among the best `places` of all candidates of their sentence.

    Among equals an ending candidate goes first.
    """
    better_extended = (extended_BK[:, None, :] > ending_BK[:, :, None]).sum(dim=-1)
    better_ending = (ending_BK[:, None, :] > ending_BK[:, :, None]).sum(dim=-1)
    earlier_equal = (ending_BK[:, None, :] == ending_BK[:, :, None]).tril(-1).sum(dim=-1)
    rank_BK = better_extended + better_ending + earlier_equal
    return (rank_BK < places_B[:, None]) & (ending_BK > -math.inf)


def _collect(
    finished: list[list[Hypothesis]],
    sentence_B: list[int],
    prefix_BKT: Tensor,
    ending_BK: Tensor,
    ends_BK: Tensor,
    length: int,
    alpha: float,
) -> None:
    """Add the hypotheses that end in this step to their sentences."""
    penalty = length_penalty(length, alpha)
    for row, hypothesis in ends_BK.nonzero().tolist():
        log_probability = float(ending_BK[row, hypothesis])
        tokens = tuple(prefix_BKT[row, hypothesis].tolist())
        finished[sentence_B[row]].append(Hypothesis(tokens, log_probability, log_probability / penalty))


def _done(
    finished: list[list[Hypothesis]],
    sentence_B: list[int],
    best_unfinished_B: Tensor,
    max_lengths: Sequence[int],
    alpha: float,
    n_best: int,
) -> list[bool]:
    """Whether no unfinished hypothesis of a sentence can still be among its n best.

    A log-probability only falls, and the penalty divides it by the most at the greatest length: that
    bounds what an unfinished hypothesis can score.
    """
    done = []
    for sentence, best in zip(sentence_B, best_unfinished_B.tolist(), strict=True):
        found = finished[sentence]
        if best == -math.inf:
            done.append(True)
        elif len(found) < n_best:
            done.append(False)
        else:
            worst_kept = sorted((h.score for h in found), reverse=True)[n_best - 1]
            done.append(worst_kept >= best / length_penalty(max_lengths[sentence], alpha))
    return done
