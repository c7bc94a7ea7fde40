"""Greedy and beam search: which extensions of the hypotheses live on.

B sentences, K hypotheses (or the k places of one group), N of them live, n in a piece, C candidates of each,
T target positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from nmt.repetition import ban_repeated
from nmt.search import (
    Advance,
    Hypothesis,
    Phrase,
    Ranked,
    Rows,
    Scores,
    Sentence,
    Start,
    StateT,
    Step,
    search,
)
from nmt.top_k import top_k

# What is added to the score of each hypothesis (B, K) if it ends now; never more than 0.
Bonus = Callable[[], Tensor]


class Guide(Protocol):
    """Keeps some sentences to what is asked of them: `nmt.constraints.Constraints`, which see."""

    extra: int

    def edit(self, rows: Rows, scores_nV: Tensor, flat_n: Tensor, spared_nV: Tensor | None) -> None:
        """Make what must not come -inf."""

    def further(self, flat_n: Tensor) -> Tensor:
        """`extra` more candidates of each hypothesis: (n, E) tokens."""

    def allocate(
        self, row: int, score_KC: Tensor, token_KC: Tensor, ending_K: Tensor, places: int
    ) -> tuple[list[tuple[float, int, int]], list[int]] | None:
        """Extensions (log-probability, hypothesis, token) and endings that take the places of a sentence."""

    def end_step(self) -> None:
        """All pieces of a step have been seen."""


@dataclass
class _Places:
    """The places of a group; as in `Rows`."""

    score_BK: Tensor
    finished_BK: Tensor
    log_prob_BK: Tensor
    tokens_BK: Tensor


@dataclass
class _Candidates:
    """Of each hypothesis of a group: extensions, log-probability and token, and what it has if it ends."""

    score_BKC: Tensor
    token_BKC: Tensor
    ending_BK: Tensor
    bonus_BK: Tensor | None


class Beam:
    """Beam search; with one place greedy search. A `nmt.search.Method`.

    A sentence has `beam_size` places. In each step the candidates, every unfinished hypothesis
    extended by every token, compete by log-probability for the places that finished hypotheses
    have left; a candidate that ends in `end` keeps its place for good. A sentence is done when no
    unfinished hypothesis is left, or none can still reach the n best: a log-probability only falls, and
    no penalty lifts it above what the greatest length would. Nothing depends on other sentences.

    In groups (Vijayakumar et al. 2018, "Diverse beam search") each has its share of the places and is a
    beam of its own. In a step one group after the other chooses, and a token costs `diversity` for each
    hypothesis of the groups before that has taken it in this step (Hamming diversity). That decides what
    lives; the log-probabilities of hypotheses remain the model's.
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
        no_repeat_ngram: int = 0,
        groups: int = 1,
        diversity: float = 0.0,
        guide: Guide | None = None,
        bonus: Bonus | None = None,
        device: torch.device | str = "cpu",
    ):
        """`alpha` and `normalization`: of `length_penalty`; `forbidden`: ids never generated.

        `no_repeat_ngram`: no so many tokens twice in a row in a hypothesis; 0: no matter.

        Places: finished hypotheses stand behind those that live, in each group.
        """
        if not 1 <= n_best <= beam_size:
            raise ValueError(f"n_best = {n_best} is not between 1 and beam_size = {beam_size}")
        if groups < 1 or beam_size % groups:
            raise ValueError(f"groups = {groups} does not divide beam_size = {beam_size}")
        if groups > 1 and guide is not None and guide.extra:
            raise ValueError("required phrases and groups do not go together")
        self.beam_size, self.n_best, self.end = beam_size, n_best, end
        self.alpha, self.normalization = alpha, normalization
        self.no_repeat_ngram, self.diversity = no_repeat_ngram, diversity
        self.guide, self.bonus = guide, bonus
        self.replayable = guide is None and bonus is None and not no_repeat_ngram
        self.unwanted = sorted({*forbidden, end})
        self.banned = torch.tensor(self.unwanted, device=device)
        self.size = beam_size // groups  # places of a group
        self.place_K = torch.arange(self.size, device=device)

    def first(self) -> Sequence[bool]:
        return [place % self.size == 0 for place in range(self.beam_size)]

    def advance(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> Tensor:
        best_NC, token_NC, end_N1 = self._candidates(rows, scores, live_N)
        score_BK, length_B1 = rows.score_BK, rows.length_B[:, None] + 1
        ending_BK = score_BK + _dense(end_N1, live_N, score_BK).squeeze(-1)
        ending_BK = ending_BK.masked_fill(length_B1 < rows.least_B[:, None], -math.inf)
        places = _Places(score_BK, rows.finished_BK, rows.log_prob_BK, rows.tokens_BK)
        candidates = _Candidates(
            score_BK[:, :, None] + _dense(best_NC, live_N, score_BK),
            _dense(token_NC, live_N, score_BK),
            ending_BK,
            None if self.bonus is None else self.bonus(),
        )
        if self.size == self.beam_size:
            places, source_BK, token_BK = self._choose(rows, places, candidates, None)
        else:
            places, source_BK, token_BK = self._choose_in_groups(rows, places, candidates)
        rows.score_BK, rows.finished_BK = places.score_BK, places.finished_BK
        rows.log_prob_BK, rows.tokens_BK = places.log_prob_BK, places.tokens_BK
        if self.guide is not None:
            self.guide.end_step()
        rows.extend(source_BK, token_BK)
        return source_BK

    def _choose_in_groups(
        self, rows: Rows, places: _Places, candidates: _Candidates
    ) -> tuple[_Places, Tensor, Tensor]:
        """As `_choose`, one group after the other."""
        chosen, sources, tokens = [], [], []
        taken_BK: Tensor | None = None
        for start in range(0, self.beam_size, self.size):
            group = slice(start, start + self.size)
            was_finished_BK = places.finished_BK[:, group] > -math.inf
            after, source_BK, token_BK = self._choose(
                rows, _cut(places, group), _cut(candidates, group), taken_BK
            )
            chosen.append(after)
            sources.append(source_BK + start)
            tokens.append(token_BK)
            ended_BK = (after.finished_BK > -math.inf) & ~was_finished_BK
            lives_BK = after.score_BK > -math.inf
            took_BK = torch.where(lives_BK, token_BK, torch.where(ended_BK, self.end, -1))  # -1: none
            taken_BK = took_BK if taken_BK is None else torch.cat((taken_BK, took_BK), dim=1)
        joined = _Places(*(torch.cat([getattr(p, f.name) for p in chosen], dim=1) for f in fields(_Places)))
        return joined, torch.cat(sources, dim=1), torch.cat(tokens, dim=1)

    def _choose(
        self, rows: Rows, places: _Places, candidates: _Candidates, taken_BK: Tensor | None
    ) -> tuple[_Places, Tensor, Tensor]:
        """What lives on in the places of a group, or is finished there, from which hypothesis and by which
        token; `taken_BK` are the tokens that other groups have taken."""
        length_B1 = rows.length_B[:, None] + 1
        is_last_B1 = length_B1 >= rows.most_B[:, None]
        is_finished_BK = places.finished_BK > -math.inf
        places_B1 = self.size - is_finished_BK.sum(dim=1, keepdim=True)
        extended_BK, beam_BK, token_BK, ends_BK = self._best(candidates, is_last_B1, places_B1, taken_BK)
        if self.guide is not None:
            self._allocate(rows, candidates, is_last_B1, places_B1, (extended_BK, beam_BK, token_BK, ends_BK))
        after_B1 = places_B1 - ends_BK.sum(dim=1, keepdim=True)

        # Where each place's hypothesis comes from: an extension, an ending one, or it was finished before.
        lives_BK, ended_BK = self.place_K < after_B1, self.place_K < places_B1
        ending_first_BK = ends_BK.int().argsort(dim=1, descending=True, stable=True)
        of_ending_BK = ending_first_BK.gather(1, (places_B1 - 1 - self.place_K).clamp_min_(0))
        source_BK = torch.where(
            lives_BK, beam_BK, torch.where(ended_BK, of_ending_BK, self.place_K.expand_as(beam_BK))
        )
        just_ended_BK = ended_BK & ~lives_BK
        log_prob_BK = candidates.ending_BK.gather(1, source_BK)
        ranked_BK = log_prob_BK / self._penalty(length_B1)
        if candidates.bonus_BK is not None:
            ranked_BK = ranked_BK + candidates.bonus_BK.gather(1, source_BK)
        finished_BK = torch.where(just_ended_BK, ranked_BK, places.finished_BK)
        # What cannot reach the n best even at the greatest length, where the penalty divides by the most.
        worst_kept_B1 = finished_BK.topk(min(self.n_best, self.size), dim=1).values[:, -1:]
        hopeless_BK = extended_BK / self._penalty(rows.most_B[:, None]) <= worst_kept_B1
        new = _Places(
            extended_BK.masked_fill(~lives_BK | hopeless_BK, -math.inf),
            finished_BK,
            torch.where(just_ended_BK, log_prob_BK, places.log_prob_BK),
            torch.where(just_ended_BK, length_B1 - 1, places.tokens_BK),
        )
        return new, source_BK, token_BK

    def _best(
        self, candidates: _Candidates, is_last_B1: Tensor, places_B1: Tensor, taken_BK: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best extensions, log-probability, hypothesis and token, and which hypotheses end."""
        ranked_BX, ending_BK = candidates.score_BKC.flatten(1), candidates.ending_BK
        if taken_BK is not None:
            token_BX = candidates.token_BKC.flatten(1)
            ranked_BX = ranked_BX - self.diversity * (token_BX[:, :, None] == taken_BK[:, None]).sum(dim=-1)
            ending_BK = ending_BK - self.diversity * (taken_BK == self.end).sum(dim=1, keepdim=True)
        ranked_BK, index_BK = ranked_BX.topk(self.size, dim=1)
        # A hypothesis at its last position can only end.
        ranked_BK = ranked_BK.masked_fill(is_last_B1, -math.inf)
        ends_BK = _wins_a_place(ending_BK, ranked_BK, places_B1)
        if taken_BK is not None:
            ranked_BK = candidates.score_BKC.flatten(1).gather(1, index_BK).masked_fill(is_last_B1, -math.inf)
        beam_BK = index_BK.div(candidates.score_BKC.size(2), rounding_mode="floor")
        return ranked_BK, beam_BK, candidates.token_BKC.flatten(1).gather(1, index_BK), ends_BK

    def _allocate(
        self,
        rows: Rows,
        candidates: _Candidates,
        is_last_B1: Tensor,
        places_B1: Tensor,
        best: tuple[Tensor, Tensor, Tensor, Tensor],
    ) -> None:
        """Let the guide deal out the places of its sentences; `best`, as `_best` has it, is written to."""
        assert self.guide is not None
        extended_BK, beam_BK, token_BK, ends_BK = best
        for row in rows.active if self.guide.extra else ():
            score_KC = candidates.score_BKC[row].masked_fill(is_last_B1[row], -math.inf)
            dealt = self.guide.allocate(
                row, score_KC, candidates.token_BKC[row], candidates.ending_BK[row], int(places_B1[row])
            )
            if dealt is None:
                continue
            extended, ending = dealt
            extended_BK[row], ends_BK[row] = -math.inf, False
            for place, (score, beam, token) in enumerate(extended):
                extended_BK[row, place], beam_BK[row, place], token_BK[row, place] = score, beam, token
            ends_BK[row, ending] = True

    def _penalty(self, length: Tensor) -> Tensor:
        """As `length_penalty`."""
        length = length.double()
        return (length if self.normalization == "average" else (5 + length) / 6) ** self.alpha

    def _candidates(self, rows: Rows, scores: Scores, live_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The best extensions of each hypothesis that lives, log-probability and token; that of ending.

        What is no number counts as -inf: compared with anything it would neither live nor be done.
        """
        edited = self.no_repeat_ngram or self.guide is not None
        if not edited and isinstance(scores, Ranked):
            return scores.best(self.beam_size, self.end, self.unwanted)
        best, tokens, ends = [], [], []
        done = 0
        for scores_nV, total_n1 in scores:
            piece = slice(done, done + len(scores_nV))
            done = piece.stop
            flat_n = _flat(live_N, piece, scores_nV.device) if edited else None
            if flat_n is not None:
                self._edit(rows, scores_nV, flat_n)
            ends.append(scores_nV[:, self.end, None] - total_n1)
            scores_nV.index_fill_(1, self.banned, -math.inf)
            best_nC, token_nC = top_k(scores_nV, min(self.beam_size, scores_nV.size(-1)))
            if flat_n is not None and self.guide is not None and self.guide.extra:
                further_nE = self.guide.further(flat_n)
                best_nC = torch.cat((best_nC, scores_nV.gather(1, further_nE)), dim=1)
                token_nC = torch.cat((token_nC, further_nE), dim=1)
            best.append(best_nC - total_n1)
            tokens.append(token_nC)
        return _number(torch.cat(best)), torch.cat(tokens), _number(torch.cat(ends))

    def _edit(self, rows: Rows, scores_nV: Tensor, flat_n: Tensor) -> None:
        """Make what must not come -inf."""
        spared_nV = None
        if self.no_repeat_ngram:
            spared_nV = None if self.guide is None else scores_nV.clone()
            ban_repeated(rows, scores_nV, flat_n, self.no_repeat_ngram)
        if self.guide is not None:
            self.guide.edit(rows, scores_nV, flat_n, spared_nV)


PlacesT = TypeVar("PlacesT", _Places, _Candidates)


def _cut(x: PlacesT, group: slice) -> PlacesT:
    """Of one group."""
    parts: list[Any] = [getattr(x, field.name) for field in fields(x)]
    cut: list[Any] = [None if part is None else part[:, group] for part in parts]
    return type(x)(*cut)


def beam_search(
    step: Step[StateT],
    start: Start[StateT],
    sentences: Sequence[Sentence],
    method: Beam,
    *,
    begin: int,
    room: Sequence[int] | int | None = None,
    device: torch.device | str = "cpu",
    replay: Advance[StateT] | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """`nmt.search.search`, with the n best hypotheses of each sentence, best first."""
    for index, found in search(
        step, start, sentences, method, begin=begin, room=room, device=device, replay=replay
    ):
        # Behind those that live, the earlier finished stand last: among equals they go first.
        found.reverse()
        best = sorted(found, key=lambda h: (-h.score, len(h.tokens)))
        if method.size < method.beam_size:  # groups may find the same
            seen: dict[Phrase, Hypothesis] = {}
            for hypothesis in best:
                seen.setdefault(hypothesis.tokens, hypothesis)
            best = list(seen.values())
        yield index, best[: method.n_best]


def _number(x: Tensor) -> Tensor:
    return x.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)


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
