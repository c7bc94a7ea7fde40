"""Sentences begin where others are done, while the rest of the batch goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_search import BEGIN, END, Table, TableState
from torch import Tensor

from nmt.beam import Beam, beam_search
from nmt.search import Hypothesis, Sentence

LONGEST = 6
# Of a kind, so that a batch that waits for its longest waits long.
LENGTHS = [6, 2, 1, 2, 5, 1, 1, 2, 6, 1, 2, 3, 1, 4, 1, 2]


class Recorded:
    """A table whose sentences take as many steps as they may, and what the search asked of it."""

    def __init__(self) -> None:
        self.table = Table(9, len(LENGTHS), 4, LONGEST)
        self.table.log_probs_BPV[:, :, END] = -60.0  # any other token rather than the end
        self.sizes: list[int] = []  # sentences in the batch, a step each
        self.ages: list[set[int]] = []  # tokens that they had
        self.began: list[tuple[int, int]] = []  # step, sentence

    def start(self, indices: list[int]) -> TableState:
        self.began += [(self.table.calls, index) for index in indices]
        return self.table.start(indices)

    def step(self, token_BK: Tensor, state: TableState, live_N: Tensor | None) -> Any:
        assert live_N is not None
        rows = (live_N // token_BK.size(1)).unique()
        self.sizes.append(len(rows))
        self.ages.append(set(state.length_B[rows].tolist()))
        return self.table.step(token_BK, state, live_N)

    def search(self, room: int, sentences: list[int] | None = None) -> dict[int, list[Hypothesis]]:
        chosen = list(range(len(LENGTHS))) if sentences is None else sentences
        found = beam_search(
            self.step,
            lambda indices: self.start([chosen[i] for i in indices]),
            [Sentence(LENGTHS[s]) for s in chosen],
            Beam(2, end=END, forbidden=[BEGIN], n_best=2),
            begin=BEGIN,
            room=room,
        )
        return {chosen[index]: hypotheses for index, hypotheses in found}


def steps_by_hand(room: int) -> tuple[int, list[tuple[int, int]]]:
    """Each sentence in its turn takes the place that is free first: steps in all, and when each begins."""
    free_at, began = [0] * room, []
    for sentence, length in enumerate(LENGTHS):
        place = free_at.index(min(free_at))
        began.append((free_at[place], sentence))
        free_at[place] += length
    return max(free_at), began


@pytest.mark.parametrize("room", [1, 2, 4])
def test_sentences_join_while_others_run(room: int) -> None:
    recorded = Recorded()
    found = recorded.search(room)
    assert {s: len(h[0].tokens) + 1 for s, h in found.items()} == dict(enumerate(LENGTHS))
    steps, began = steps_by_hand(room)
    assert recorded.table.calls == steps
    assert recorded.began == began
    assert max(recorded.sizes) == room
    if room == 4:
        refilled_when_empty = sum(max(LENGTHS[i : i + room]) for i in range(0, len(LENGTHS), room))
        assert (refilled_when_empty, steps) == (21, 11)  # 40 tokens at four a step are 10
        assert any(len(ages) > 2 for ages in recorded.ages)


def test_one_at_a_time_and_together_find_the_same() -> None:
    recorded = Recorded()
    alone = {s: recorded.search(1, [s])[s] for s in range(len(LENGTHS))}
    for room in (1, 2, 3, 4, 7, 16, 100):
        assert Recorded().search(room) == alone


def test_a_result_comes_when_its_sentence_is_done() -> None:
    """Not with the batch: the shortest of the first four is given out after its own steps."""
    recorded = Recorded()
    results = beam_search(
        recorded.step,
        recorded.start,
        [Sentence(length) for length in LENGTHS],
        Beam(2, end=END, forbidden=[BEGIN]),
        begin=BEGIN,
        room=4,
    )
    at = {}
    for index, _ in results:
        at[index] = recorded.table.calls
    assert [at[s] for s in range(4)] == LENGTHS[:4]
    began = {sentence: step for step, sentence in recorded.began}
    assert at == {s: began[s] + LENGTHS[s] for s in range(len(LENGTHS))}
    assert torch.tensor(list(at.values())).diff().min() >= 0
