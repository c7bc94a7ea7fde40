"""Models in the form that search runs, and batches that sentences leave and join, against the model itself.

Whatever stands beside it, a sentence has the hidden states that `decode` has for it alone.

B sentences, S source length, T target length, K hypotheses, N of them live, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from equivalence.variants import randomize, small
from small_models import MODELS, TARGET_VOCABULARY, make, random_source
from torch import Tensor

from nmt import kernels, products
from nmt.models.fast import for_search
from nmt.models.fast_transformer import FastTransformer
from nmt.models.transformer import Transformer

CLOSE: dict[str, Any] = dict(rtol=1e-5, atol=2e-5)
HYPOTHESES = 3
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="C is not compiled here")

ADDED = {
    "post-sinusoidal": dict(),
    "pre-learned": dict(norm="pre", positions="learned"),
    "pre-swiglu-rmsnorm": dict(norm="pre", activation="swiglu", norm_type="rmsnorm"),
    "post-gelu-learned-tied": dict(activation="gelu", positions="learned", tie_embeddings="target"),
    "one-head": dict(heads=1, decoder_layers=1, norm="pre"),
    "narrow-heads": dict(heads=16),
    "odd-heads": dict(width=42, heads=6, decoder_layers=3),
    "wide-heads": dict(width=128, heads=2, norm="pre", decoder_layers=1),
    "heads-of-32": dict(width=128, heads=4, feed_forward_width=200),
    "heads-of-16": dict(width=128, heads=8, norm="pre", norm_type="rmsnorm", decoder_layers=1),
    "head-of-128": dict(width=128, heads=1, decoder_layers=2),
}
INSIDE = {
    "rotary": dict(positions="rotary", norm="pre"),
    "relative": dict(positions="relative"),
}


def variant(options: dict[str, Any]) -> Any:
    torch.manual_seed(5)
    model = small(**options)
    randomize(model, seed=6)
    return model.eval()


@pytest.fixture(params=["step in C", "loops in C"])
def in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all layers in one call where the processor can run it, and with torch between the loops."""
    if request.param == "loops in C":
        monkeypatch.setattr("nmt.products.available", lambda: False)
    elif not products.available():
        pytest.skip("this processor has no AVX-512, or C is not compiled here")


# --- a batch that changes as one of a search does ----------------------------------------------------------


@dataclass
class Row:
    """A sentence in the batch: its source, and of each hypothesis all tokens read and hidden states got."""

    source_S: Tensor
    prefix_KT: Tensor = field(default_factory=lambda: torch.empty((HYPOTHESES, 0), dtype=torch.long))
    hidden_KTD: Tensor | None = None
    lives: list[bool] = field(default_factory=lambda: [True] + [False] * (HYPOTHESES - 1))

    def check(self, model: Any) -> int:
        """Compares all that lives; how many hidden states that were."""
        if self.hidden_KTD is None or not any(self.lives):
            return 0
        source_KS = self.source_S.expand(HYPOTHESES, -1)
        memory = model.encode(source_KS, torch.ones_like(source_KS, dtype=torch.bool))
        expected_KTD = model.decode(self.prefix_KT, memory)
        for k, lives in enumerate(self.lives):
            if lives:
                torch.testing.assert_close(self.hidden_KTD[k], expected_KTD[k], **CLOSE)
        return sum(self.lives) * self.prefix_KT.size(1)


