"""Steps that are replayed find what steps that are computed find; the recording is played by hand here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import TARGET_VOCABULARY, make, prefixes, random_source, transformer

from nmt.beam import Beam, beam_search
from nmt.data.tokenizer import BOS, EOS, PAD, UNK
from nmt.decoding import Decoder
from nmt.ensemble import Reader
from nmt.models.fast import for_search
from nmt.models.fixed_state import FixedState
from nmt.models.transformer_state import TransformerState
from nmt.replay import Recording, Replay, on_gpu
from nmt.search import Hypothesis, Sentence

LENGTHS = [14, 13, 11, 9, 9, 8, 7, 5, 4, 3, 2, 2, 1, 1]
TRANSFORMERS = {
    f"{norm}-{positions}": dict(norm=norm, positions=positions)
    for norm in ("pre", "post")
    for positions in ("sinusoidal", "learned", "rotary", "relative")
}


class ByHand:
    """As a CUDA graph: the computation is fixed when recorded, and what Python knows of its operands then is
    what it knows ever after. Recording computes here, so the first replay does nothing."""

    def __init__(self, compute: Callable[[], None]):
        self.compute, self.played = compute, 0
        compute()

    def replay(self) -> None:
        if self.played:
            self.compute()
        self.played += 1


def search(
    model: Any,
    *,
    room: int,
    beam_size: int,
    most: int,
    record: Callable[[Callable[[], None]], Recording] | None,
    **options: Any,
) -> tuple[list[list[Hypothesis]], int]:
    """The hypotheses of sentences of `LENGTHS`, and how many steps were replayed; None: search as ever."""
    device = next(model.parameters()).device
    decoder = Decoder([model], [Reader()], ensemble_by="probability", device=device)
    generator = torch.Generator().manual_seed(3)
    sources = [random_source([n + 1], generator)[0, :-1].tolist() for n in LENGTHS]
    beam = Beam(
        beam_size, end=EOS, forbidden=[PAD, BOS, UNK], n_best=beam_size, alpha=1.0, device=device, **options
    )
    replay = None if record is None else Replay(decoder.step, beam, record)
    found: list[list[Hypothesis]] = [[] for _ in sources]
    with torch.inference_mode():
        for index, hypotheses in beam_search(
            decoder.step,
            lambda indices: decoder.start([sources[i] for i in indices]),
            [Sentence(most - i % 3, 3 + i % 5) for i in range(len(sources))],
            beam,
            begin=BOS,
            room=room,
            device=device,
            replay=replay,
        ):
            assert not found[index]
            found[index] = hypotheses
    return found, 0 if replay is None else replay.replayed


def same(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> None:
    for mine, theirs in zip(some, others, strict=True):
        assert [h.tokens for h in mine] == [h.tokens for h in theirs]
        for a, b in zip(mine, theirs, strict=True):
            assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)
            assert a.score == pytest.approx(b.score, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("pre-sinusoidal", "post-rotary") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(TRANSFORMERS)
    ],
)
@pytest.mark.parametrize(
    ("room", "beam_size", "most"),
    [pytest.param(14, 4, 40, marks=pytest.mark.slow), (5, 3, 70), (3, 1, 25)],
    ids=["together", "joining", "greedy"],
)
def test_transformers(name: str, room: int, beam_size: int, most: int) -> None:
    """Long enough that the cache is compacted; where few are together others join."""
    torch.manual_seed(4)
    model: Any = transformer(**TRANSFORMERS[name]).eval()
    expected, _ = search(model, room=room, beam_size=beam_size, most=most, record=None)
    model.fixed_cache = True
    with pytest.warns(UserWarning, match="cannot be recorded"):
        eagerly, none = search(model, room=room, beam_size=beam_size, most=most, record=_cannot)
    found, replayed = search(model, room=room, beam_size=beam_size, most=most, record=ByHand)
    same(eagerly, expected)
    same(found, expected)
    assert none == 0
    assert replayed > most // 3


@pytest.mark.parametrize(
    "name",
    ["recurrent-everything", "bahdanau-tied", "luong-general-local-p-fed", "luong-concat-global-unfed"],
)
def test_recurrent_models(name: str) -> None:
    """Their states always had one size."""
    model = make(name)
    expected, _ = search(model, room=5, beam_size=3, most=30, record=None)
    found, replayed = search(model, room=5, beam_size=3, most=30, record=ByHand)
    same(found, expected)
    assert replayed > 10


def test_groups() -> None:
    torch.manual_seed(5)
    model: Any = transformer().eval()
    options: dict[str, Any] = dict(room=6, beam_size=4, most=30, groups=2, diversity=0.5)
    expected, _ = search(model, record=None, **options)
    model.fixed_cache = True
    found, replayed = search(model, record=ByHand, **options)
    same(found, expected)
    assert replayed


def _cannot(compute: Callable[[], None]) -> Recording:
    raise RuntimeError("this cannot be recorded")


def test_what_cannot_be_recorded_is_said_once() -> None:
    """Search goes on without."""
    torch.manual_seed(6)
    model: Any = transformer().eval()
    model.fixed_cache = True
    tried = []

    def record(compute: Callable[[], None]) -> Recording:
        tried.append(compute)
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.warns(UserWarning, match="not permitted") as said:
        search(model, room=5, beam_size=3, most=20, record=record)
    assert len(tried) == len(said) == 1


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_fixed_cache(name: str) -> None:
    """Hidden states as with the cache that grows: hypotheses change in number, sentences leave and join."""
    torch.manual_seed(7)
    model: Any = transformer(**TRANSFORMERS[name]).eval()
    generator = torch.Generator().manual_seed(8)
    source_BS = random_source([9, 1, 4, 6], generator)
    memory = model.encode(source_BS, source_BS != 0)
    states: list[Any] = [
        kind.empty(memory, relative=model.relative_distance is not None)
        for kind in (TransformerState, FixedState)
    ]
    token_BK = prefixes(4, 1, generator)
    for position in range(90):
        hidden = []
        for place, state in enumerate(states):
            hidden_BKD, states[place] = model.step(token_BK, memory, state)
            hidden.append(hidden_BKD)
        torch.testing.assert_close(hidden[1], hidden[0], rtol=1e-5, atol=1e-5)
        hypotheses = {0: 3, 20: 5, 50: 2}.get(position, token_BK.size(1))
        shape = (token_BK.size(0), hypotheses)
        # Mostly of one ancestor, as in search: else the cache only grows.
        beam_BK = torch.randint(0, token_BK.size(1), shape, generator=generator)
        if position % 4 == 0:
            beam_BK = beam_BK[:, :1].expand(shape)
        token_BK = torch.randint(3, TARGET_VOCABULARY, shape, generator=generator)
        states = [state.select(beam_BK) for state in states]
        if position == 30:
            rows_B = torch.tensor([3, 0, 2])
            states, memory = [state.keep(rows_B) for state in states], memory.keep(rows_B)
            token_BK = token_BK[rows_B]
        if position == 40:
            fresh = model.encode(source_BS[:1], source_BS[:1] != 0)
            rows_R = torch.tensor([1])
            memory = memory.put(rows_R, fresh)
            begun = torch.zeros((1, token_BK.size(1)), dtype=torch.long)
            states = [
                state.put(rows_R, type(state).empty(fresh, relative=state.clock_BL is not None).select(begun))
                for state in states
            ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_on_a_gpu(name: str, precision: str) -> None:
    """With real graphs; nothing is warned of. In bfloat16 against the same without them."""
    torch.manual_seed(4)
    model: Any = transformer(**TRANSFORMERS[name]).eval()
    options: dict[str, Any] = dict(room=5, beam_size=3, most=40)
    expected, _ = search(model, record=None, **options)
    fast = for_search(model.cuda(), precision)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, replayed = search(fast, record=on_gpu, **options)
    if precision != "float32":
        expected, _ = search(fast, record=None, **options)
    same(found, expected)
    assert replayed > 10
