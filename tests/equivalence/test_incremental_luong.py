"""What holds of every architecture, for each of Luong's ways to attend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equivalence.test_incremental import (  # noqa: F401
    test_bfloat16,
    test_later_tokens_change_nothing_before,
    test_many_hypotheses,
    test_padding_changes_nothing,
    test_recorded_weights,
    test_step_by_step,
    test_training_mode_drops,
    test_what_stands_in_padding_does_not_matter,
)
from small_models import LUONG, make, prefixes, random_source
from torch import Tensor


@pytest.fixture(scope="module", params=[*LUONG, "luong-untied"])
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [6, 90])
def test_windows(model: Any, tokens: int) -> None:
    """At most 2 D + 1 neighbours get weight; the monotonic window moves on with each token, to the end."""
    generator = torch.Generator().manual_seed(19)
    lengths = [3, 90, 40]
    source_BS = random_source(lengths, generator, longest=91)
    record: list[Tensor] = []
    model.decode(prefixes(3, tokens, generator), model.encode(source_BS, source_BS != 0), record)
    has_weight_BTS = record[0][:, 0] > 0
    size, window = model.attention.window_size, model.attention.window
    for b, length in enumerate(lengths):
        for t in range(tokens):
            words = has_weight_BTS[b, t].nonzero().flatten().tolist()
            if window == "global":
                assert words == list(range(length))
            else:
                assert words == list(range(words[0], words[-1] + 1))
                assert 1 <= len(words) <= 2 * size + 1
            if window == "local-m":
                center = min(t, length - 1)
                assert words == list(range(max(0, center - size), min(length, center + size + 1)))