class Batch:
    """Drives `stepping`, and compares with `model`, whenever a sentence leaves and at the end."""

    def __init__(self, model: Any, stepping: Any, lengths: list[int]):
        self.model, self.stepping = model, stepping
        self.generator = torch.Generator().manual_seed(31)
        self.rows, self.memory, self.state = self._started(lengths)
        self.compared = 0

    def _started(self, lengths: list[int]) -> tuple[list[Row], Any, Any]:
        """Padded by two more than needed."""
        source_BS = random_source(lengths, self.generator, longest=max(lengths) + 2)
        memory = self.stepping.encode(source_BS, source_BS != 0)
        first_BK = torch.zeros((len(lengths), HYPOTHESES), dtype=torch.long)
        state = self.stepping.start(memory).select(first_BK)
        rows = [Row(source_S[:length]) for source_S, length in zip(source_BS, lengths, strict=True)]
        return rows, memory, state

    def step(self, *, all_live: bool) -> None:
        """One token of what lives, or of all, then a random beam and who lives on."""
        shape = (len(self.rows), HYPOTHESES)
        token_BK = torch.randint(3, TARGET_VOCABULARY, shape, generator=self.generator)
        for row, token_K in zip(self.rows, token_BK, strict=True):
            if row.hidden_KTD is None:
                token_K[:] = 2
        lives_BK = torch.tensor([row.lives for row in self.rows])
        live_N = None if all_live else lives_BK.flatten().nonzero().squeeze(1)
        hidden, self.state = self.stepping.step(token_BK, self.memory, self.state, live_N)
        if live_N is None:
            assert hidden.shape[:2] == shape
        else:
            assert hidden.shape[:1] == live_N.shape
            every = torch.full((lives_BK.numel(), hidden.size(-1)), torch.nan)
            hidden = every.index_copy(0, live_N, hidden).view(*shape, -1)
        beam_BK = torch.randint(0, HYPOTHESES, shape, generator=self.generator)
        for row, token_K, hidden_KD, beam_K in zip(self.rows, token_BK, hidden, beam_BK, strict=True):
            before = hidden_KD[:, None][:, :0] if row.hidden_KTD is None else row.hidden_KTD
            row.hidden_KTD = torch.cat((before, hidden_KD[:, None]), dim=1)
            row.prefix_KT = torch.cat((row.prefix_KT, token_K[:, None]), dim=1)
            self._choose(row, beam_K)
        self.state = self.state.select(beam_BK)

    def _choose(self, row: Row, beam_K: Tensor) -> None:
        """One hypothesis at least goes on, if one lives; places of others come from anywhere."""
        alive = [k for k, lives in enumerate(row.lives) if lives]
        goes_on = (torch.rand(HYPOTHESES, generator=self.generator) < 0.7).tolist()
        goes_on[int(torch.randint(0, HYPOTHESES, (), generator=self.generator))] = True
        for k in range(HYPOTHESES):
            row.lives[k] = goes_on[k] and bool(alive)
            if row.lives[k]:
                beam_K[k] = alive[int(torch.randint(0, len(alive), (), generator=self.generator))]
        assert row.hidden_KTD is not None
        row.prefix_KT, row.hidden_KTD = row.prefix_KT[beam_K], row.hidden_KTD[beam_K]

    def check(self) -> None:
        self.compared += sum(row.check(self.model) for row in self.rows)

    def end(self, indices: list[int]) -> None:
        """Sentences that are done stay in the batch, and nothing of theirs is computed."""
        self.check()
        for index in indices:
            self.rows[index].lives = [False] * HYPOTHESES

    def put(self, indices: list[int], lengths: list[int]) -> None:
        """Fresh sentences in the places of these, whatever those were doing."""
        self.check()
        rows, memory, state = self._started(lengths)
        indices_R = torch.tensor(indices)
        self.memory, self.state = self.memory.put(indices_R, memory), self.state.put(indices_R, state)
        for index, row in zip(indices, rows, strict=True):
            self.rows[index] = row

    def keep(self, indices: list[int]) -> None:
        """Some of the sentences; one that comes again is done there."""
        self.check()
        indices_B = torch.tensor(indices)
        self.memory, self.state = self.memory.keep(indices_B), self.state.keep(indices_B)
        kept = []
        for place, index in enumerate(indices):
            row = self.rows[index]
            lives = list(row.lives) if index not in indices[:place] else [False] * HYPOTHESES
            kept.append(Row(row.source_S, row.prefix_KT, row.hidden_KTD, lives))
        self.rows = kept


@torch.no_grad()
def run_batch(model: Any, stepping: Any, steps: int = 44) -> None:
    """Through all that search does, in an order in which each event finds a batch that is running."""
    batch = Batch(model, stepping, [9, 1, 4, 6])
    events = {
        3: partial(batch.end, [1]),
        5: partial(batch.put, [1], [3]),
        8: partial(batch.put, [3, 0], [14, 2]),  # longer than any there
        10: partial(batch.end, [2, 3]),
        12: partial(batch.keep, [3, 0, 1, 0]),
        13: partial(batch.put, [0, 3], [1, 5]),
        17: partial(batch.keep, [2, 1, 3]),
        20: partial(batch.put, [0], [21]),
        38: partial(batch.keep, [1, 1, 0, 2, 2]),  # more rows, after the buffers grew
        39: partial(batch.put, [1, 4], [2, 7]),
    }
    for step in range(steps):
        if step in events:
            events[step]()
        batch.step(all_live=all(all(row.lives) for row in batch.rows))
    batch.check()
    assert batch.compared > 5 * steps
    assert max(row.prefix_KT.size(1) for row in batch.rows) == steps - 8


