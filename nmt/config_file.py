"""Configurations as files: TOML in, TOML out, and the differences between two.

`load_config` reads a file, applies ``--set section.key=value`` and presets, and answers every
mistake with one line that names the file, the line and the nearest valid key.
"""

from __future__ import annotations

import difflib
import glob
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt.config import OPTIONAL_SECTIONS, SECTIONS, Config, SearchConfig, TokenizerConfig
from nmt.errors import UserError
from nmt.idle import idle_keys
from nmt.model_config import MODEL_SECTIONS
from nmt.presets import DEFAULT_PRESET, PRESETS, RATES, TRAINING_PRESETS

_TEXT_KEYS = ("source_language", "target_language", "device", "initialize_from")


def load_config(path: str | Path, overrides: Iterable[str] = (), *, strict: bool = False) -> Config:
    """Read a configuration file and apply ``section.key=value`` overrides.

    Args:
        strict: refuse what is given and does nothing, too. Not for models that are there: what they were
            trained with counts.

    Raises:
        UserError: the file is missing or not TOML, a key is unknown, a value is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("no such configuration file; write one with `nmt init`", file=path) from None
    except IsADirectoryError:
        raise UserError("is a folder; name a configuration file", file=path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}); check the path", file=path) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError("is not UTF-8 text; is it a configuration file?", file=path, line=line) from None
    return _locate(parse_config(text, file=path, overrides=overrides, strict=strict), path.parent)


def _locate(config: Config, folder: Path) -> Config:
    """Paths of corpora and of a model: from the working directory, or beside the file if nothing is there."""

    def locate(prefix: str) -> str:
        beside = folder / prefix
        return str(beside) if not _exists(Path(prefix)) and _exists(beside) else prefix

    data = config.data
    located = data.model_copy(
        update={
            "train": locate(data.train) if isinstance(data.train, str) else tuple(map(locate, data.train)),
            "validation": locate(data.validation),
            "alignments": locate(data.alignments)
            if isinstance(data.alignments, str)
            else tuple(file and locate(file) for file in data.alignments),
            "test": locate(data.test) if isinstance(data.test, str) else tuple(map(locate, data.test)),
        }
    )
    training, model = config.training, config.training.initialize_from
    if model is not None and not _is_there(Path(model)) and _is_there(folder / model):
        training = training.model_copy(update={"initialize_from": str(folder / model)})
    return config.model_copy(update={"data": located, "training": training})


def _exists(prefix: Path) -> bool:
    return _is_there(prefix) or any(prefix.parent.glob(f"{glob.escape(prefix.name)}.*"))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def parse_config(
    text: str, *, file: str | Path = "config", overrides: Iterable[str] = (), strict: bool = False
) -> Config:
    """As `load_config`, from a string; `file` names the source in errors."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = getattr(error, "lineno", None) or _line_in(str(error))
        reason = str(error).split(" (at ")[0]
        raise UserError(f"not valid TOML: {reason}; correct the line", file=file, line=line) from None
    except (RecursionError, ValueError):  # nested without end; a number of thousands of digits
        raise UserError("not a configuration: too deep, or a number too long", file=file) from None
    set_from: dict[tuple[str, ...], str] = {}
    for override in overrides:
        location, value = parse_override(override)
        section, key = location
        if not isinstance(values.setdefault(section, {}), dict):
            raise UserError(f"{section} is a section; write [{section}]", file=file)
        values[section][key] = value
        set_from[location] = override
    return _build(values, text, file, set_from, strict=strict)


def parse_override(override: str) -> tuple[tuple[str, str], Any]:
    """``training.seed=2`` -> (("training", "seed"), 2). A value that is not TOML is taken as a string."""
    name, equals, raw = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise UserError(f"--set {override}: not of the form section.key=value; e.g. --set training.seed=2")
    if key.strip() in _TEXT_KEYS:
        return (section, key), raw.strip().strip("\"'")  # nan and inf are language codes, not numbers
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):  # no TOML; thousands of digits; nested without end
        value = raw.strip()
    return (section, key), value


