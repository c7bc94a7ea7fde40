"""Beam search over the tables of `test_search`, with every option, and what enumeration says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from test_search import BEGIN, END, Table, TableState, enumerate_all
from torch import Tensor

from nmt.beam import Beam, beam_search
from nmt.constraints import Constraints, Demand
from nmt.coverage import coverage_penalty
from nmt.patterns import Surfaces
from nmt.search import Hypothesis, Sentence, length_penalty

SOURCE = 4  # length of the sources of `Attention`


def surfaces(vocabulary: int) -> Surfaces:
    """Each token a letter of its own: A is token 0."""
    usable_V = np.ones(vocabulary, dtype=bool)
    usable_V[[BEGIN, END]] = False
    return Surfaces([bytes([65 + token]) for token in range(vocabulary)], usable_V)


def text(tokens: tuple[int, ...]) -> str:
    return "".join(chr(65 + token) for token in tokens)


class Attention:
    """Weights over the source for each (sentence, number of the prefix): of a step function, and by hand."""

    def __init__(self, table: Table, seed: int, beta: float):
        shape = (*table.log_probs_BPV.shape[:2], SOURCE)
        random = np.random.default_rng([seed, 3])
        self.weights_BPS = torch.from_numpy(random.standard_normal(shape) * 2).softmax(dim=-1)
        self.length_B = torch.from_numpy(random.integers(1, SOURCE + 1, size=shape[0]))
        self.table, self.beta = table, beta
        self.bonus_BK = torch.zeros(0)

    def mask(self, sentence_B: Tensor) -> Tensor:
        return torch.arange(SOURCE) < self.length_B[sentence_B][:, None]

    def step(self, token_BK: Tensor, state: Any, live_N: Tensor | None) -> Any:
        inner, attended_BKS = state.inner, state.attended_BKS
        scores, inner = self.table.step(token_BK, inner, live_N)
        prefix_BK = inner.prefix_BK.clamp(max=self.weights_BPS.size(1) - 1)  # what does not live has any
        attended_BKS = attended_BKS + self.weights_BPS[inner.sentence_B[:, None], prefix_BK]
        self.bonus_BK = self.beta * coverage_penalty(attended_BKS, self.mask(inner.sentence_B))
        return scores, Covered(inner, attended_BKS)

    def of(self, sentence: int, tokens: tuple[int, ...]) -> float:
        """The bonus of a whole translation."""
        number, numbers = 0, [0]
        for token in tokens:
            number = number * self.table.vocabulary + token + 1
            numbers.append(number)
        total_S = self.weights_BPS[sentence, numbers].sum(dim=0)[: int(self.length_B[sentence])]
        return self.beta * sum(math.log(min(max(p, 1e-6), 1.0)) for p in total_S.tolist())


class Covered:
    def __init__(self, inner: TableState, attended_BKS: Tensor):
        self.inner, self.attended_BKS = inner, attended_BKS

    def select(self, beam_BK: Tensor) -> Covered:
        index = beam_BK[:, :, None].expand(-1, -1, SOURCE)
        return Covered(self.inner.select(beam_BK), self.attended_BKS.gather(1, index))

    def keep(self, sentences_B: Tensor) -> Covered:
        return Covered(self.inner.keep(sentences_B), self.attended_BKS[sentences_B])

    def put(self, sentences_R: Tensor, other: Covered) -> Covered:
        attended_BKS = self.attended_BKS.index_copy(0, sentences_R, other.attended_BKS)
        return Covered(self.inner.put(sentences_R, other.inner), attended_BKS)


def find(
    table: Table,
    sentences: list[int],
    limits: list[tuple[int, int]],
    *,
    demands: dict[int, Demand] | None = None,
    attention: Attention | None = None,
    room: int | None = None,
    beam_size: int,
    **options: Any,
) -> list[list[Hypothesis]]:
    """In the order of the sentences; `limits` are the least and the most tokens of each."""
    guide = None
    if demands is not None:
        guide = Constraints([demands.get(sentence) for sentence in sentences], END)

    def start(indices: list[int]) -> Any:
        inner = table.start([sentences[i] for i in indices])
        if attention is None:
            return inner
        return Covered(inner, torch.zeros(len(indices), 1, SOURCE, dtype=torch.float64))

    found: list[list[Hypothesis]] = [[] for _ in sentences]
    for index, hypotheses in beam_search(
        table.step if attention is None else attention.step,
        start,
        [Sentence(most, least) for least, most in limits],
        Beam(
            beam_size,
            end=END,
            forbidden=[BEGIN],
            guide=guide,
            bonus=None if attention is None else lambda: attention.bonus_BK,
            **options,
        ),
        begin=BEGIN,
        room=room,
    ):
        found[index] = hypotheses
    return found


def best_of_all(
    table: Table,
    sentence: int,
    limits: tuple[int, int],
    allowed: Callable[[tuple[int, ...]], bool],
    bonus: Callable[[tuple[int, ...]], float] = lambda tokens: 0.0,
    *,
    alpha: float = 0.0,
    normalization: str = "gnmt",
) -> list[tuple[tuple[int, ...], float, float]]:
    """Every translation that is allowed, with log-probability and score, best first."""
    least, most = limits
    rows = [
        (tokens, total, total / length_penalty(len(tokens) + 1, alpha, normalization) + bonus(tokens))
        for tokens, total in enumerate_all(table, sentence, most, {BEGIN}).items()
        if len(tokens) + 1 >= least and allowed(tokens)
    ]
    return sorted(rows, key=lambda row: -row[2])
