"""Pages of `nmt/pages`, filled in: one HTML file each that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any


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
    """A page with a table, each cell with how dark it is (0 to 1, None: not shaded; below 0 in the
    colour of harm). It has no script."""
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
    if shade is None:
        return ""
    step = f"s{round(10 * min(abs(shade), 1))}"
    return f' class="{step} worse"' if shade < 0 else f" class={step}"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