# --- the fast Transformer ----------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("name", ADDED)
def test_fast_form_in_a_changing_batch(name: str) -> None:
    model = variant(ADDED[name])
    fast = for_search(model)
    assert isinstance(fast, FastTransformer)
    assert (fast.stack is not None) == (products.available() and "gelu" not in name and "swiglu" not in name)
    run_batch(model, fast)


@needs_kernels
def test_blocks_of_rows() -> None:
    """More rows than go through the layers together."""
    model = variant(dict(width=128, heads=4, norm="pre"))
    fast = for_search(model)
    if fast.stack is None:
        pytest.skip("this processor has no AVX-512, or C is not compiled here")
    fast.stack.block = 5
    run_batch(model, fast)


@torch.no_grad()
@needs_kernels
@pytest.mark.usefixtures("in_c")
@pytest.mark.parametrize("name", ADDED)
def test_step_and_project_beside_the_model(name: str) -> None:
    """The same calls of both, all hypotheses living, beyond the capacity of the first buffers."""
    model = variant(ADDED[name])
    fast = for_search(model)
    assert (fast.most_source_tokens, fast.most_target_tokens) == (
        model.most_source_tokens,
        model.most_target_tokens,
    )
    generator = torch.Generator().manual_seed(32)
    source_BS = random_source([7, 1, 12], generator, longest=13)
    memories = [m.encode(source_BS, source_BS != 0) for m in (model, fast)]
    assert torch.equal(memories[0].mask_BS, memories[1].mask_BS)
    first_BK = torch.zeros((3, 4), dtype=torch.long)
    states = [m.start(memory).select(first_BK) for m, memory in zip((model, fast), memories, strict=True)]
    token_BK = torch.full((3, 4), 2)
    for _ in range(70):
        hidden, states = zip(
            *(m.step(token_BK, memory, state) for m, memory, state in
              zip((model, fast), memories, states, strict=True)),
            strict=True,
        )  # fmt: skip
        torch.testing.assert_close(hidden[1], hidden[0], **CLOSE)
        torch.testing.assert_close(fast.project(hidden[1]), model.project(hidden[1]), rtol=1e-5, atol=3e-5)
        beam_BK = torch.randint(0, 4, (3, 4), generator=generator)
        states = [state.select(beam_BK) for state in states]
        token_BK = torch.randint(3, TARGET_VOCABULARY, (3, 4), generator=generator)


@torch.no_grad()
@needs_kernels
def test_heads_too_wide_for_the_loops() -> None:
    """The loops have room for heads of a certain width; wider ones are for torch."""
    for width in (256, 264):
        model = variant(dict(width=width, heads=1, encoder_layers=1, decoder_layers=1, norm="pre"))
        fast = for_search(model)
        assert isinstance(fast, FastTransformer) == (width == 256)
        source_BS = random_source([5, 3], torch.Generator().manual_seed(33))
        mask_BS = source_BS != 0
        memory, token_BK = fast.encode(source_BS, mask_BS), torch.full((2, 1), 2)
        hidden_BKD, _ = fast.step(token_BK, memory, fast.start(memory))
        expected_BKD = model.decode(token_BK, model.encode(source_BS, mask_BS))
        torch.testing.assert_close(hidden_BKD, expected_BKD, **CLOSE)


@pytest.mark.parametrize("name", INSIDE)
def test_positions_inside_attention_are_for_torch(name: str) -> None:
    model = variant(INSIDE[name])
    fast = for_search(model)
    assert not isinstance(fast, FastTransformer)
    run_batch(model, fast)


# --- every model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_changing_batch(name: str) -> None:
    model = make(name)
    # The Transformer's buffers grow later.
    run_batch(model, model, steps=44 if isinstance(model, Transformer) else 24)


@pytest.mark.parametrize(
    "name", ["post-learned", "recurrent-everything", "bahdanau-tied", "luong-concat-local-p-fed"]
)
def test_a_changing_batch_of_the_form_for_search(name: str) -> None:
    model = make(name)
    run_batch(model, for_search(model))
