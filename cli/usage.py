"""What is wrong with a command line, and what was likely meant."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from nmt.errors import UserError

_EXTRA = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((.+)\)")


def usage_message(error: Any) -> str:
    """One line of what the command line library found wrong, and whose help says more."""
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    names: list[str] = []
    inner = context
    while inner is not None and inner.parent is not None:  # the outermost is named as it was started
        names.insert(0, inner.info_name)
        inner = inner.parent
    extra = _EXTRA.fullmatch(text)
    meant = _meant(context, extra[1].split(" ")) if extra and context is not None else ""
    return f"{text}{meant}; see {' '.join(['nmt', *names, '--help'])}"


def _meant(context: Any, extra: list[str]) -> str:
    """The option that an argument too many was likely for."""
    given = {
        parameter.name: context.params.get(parameter.name)
        for parameter in context.command.params
        if parameter.param_type_name == "option"
    }
    if "system" in given:  # nmt evaluate: texts are options
        names = [name for name in ("source", "reference") if not given.get(name)]
    else:
        names = [name for name in ("output", "run") if name in given]
    if not 0 < len(extra) <= len(names):
        return ""
    pairs = zip(names[-len(extra) :], extra, strict=True)
    return f"; perhaps you mean {' '.join(f'--{name} {shlex.quote(value)}' for name, value in pairs)}"


def check_order(command: str, model: Path, text: str) -> None:
    """UserError where the text is named before the model."""
    if Path(text).is_dir() and not model.is_dir():
        swapped = f"nmt {command} {shlex.quote(text)} {shlex.quote(str(model))}"
        raise UserError(f"{text} is a folder and {model} is none; the model comes first: {swapped}")
