"""Options of search that commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nmt.errors import UserError

MEANS = ("probability", "log-probability")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


def search_options(given: Mapping[str, Any], *, ensemble: bool) -> dict[str, Any]:
    """Those of the command line that were given, as [search] has them.

    Args:
        ensemble: whether several models search.

    Raises:
        UserError: one is not known, or is about several models.
    """
    found = {key: value for key, value in given.items() if value is not None}
    if found.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise UserError(f"--precision {found['precision']} is not known; use {', '.join(PRECISIONS)}")
    if found.get("ensemble_by", MEANS[0]) not in MEANS:
        raise UserError(f"--ensemble-by {found['ensemble_by']} is not known; use {', '.join(MEANS)}")
    if "ensemble_by" in found and not ensemble:
        raise UserError("--ensemble-by is about several models; add --ensemble MODEL")
    tokens = found.get("batch_tokens", "auto")
    if tokens != "auto":
        if not _is_count(tokens):
            raise UserError(f"--batch-tokens {tokens} is not a number from 1, or auto")
        found["batch_tokens"] = int(tokens)
    return found


def _is_count(text: str) -> bool:
    """Digits that are no zero; so many that they are no number for Python are not."""
    return text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0
