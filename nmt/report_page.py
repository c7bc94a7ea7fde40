"""A report as a page: one HTML file that asks for nothing else."""

from __future__ import annotations

import re
from typing import Any

from nmt.page import fill_page

# Characters that are not seen, or that turn the text around them, as in pages/report.js.
UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)


def report_page(facts: dict[str, Any]) -> str:
    """The page of what `nmt.report.report` found out. Its text is data to the page's script, which writes
    it as text: nothing in it is markup."""
    names = ", ".join(run["run"] for run in facts["runs"])
    title = UNSEEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", f"Report of {names}")
    return fill_page("report", title, facts)
