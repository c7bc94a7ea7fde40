"""Pictures of attention: the same weights are the same bytes, and any token can be written on them."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image

from nmt.heatmap import FORMATS, draw, draw_heads

WEIGHTS = np.array([[0.2, 0.8], [0.9, 0.1]])


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_attention_is_the_same_picture(suffix: str) -> None:
    one, two = (draw(WEIGHTS, ["▁a", "</s>"], ["▁$x$", "</s>"], suffix, "title") for _ in range(2))
    assert one == two
    assert one != draw(WEIGHTS.T, ["▁a", "</s>"], ["▁$x$", "</s>"], suffix, "title")


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_any_token_can_be_written() -> None:
    hostile = ["$x$", r"\frac{", "\0\x1b", "\u202e", "😀", "</text>&", "x" * 10_000, ""]
    drawn = draw(np.eye(len(hostile)), hostile, hostile, ".svg", "$")
    assert ElementTree.fromstring(drawn.decode()).tag.endswith("}svg")


def test_there_is_ink_on_paper() -> None:
    picture = image.imread(io.BytesIO(draw(WEIGHTS, ["a", "b"], ["c", "d"], ".png")))
    assert picture.min() < 0.1 < 0.9 < picture.max()


@pytest.mark.parametrize("suffix", FORMATS)
def test_heads_are_drawn(suffix: str) -> None:
    nothing = np.full((2, 2), np.nan)
    scores = {"a": {"encoder": WEIGHTS, "cross": nothing}, "b": {"cross": -WEIGHTS}, "c": {"cross": nothing}}
    assert draw_heads(scores, suffix, "$") == draw_heads(scores, suffix, "$")
