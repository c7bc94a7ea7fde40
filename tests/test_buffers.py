"""Rows of large buffers, against plain indexing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt import kernels
from nmt.models.buffers import keep_rows, longer

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the inner loops in C are not compiled")


@settings(max_examples=200, deadline=None)
@given(rows=st.integers(1, 40), data=st.data())
def test_what_is_used_is_kept(rows: int, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(0, rows - 1), max_size=50))
    if data.draw(st.booleans()):
        kept.sort()
    used = data.draw(st.lists(st.integers(0, 6), min_size=len(kept), max_size=len(kept)))
    x_RLF = torch.randn(rows, 6, 3)
    before = x_RLF.clone()
    rows_B, used_B = torch.tensor(kept, dtype=torch.long), torch.tensor(used, dtype=torch.long)
    kept_RLF = keep_rows(x_RLF, rows_B, used_B, 8)
    assert len(kept_RLF) >= len(kept)
    seen = set()
    for place, (row, count) in enumerate(zip(kept, used, strict=True)):
        if row not in seen:  # what comes again is lost
            assert torch.equal(kept_RLF[place, :count], before[row, :count])
        seen.add(row)


def test_gaps_are_closed_where_the_buffer_is() -> None:
    x_RLF = torch.randn(5, 4, 2)
    used_B = torch.tensor([4, 4, 4])
    assert keep_rows(x_RLF, torch.tensor([0, 3, 4]), used_B, 4) is x_RLF
    assert keep_rows(x_RLF, torch.tensor([1, 2, 1]), used_B, 4) is x_RLF
    assert keep_rows(x_RLF, torch.tensor([2, 1, 0]), used_B, 4) is not x_RLF  # one would overwrite another
    assert keep_rows(x_RLF, torch.tensor([0, 1, 2, 3, 4, 0]), used_B[:1].repeat(6), 9).shape == (6, 9, 2)


def test_longer_rows() -> None:
    x_RLF, used_B = torch.randn(4, 3, 2), torch.tensor([3, 0, 2])
    longer_BLF = longer(x_RLF, used_B, 7)
    assert longer_BLF.shape == (3, 7, 2)
    for row, count in enumerate(used_B.tolist()):
        assert torch.equal(longer_BLF[row, :count], x_RLF[row, :count])
