"""Scripts that set no blanks between words."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Han and kana with their marks, as the inside of a class of regular expressions.
WITHOUT_BLANKS = (
    "\\u3001-\\u3003\\u3005-\\u3011\\u3014-\\u301f\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff"
    "\\uff01\\uff08\\uff09\\uff0c\\uff0e\\uff1a\\uff1b\\uff1f\\U00020000-\\U0003ffff"
)
_SUCH = re.compile(f"[{WITHOUT_BLANKS}]")


def joined(texts: Iterable[str]) -> str:
    """One text, with a blank between two unless both are of such a script there."""
    found = ""
    for text in texts:
        if found and text and not (_SUCH.match(found[-1]) and _SUCH.match(text[0])):
            found += " "
        found += text
    return found
