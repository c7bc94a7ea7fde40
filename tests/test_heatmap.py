"""Pictures of attention: the same weights are the same bytes, and any token can be written on them."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image, rc_context

from nmt import heatmap
from nmt.heatmap import FORMATS, draw, draw_heads, unwritable

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


def test_harm_and_help_have_colours_of_their_own() -> None:
    """Of a loss harm is above 0, of BLEU below; a head whose loss costs nothing is white."""
    values = {"cross": np.array([[-5.0, 0.0, 4.0]])}
    colours = []
    for worse in ({"x": -1}, {"x": 1}):
        picture = image.imread(io.BytesIO(draw_heads({"x": values}, ".png", worse=worse)))[..., :3]
        red, green, blue = (picture[..., channel] for channel in range(3))
        places = [np.argwhere(mask)[:, 1].mean() for mask in (red - blue > 0.2, blue - red > 0.2)]
        colours.append(places)
        assert ((red - green > 0.4) & (blue - green > 0.4)).sum() == 0
    (harm, gain), (turned_harm, turned_gain) = colours
    assert harm < gain  # BLEU: the fall is at the left
    assert turned_gain < turned_harm
    shades = image.imread(io.BytesIO(draw_heads({"x": values}, ".png")))[..., :3]
    assert np.allclose(shades[..., 0], shades[..., 2])  # others stay grey


def test_what_a_picture_says() -> None:
    """Text is text in an SVG where it is asked for."""
    with rc_context({"svg.fonttype": "none"}):
        heads = draw_heads({"x": {"cross": WEIGHTS}}, ".svg", worse={"x": 1}).decode()
        picture = draw(WEIGHTS, ["▁ein", "▁"], ["haus", "</s>"], ".svg").decode()
    for text in ("layer", "head", "cross: change of x (red: worse)"):
        assert f">{text}</text>" in heads
    for text in ("ein", "▁", "haus", "weight", "0.5"):
        assert f">{text}</text>" in picture
    assert "▁ein" not in picture


def test_characters_without_a_font_are_told_and_nothing_else_is(recwarn: pytest.WarningsRecorder) -> None:
    assert unwritable(["▁Straße", "Ελλάδα", "дом", "a b", "\0"]) == ""
    nowhere = "\U000e0fff\ufdd1"  # no font has what is no character; it is shown by its number
    assert unwritable([nowhere]) == ""
    private = "\U0010fffd\uf8fe"
    fonts, missing = heatmap._choose_fonts("ab" + private)
    assert missing == set(private)
    assert fonts[0] == "DejaVu Sans"
    assert "Last Resort" not in "".join(fonts)
    draw(WEIGHTS, ["漢", "字"], ["한", "ไ"], ".png")
    assert [str(one.message) for one in recwarn if "lyph" in str(one.message)] == []


def test_a_font_that_has_the_characters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here stands one of matplotlib's in for Noto's, and our own is poor."""
    own = frozenset("abc")
    real = heatmap._characters
    monkeypatch.setattr(heatmap, "_characters", lambda file: own if "DejaVuSans.ttf" in file else real(file))
    fonts, missing = heatmap._choose_fonts("aж")
    assert len(fonts) == 2
    assert not missing
