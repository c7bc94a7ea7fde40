"""Greedy and beam search: which extensions of the hypotheses live on.

B sentences, K hypotheses (G groups of k), N of them live, C candidates of each, T target positions,
V vocabulary, X = B * G beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nmt.search import Hypothesis, Rows, Scores, Sentence, Start, StateT, Step, search
from nmt.top_k import top_k

# Changes scores (n, V) in place before the best are taken; of which hypotheses, say flat indices b * K + k.
Edit = Callable[[Rows, Tensor, Tensor], None]


class Beam:
    """Beam search; with one place greedy search. A `nmt.search.Method`.

    A sentence has `beam_size` places. In each step the candidates, every unfinished hypothesis
    extended by every token, compete by log-probability for the places that finished hypotheses
    have left; a candidate that ends in `end` keeps its place for good. A sentence is done when no
    unfinished hypothesis is left, or none can still reach the n best: a log-probability only falls, and
    no penalty lifts it above what the greatest length would. Nothing depends on other sentences.
    """

    def __init__(
        self,
        beam_size: int,
        *,
        end: int,
        alpha: float = 0.0,
        normalization: str = "gnmt",
        n_best: int = 1,
        forbidden: Sequence[int] = (),
        edit: Edit | None = None,
        device: torch.device | str = "cpu",
    ):
        """`alpha` and `normalization`: of `length_penalty`; `forbidden`: ids never generated.

        Places: finished hypotheses stand behind those that live.
        """
        if not 1 <= n_best <= beam_size:
            raise ValueError(f"n_best = {n_best} is not between 1 and beam_size = {beam_size}")
        self.beam_size, self.n_best, self.end = beam_size, n_best, end
        self.alpha, self.normalization = alpha, normalization
        self.edit = edit
        self.banned = torch.tensor([*forbidden, end], device=device)
        self.place_K = torch.arange(beam_size, device=device)

    def first(self) -> Sequence[bool]:
        return [place == 0 for place in range(self.beam_size)]

    def advance(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> Tensor:
        best_NC, token_NC, end_N1 = self._candidates(rows, scores, live_N)
        score_BK, length_B1 = rows.score_BK, rows.length_B[:, None] + 1
        ending_BK = score_BK + _dense(end_N1, live_N, score_BK).squeeze(-1)
        ending_BK = ending_BK.masked_fill(length_B1 < rows.least_B[:, None], -math.inf)
        extended_BK, beam_BK, token_BK = self._best_extensions(score_BK, best_NC, token_NC, live_N)
        # A hypothesis at its last position can only end.
        extended_BK = extended_BK.masked_fill(length_B1 >= rows.most_B[:, None], -math.inf)

        is_finished_BK = rows.finished_BK > -math.inf
        places_B1 = self.beam_size - is_finished_BK.sum(dim=1, keepdim=True)
        ends_BK = _wins_a_place(ending_BK, extended_BK, places_B1)
        after_B1 = places_B1 - ends_BK.sum(dim=1, keepdim=True)

        # Where each place's hypothesis comes from: an extension, an ending one, or it was finished before.
        lives_BK, ended_BK = self.place_K < after_B1, self.place_K < places_B1
        ending_first_BK = ends_BK.int().argsort(dim=1, descending=True, stable=True)
        of_ending_BK = ending_first_BK.gather(1, (places_B1 - 1 - self.place_K).clamp_min_(0))
        source_BK = torch.where(
            lives_BK, beam_BK, torch.where(ended_BK, of_ending_BK, self.place_K.expand_as(beam_BK))
        )
        just_ended_BK = ended_BK & ~lives_BK
        log_prob_BK = ending_BK.gather(1, source_BK)
        rows.log_prob_BK = torch.where(just_ended_BK, log_prob_BK, rows.log_prob_BK)
        rows.finished_BK = torch.where(
            just_ended_BK, log_prob_BK / self._penalty(length_B1), rows.finished_BK
        )
        rows.tokens_BK = torch.where(just_ended_BK, length_B1 - 1, rows.tokens_BK)
        # What cannot reach the n best even at the greatest length, where the penalty divides by the most.
        worst_kept_B1 = rows.finished_BK.topk(self.n_best, dim=1).values[:, -1:]
        hopeless_BK = extended_BK / self._penalty(rows.most_B[:, None]) <= worst_kept_B1
        rows.score_BK = extended_BK.masked_fill(~lives_BK | hopeless_BK, -math.inf)
        rows.extend(source_BK, token_BK)
        return source_BK

    def _penalty(self, length: Tensor) -> Tensor:
        """As `length_penalty`."""
        length = length.double()
        return (length if self.normalization == "average" else (5 + length) / 6) ** self.alpha

    def _candidates(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The best extensions of each hypothesis that lives, log-probability and token; that of ending."""
        best, tokens, ends = [], [], []
        done = 0
        for scores_nV, total_n1 in scores:
            piece = slice(done, done + len(scores_nV))
            done = piece.stop
            if self.edit is not None:
                self.edit(rows, scores_nV, _flat(live_N, piece, scores_nV.device))
            ends.append(scores_nV[:, self.end, None] - total_n1)
            scores_nV[:, self.banned] = -math.inf
            best_nC, token_nC = top_k(scores_nV, min(self.beam_size, scores_nV.size(-1)))
            best.append(best_nC - total_n1)
            tokens.append(token_nC)
        return torch.cat(best), torch.cat(tokens), torch.cat(ends)

    def _best_extensions(
        self, score_BK: Tensor, best_NC: Tensor, token_NC: Tensor, live_N: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best `beam_size` extensions of a sentence's hypotheses: log-probability, hypothesis, token."""
        candidate_BX = (score_BK[:, :, None] + _dense(best_NC, live_N, score_BK)).flatten(1)
        score, index = candidate_BX.topk(self.beam_size, dim=1)
        token_BX = _dense(token_NC, live_N, score_BK).flatten(1)
        beam = index.div(best_NC.size(1), rounding_mode="floor")
        return score, beam, token_BX.gather(1, index)


def beam_search(
    step: Step[StateT],
    start: Start[StateT],
    sentences: Sequence[Sentence],
    method: Beam,
    *,
    begin: int,
    room: Sequence[int] | int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """`nmt.search.search`, with the n best hypotheses of each sentence, best first."""
    for index, found in search(step, start, sentences, method, begin=begin, room=room, device=device):
        # Behind those that live, the earlier finished stand last: among equals they go first.
        found.reverse()
        yield index, sorted(found, key=lambda h: (-h.score, len(h.tokens)))[: method.n_best]


def _flat(live_N: Tensor | None, piece: slice, device: torch.device) -> Tensor:
    """Flat indices b * K + k of a piece of the hypotheses that live."""
    return torch.arange(piece.start, piece.stop, device=device) if live_N is None else live_N[piece]


def _dense(x_NC: Tensor, live_N: Tensor | None, like_BK: Tensor) -> Tensor:
    """(N, C) of those that live -> (B, K, C); the others get 0."""
    sentences, hypotheses = like_BK.shape
    if live_N is not None:
        x_NC = x_NC.new_zeros((sentences * hypotheses, x_NC.size(1))).index_copy_(0, live_N, x_NC)
    return x_NC.view(sentences, hypotheses, -1)


def _wins_a_place(ending_BK: Tensor, extended_BK: Tensor, places_B1: Tensor) -> Tensor:
    """Which ending candidates are among the best `places` of all candidates of their sentence.

    Among equals an ending candidate goes first.
    """
    better_extended = (extended_BK[:, None, :] > ending_BK[:, :, None]).sum(dim=-1)
    better_ending = (ending_BK[:, None, :] > ending_BK[:, :, None]).sum(dim=-1)
    earlier_equal = (ending_BK[:, None, :] == ending_BK[:, :, None]).tril(-1).sum(dim=-1)
    rank_BK = better_extended + better_ending + earlier_equal
    return (rank_BK < places_B1) & (ending_BK > -math.inf)
