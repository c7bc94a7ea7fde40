"""Attention as a picture, for a paper: one heatmap, or what all heads do."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

FORMATS = (".png", ".svg", ".pdf")
LONGEST_LABEL = 40  # characters
_OWN_FONT = "DejaVu Sans"  # which matplotlib brings
_BEGINS_WORD = "\u2581"  # SentencePiece's mark
# No date in the file: the same picture is the same bytes.
_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def draw(
    weights: npt.NDArray[Any],
    source: Sequence[str],
    target: Sequence[str],
    suffix: str,
    title: str = "",
) -> bytes:
    """A heatmap: `target`, which looks, down the side, `source`, which is looked at, along the top.

    Args:
        weights: (target, source).
        suffix: of `FORMATS`.
    """
    from matplotlib.figure import Figure

    source, target = ([_label(piece) for piece in side] for side in (source, target))
    # Room for the labels: a character is a twelfth of an inch at most, but for wide scripts, which are few.
    beside, above = (1.2 + max(map(len, side)) / 12 for side in (target, source))
    size = (beside + 0.38 * len(source) + 0.8, above + 0.32 * len(target))
    with _fonts([*source, *target, title]):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        drawn = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(source)), source, rotation=60, ha="left")
        axes.set_yticks(range(len(target)), target)
        axes.xaxis.tick_top()
        figure.colorbar(drawn, ax=axes, label="weight", ticks=[0, 0.5, 1], pad=0.02, aspect=40)
        if title:
            axes.set_xlabel(title.replace("$", r"\$"))
        return _saved(figure, suffix)


def draw_heads(
    scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
    suffix: str,
    title: str = "",
    worse: Mapping[str, int] | None = None,
) -> bytes:
    """A small heatmap for each score and kind of attention: layers down the side, heads along the top.

    Args:
        scores: score -> kind -> (layers, heads), NaN where a head has none. A score's kinds share a scale.
        suffix: of `FORMATS`.
        worse: scores that say how a model changes without a head, and the sign where it gets worse: drawn
            red there and blue where it gets better.
    """
    from matplotlib.figure import Figure

    worse = worse or {}
    kinds = list(dict.fromkeys(kind for by_kind in scores.values() for kind in by_kind))
    layers = max(values.shape[0] for by_kind in scores.values() for values in by_kind.values())
    heads = max(values.shape[1] for by_kind in scores.values() for values in by_kind.values())
    size = (1.2 + len(kinds) * (0.8 + 0.5 * heads), 0.6 + len(scores) * (0.95 + 0.4 * layers))
    with _fonts([title]):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(scores), len(kinds), squeeze=False)
        for row, (score, by_kind) in enumerate(scores.items()):
            found = np.concatenate([values.ravel() for values in by_kind.values()])
            sizes = np.abs(found) if score in worse else found
            most = float(np.nanmax(sizes)) if not np.isnan(found).all() else 1.0
            for column, kind in enumerate(kinds):
                axes = grid[row][column]
                values = by_kind.get(kind)
                if values is None or np.isnan(values).all():
                    axes.axis("off")
                    continue
                _draw_scores(axes, values, max(most, 1e-9), worse.get(score, 0))
                name = f"change of {score} (red: worse)" if score in worse else score
                axes.set_title(f"{kind}: {name}", fontsize=8)
        if title:
            figure.suptitle(title.replace("$", r"\$"), fontsize=9)
        return _saved(figure, suffix)


def _draw_scores(axes: Any, values: npt.NDArray[np.float64], most: float, worse: int) -> None:
    colours = {0: "Greys", 1: "RdBu_r", -1: "RdBu"}[worse]
    axes.imshow(values, cmap=colours, vmin=-most if worse else 0, vmax=most, aspect="auto")
    axes.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1), fontsize=7)
    axes.set_yticks(range(values.shape[0]), range(1, values.shape[0] + 1), fontsize=7)
    axes.set_xlabel("head", fontsize=7)
    axes.set_ylabel("layer", fontsize=7)
    for (layer, head), value in np.ndenumerate(values):
        if not np.isnan(value):
            dark = (abs(value) if worse else value) > most * 0.6
            colour = "white" if dark else "black"
            axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)


def _saved(figure: Any, suffix: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "nmt"}):
        figure.savefig(buffer, format=suffix.removeprefix("."), dpi=150, metadata=_UNDATED[suffix])
    return buffer.getvalue()


def unwritable(texts: Iterable[str]) -> str:
    """The characters that no font of this machine has, each once: a picture has empty boxes for them."""
    return "".join(sorted(_choose_fonts("".join(map(_label, texts)))[1]))


@contextlib.contextmanager
def _fonts(texts: Sequence[str]) -> Iterator[None]:
    """matplotlib with fonts that have these characters, where there are such; it is silent on others."""
    from matplotlib import rc_context

    names, _ = _choose_fonts("".join(texts))
    with rc_context({"font.family": names}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _choose_fonts(text: str) -> tuple[list[str], set[str]]:
    """Names of fonts, matplotlib's own first, and the characters that none has."""
    from matplotlib import font_manager

    fonts = [font_manager.findfont(_OWN_FONT)]
    missing = {c for c in text if not c.isspace()} - _characters(fonts[0])
    names = [_OWN_FONT]
    if missing:
        # Plain faces; Noto's have most scripts. In one order, so that a picture is the same again.
        faces = {
            (not face.name.startswith("Noto Sans"), face.name, face.fname)
            for face in font_manager.fontManager.ttflist
            if face.style == "normal" and face.weight in (400, "normal", "regular", "book")
        }
        for _, name, file in sorted(faces):
            if "Last Resort" in name or not missing:
                continue
            if found := missing & _characters(file):
                names.append(name)
                missing -= found
    return names, missing


@cache
def _characters(file: str) -> frozenset[str]:
    """That a font has."""
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # no font, or damaged
        return frozenset()


def _label(piece: str) -> str:
    """A token as a word of a paper: without the mark that a word begins."""
    return _shown(piece.removeprefix(_BEGINS_WORD) or piece)


def _shown(piece: str) -> str:
    # matplotlib reads a pair of dollar signs as mathematics; an SVG cannot hold control characters.
    text = "".join(c if c.isprintable() or c == " " else f"<{ord(c):X}>" for c in piece)
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return text.replace("$", r"\$")
