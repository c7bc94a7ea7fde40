"""What is wrong in a configuration: one line with the place, the remedy and the nearest known name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt.config import OPTIONAL_SECTIONS, SECTIONS
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS


@dataclass(frozen=True)
class Source:
    """Where values come from."""

    text: str  # of the file
    file: str | Path
    overrides: Mapping[tuple[str, ...], str]  # what --set was given, by section and key

    def mistake(self, message: str, location: Sequence[str] = ()) -> UserError:
        """An error of the --set that is at fault, else of the line of the file.

        Args:
            location: of what is wrong: a section, or a section and a key; empty is the whole.
        """
        line = _line_of(self.text, location)
        at_fault = self.overrides.get(tuple(location))
        if location and line is None:  # a section that only --set speaks of
            inside = (o for place, o in self.overrides.items() if place[: len(location)] == tuple(location))
            at_fault = next(inside, None)
        if at_fault is not None:
            return UserError(f"--set {at_fault}: {message}")
        return UserError(message, file=self.file, line=line)


def in_words(error: ValidationError, values: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The first of pydantic's errors as a sentence, and where it is.

    Args:
        values: what was validated, by section and key.
    """
    first = error.errors()[0]
    # The discriminator adds the architecture's tag to the location of a model key.
    path = [str(part) for part in first["loc"] if part not in MODEL_SECTIONS]
    if first["type"] == "missing" and len(path) > 2:
        given = _shown(values[path[0]][path[1]])
        return f"{path[0]}.{path[1]} = {given} has too few values; give all", path[:2]
    if first["type"] == "missing":
        return f"{'.'.join(path)} is missing; add it under [{path[0]}]", path[:1]
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return message, _mentioned(message)
    given = _shown(first["input"])
    location = path[:2]
    if "[key]" in path or len(path) < 2:
        return f"{'.'.join(path)} = {given}: {first['msg']}", location
    return f"{'.'.join(location)} = {given} is not valid; {_expectation(first)}", location


def suggest(name: str, known: Sequence[str]) -> str:
    """For the end of an error: the nearest known name, or all of them where none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(known)}"


def _line_of(text: str, location: Sequence[str]) -> int | None:
    """Line of ``[section]`` or of ``key =`` inside it; tomllib keeps no positions."""
    if not location:
        return None
    section_line = None
    current = ""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.split("#")[0].strip(" \t[]")
            if current == location[0]:
                section_line = section_line or number
                if len(location) == 1:
                    return number
        name = stripped.partition("=")[0].strip().strip('"')
        if "=" in stripped and len(location) > 1:
            if current == location[0] and name == location[1]:
                return number
            if not current and name == ".".join(location[:2]):
                return number
    return section_line


def _mentioned(message: str) -> Sequence[str]:
    """The first section.key a message speaks of, to find its line."""
    for word in message.split():
        section, dot, key = word.strip(".,;=").partition(".")
        if dot and (section in SECTIONS or section in OPTIONAL_SECTIONS or section == "model"):
            return (section, key)
    return ()


def _expectation(error: Any) -> str:
    message = str(error["msg"])
    return message.replace("Input should be", "it should be").replace("Value should", "it should")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)
