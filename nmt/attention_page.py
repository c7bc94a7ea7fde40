"""Attention as a page: one HTML file that asks for nothing else, to look at every layer and head.

L layers, H heads, Q queries, K keys.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from nmt.attention_maps import (
    KINDS,
    TITLES,
    Pair,
    attention_maps,
    pieces_of,
    rows_and_columns,
    words_of,
)
from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import SPACE
from nmt.forced import Weights

PARTS = 1000  # weights are written in thousandths


def attention_page(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    *,
    title: str,
    kind: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    words: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> str:
    """The page with the attention of sentence pairs.

    Args:
        kind, layer, head, words: what is shown first; a layer or head of None is the mean.
        tell: called with the number of pairs done.

    Raises:
        UserError: the model has no attention.
    """
    sentences: list[dict[str, Any]] = [{}] * len(pairs)
    for done, (index, maps) in enumerate(attention_maps(loaded, pairs), start=1):
        pair = pairs[index]
        used = {side for of in maps for side in rows_and_columns(of)}
        sentences[index] = {
            "line": pair.line,
            "source": pair.source,
            "target": pair.target,
            "sides": {side: _side(loaded, pair, side) for side in sorted(used)},
            "maps": {
                of: dict(zip(("rows", "columns"), rows_and_columns(of), strict=True)) | _packed(maps[of])
                for of in KINDS
                if of in maps
            },
        }
        tell(done)
    shown = list(sentences[0]["maps"])
    about = f"{loaded.config.model.architecture}, {len(pairs):,} sentence{'s' if len(pairs) != 1 else ''}"
    data = {
        "about": about + "; a row is what looks, a column what is looked at",
        "kinds": TITLES,
        "state": {
            "kind": kind if kind in shown else shown[-1],
            "layer": layer or 0,
            "head": head or 0,
            "words": words,
        },
        "sentences": sentences,
    }
    return fill_page("attention", title, data)


def _side(loaded: LoadedModel, pair: Pair, side: str) -> dict[str, Any]:
    return {
        "tokens": [piece.replace(SPACE, "·") for piece in pieces_of(loaded, pair, side)],
        "words": [[word.text.replace(SPACE, "·"), word.tokens] for word in words_of(loaded, pair, side)],
    }


def _packed(weights_LHQK: Weights) -> dict[str, Any]:
    parts = np.round(weights_LHQK * PARTS).astype("<u2").tobytes()
    return {
        "shape": list(weights_LHQK.shape),
        "weights": base64.b64encode(zlib.compress(parts)).decode(),
    }


def fill_page(name: str, title: str, data: dict[str, Any]) -> str:
    """The page `pages/NAME.html` with its script and data.

    Whatever the data hold, the page stays as it is: they are JSON in ASCII without a `<`, and the page's
    policy lets no script run but its own, and nothing be fetched.
    """
    folder = resources.files("nmt") / "pages"
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    script = (folder / f"{name}.js").read_text(encoding="utf-8")
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    fields = {
        "title": html.escape(title),
        "style-hash": _hash(style),
        "script-hash": _hash(script),
        "script": script,
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # At once: what is filled in is not looked at again.
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda found: fields[found[1]], page)


def fill_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[tuple[str, float | None]]],
    notes: Sequence[str] = (),
) -> str:
    """A page with a table, each cell with how dark it is (0 to 1, None: not shaded). It has no script."""
    page = (resources.files("nmt") / "pages" / "heads.html").read_text(encoding="utf-8")
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    body = []
    for row in rows:
        cells = [
            f"<td{_shade(shade)}>{html.escape(text)}</td>"
            if place > 2
            else f"<th scope=row>{html.escape(text)}</th>"
            for place, (text, shade) in enumerate(row)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    fields = {
        "title": html.escape(title),
        "style-hash": _hash(style),
        "header": "".join(f"<th scope=col>{html.escape(name)}</th>" for name in header),
        "rows": "\n".join(body),
        "notes": "".join(f"<li>{html.escape(note)}</li>" for note in notes),
    }
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda found: fields[found[1]], page)


def _shade(shade: float | None) -> str:
    return "" if shade is None else f" class=s{round(10 * min(shade, 1))}"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