def _build(
    values: dict[str, Any],
    text: str,
    file: str | Path,
    set_from: Mapping[tuple[str, ...], str],
    *,
    strict: bool,
) -> Config:
    """Validate; the first mistake, in the order of the file, becomes a UserError."""

    def fail(message: str, location: Sequence[str] = ()) -> UserError:
        for place, override in set_from.items():
            if location and place[: len(location)] == tuple(location) and not _line_of(text, location):
                return UserError(f"--set {override}: {message}")
        if tuple(location) in set_from:
            return UserError(f"--set {set_from[tuple(location)]}: {message}")
        return UserError(message, file=file, line=_line_of(text, location))

    values = dict(values)
    for name, section in values.items():
        known = [*SECTIONS, "model", *OPTIONAL_SECTIONS]
        if name not in known:
            raise fail(f"unknown section [{name}]; {suggest(name, known)}", (name,))
        if not isinstance(section, dict):
            raise fail(f"{name} is a section; write [{name}] on a line of its own", (name,))
    if "data" not in values:
        raise fail("no [data] section; say what to train on (data.train, data.validation and the languages)")

    model = dict(values.get("model", {}))
    architecture = model.setdefault("architecture", "transformer")
    if not isinstance(architecture, str) or architecture not in MODEL_SECTIONS:
        raise fail(
            f"model.architecture = {json.dumps(architecture, default=str)} is not known; "
            f"{suggest(str(architecture), list(MODEL_SECTIONS))}",
            ("model", "architecture"),
        )
    for name, section in {**values, "model": model}.items():
        fields = {**SECTIONS, **OPTIONAL_SECTIONS, "model": MODEL_SECTIONS[architecture]}[name].model_fields
        for key in section:
            if key in fields:
                continue
            elsewhere = [
                a for a, kind in MODEL_SECTIONS.items() if name == "model" and key in kind.model_fields
            ]
            if elsewhere:
                raise fail(
                    f"{architecture} has no model.{key}, which is an option of {' and '.join(elsewhere)}; "
                    "remove it or change model.architecture",
                    (name, key),
                )
            raise fail(f"unknown key {name}.{key}; {suggest(key, list(fields))}", (name, key))
    presets = PRESETS[architecture]
    preset = model.get("preset", DEFAULT_PRESET)
    if not isinstance(preset, str) or preset not in presets:
        raise fail(
            f"model.preset = {json.dumps(preset, default=str)} is not known for {architecture}; "
            f"{suggest(str(preset), list(presets))}",
            ("model", "preset"),
        )
    values["model"] = {**presets[preset], **model, "preset": preset}
    if architecture == "transformer" and not _shared(values.get("tokenizer", {})):
        values["model"].setdefault("tie_embeddings", "target")  # separate vocabularies cannot share all
    said = {"data": values["data"], "training": values.get("training", {})}
    values["training"] = _training_defaults(said["training"])
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        # The discriminator adds the architecture's tag to the location of a model key.
        path = [str(part) for part in first["loc"] if part not in MODEL_SECTIONS]
        if first["type"] == "missing" and len(path) > 2:
            given = json.dumps(values[path[0]][path[1]], default=str)
            raise fail(f"{path[0]}.{path[1]} = {given} has too few values; give all", path[:2]) from None
        if first["type"] == "missing":
            raise fail(f"{'.'.join(path)} is missing; add it under [{path[0]}]", path[:1]) from None
        if first["type"] == "value_error":
            raise fail(str(first["ctx"]["error"]), _mentioned(str(first["ctx"]["error"]))) from None
        given = json.dumps(first["input"], default=str)
        location = path[:2]
        if "[key]" in path or len(path) < 2:
            raise fail(f"{'.'.join(path)} = {given}: {first['msg']}", location) from None
        raise fail(f"{'.'.join(location)} = {given} is not valid; {_expectation(first)}", location) from None
    for idle, needs in idle_keys(config).items() if strict else ():
        place, key = idle.split(".")
        if key in said[place] and getattr(getattr(config, place), key) != _without(said, place, key):
            raise fail(f"{idle} does nothing without {needs}; remove it", (place, key))
    return config


def _without(given: Mapping[str, dict[str, Any]], section: str, key: str) -> Any:
    """What a key would be if it were not given. Configurations of runs give all keys, with these values."""
    rest = {name: value for name, value in given[section].items() if name != key}
    default = SECTIONS[section].model_fields[key].default
    return (_training_defaults(rest) if section == "training" else rest).get(key, default)


def _training_defaults(training: dict[str, Any]) -> dict[str, Any]:
    """[training] with what its preset, its optimizer and its schedule imply; what is given counts most."""

    def implied(table: dict[str, dict[str, Any]], chosen: dict[str, Any], key: str) -> dict[str, Any]:
        value = chosen.get(key)
        return table.get(value, {}) if isinstance(value, str) else {}  # invalid ones are reported later

    given = {**implied(TRAINING_PRESETS, training, "preset"), **training}
    by_optimizer = implied(RATES, given, "optimizer")
    by_schedule = implied(RATES, {**by_optimizer, **given}, "schedule")
    return {**by_optimizer, **by_schedule, **given}


def _shared(tokenizer: dict[str, Any]) -> bool:
    """tokenizer.shared as it will be read; what is invalid is reported with the rest."""
    try:
        return TokenizerConfig.model_validate(tokenizer).shared
    except ValidationError:
        return True


def changed_search(search: SearchConfig, given: Mapping[str, Any]) -> SearchConfig:
    """With some keys changed; UserError where they do not go together."""
    try:
        return SearchConfig.model_validate({**search.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise UserError(str(first["ctx"]["error"])) from None
        raise UserError(f"search.{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None


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


def suggest(name: str, known: Sequence[str]) -> str:
    """For the end of an error: the nearest known name, or all of them where none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(known)}"


def _line_in(message: str) -> int | None:
    _, found, rest = message.partition("at line ")
    digits = rest.split(",")[0].split(")")[0].strip()
    return int(digits) if found and digits.isdigit() else None


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


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML: every key, defaults included. `parse_config` reads it back."""
    lines = []
    for section, values in config.model_dump().items():
        if values is None:  # an optional section that is not there
            continue
        lines.append(f"[{section}]")
        lines += [f"{key} = {to_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def to_toml(value: Any) -> str:
    """A value of a key as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "[" + ", ".join(to_toml(item) for item in value) + "]"


def changed_keys(old: Config, new: Config) -> list[str]:
    """``section.key: old -> new`` for every key that differs."""
    before, after = old.model_dump(), new.model_dump()
    rows = []
    for section in before:
        mine, theirs = before[section] or {}, after[section] or {}
        for key in dict.fromkeys([*mine, *theirs]):
            a, b = mine.get(key), theirs.get(key)
            if a != b:
                rows.append(f"{section}.{key}: {_show(a)} -> {_show(b)}")
    return rows


def _show(value: Any) -> str:
    return "not set" if value is None else to_toml(value)
