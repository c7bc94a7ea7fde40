"""Configurations as files: TOML in, TOML out, and the differences between two.

`load_config` reads a file, applies ``--set section.key=value`` and presets, and answers every
mistake with one line that names the file, the line and the nearest valid key.
"""

from __future__ import annotations

import glob
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from nmt.config import OPTIONAL_SECTIONS, SECTIONS, Config, SearchConfig, TokenizerConfig
from nmt.config_mistakes import Source, in_words, suggest
from nmt.errors import UserError
from nmt.idle import idle_keys
from nmt.model_config import MODEL_SECTIONS, Section
from nmt.presets import DEFAULT_PRESET, PRESETS, RATES, TRAINING_PRESETS

_SECTIONS = {**SECTIONS, **OPTIONAL_SECTIONS}  # but [model], whose keys depend on the architecture


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
    return _build(values, Source(text, file, set_from), strict=strict)


def parse_override(override: str) -> tuple[tuple[str, str], Any]:
    """``training.seed=2`` -> (("training", "seed"), 2).

    What is not TOML is text; so is what has no quotes where a key takes text and no number: a file may be
    called 2016, and nan and inf are language codes.

    Raises:
        UserError: it is not of that form.
    """
    name, equals, raw = override.partition("=")
    section, _, key = map(str.strip, name.partition("."))
    raw = raw.strip()
    if not (equals and section and key):
        raise UserError(f"--set {override}: not of the form section.key=value; e.g. --set training.seed=2")
    try:
        found = tomllib.loads(f"value = {raw}")
        value = found["value"] if len(found) == 1 else raw  # else a line further sets something else
    except (ValueError, RecursionError):  # no TOML; thousands of digits; nested without end
        value = raw
    if _takes_text(section, key) and not isinstance(value, str | list):
        value = raw
    return (section, key), value


def _takes_text(section: str, key: str) -> bool:
    """Whether a key takes text, or text and lists of it, and nothing else, whatever the architecture."""
    kinds = list(MODEL_SECTIONS.values()) if section == "model" else [_SECTIONS.get(section, Section)]
    fields = [kind.model_fields[key] for kind in kinds if key in kind.model_fields]
    return bool(fields) and all(_is_text(field.annotation) for field in fields)


def _is_text(annotation: Any) -> bool:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    single = [kind for kind in kinds if kind not in (NoneType, tuple[str, ...])]
    return bool(single) and all(
        kind is str or (get_origin(kind) is Literal and all(isinstance(name, str) for name in get_args(kind)))
        for kind in single
    )


def _build(values: dict[str, Any], source: Source, *, strict: bool) -> Config:
    """Validate; the first mistake, in the order of the file, becomes a UserError."""
    _check_sections(values, source)
    model = {"architecture": "transformer", **values.get("model", {})}
    _check_architecture(model["architecture"], source)
    _check_keys({**values, "model": model}, source)
    _check_preset(model, source)
    full = {
        **values,
        "model": _model_defaults(model, values.get("tokenizer", {})),
        "training": _training_defaults(values.get("training", {})),
    }
    try:
        config = Config.model_validate(full)
    except ValidationError as error:
        raise source.mistake(*in_words(error, full)) from None
    if strict:
        _check_idle(config, values, source)
    return config


def _check_sections(values: Mapping[str, Any], source: Source) -> None:
    known = [*SECTIONS, "model", *OPTIONAL_SECTIONS]
    for name, section in values.items():
        if name not in known:
            raise source.mistake(f"unknown section [{name}]; {suggest(name, known)}", (name,))
        if not isinstance(section, dict):
            raise source.mistake(f"{name} is a section; write [{name}] on a line of its own", (name,))
    if "data" not in values:
        raise source.mistake(
            "no [data] section; say what to train on (data.train, data.validation and the languages)"
        )


def _check_architecture(architecture: Any, source: Source) -> None:
    if not isinstance(architecture, str) or architecture not in MODEL_SECTIONS:
        raise source.mistake(
            f"model.architecture = {json.dumps(architecture, default=str)} is not known; "
            f"{suggest(str(architecture), list(MODEL_SECTIONS))}",
            ("model", "architecture"),
        )


def _check_keys(values: Mapping[str, dict[str, Any]], source: Source) -> None:
    """That all are known; `values` name a known architecture."""
    architecture = values["model"]["architecture"]
    sections = {**_SECTIONS, "model": MODEL_SECTIONS[architecture]}
    for name, section in values.items():
        fields = sections[name].model_fields
        for key in section:
            if key in fields:
                continue
            owners = [a for a, kind in MODEL_SECTIONS.items() if name == "model" and key in kind.model_fields]
            if owners:
                raise source.mistake(
                    f"{architecture} has no model.{key}, which is an option of {' and '.join(owners)}; "
                    "remove it or change model.architecture",
                    (name, key),
                )
            raise source.mistake(f"unknown key {name}.{key}; {suggest(key, list(fields))}", (name, key))


def _check_preset(model: Mapping[str, Any], source: Source) -> None:
    preset, presets = model.get("preset", DEFAULT_PRESET), PRESETS[model["architecture"]]
    if not isinstance(preset, str) or preset not in presets:
        raise source.mistake(
            f"model.preset = {json.dumps(preset, default=str)} is not known for {model['architecture']}; "
            f"{suggest(str(preset), list(presets))}",
            ("model", "preset"),
        )


def _check_idle(config: Config, given: Mapping[str, Any], source: Source) -> None:
    """That nothing given does nothing."""
    said = {"data": given["data"], "training": given.get("training", {})}
    for idle, needs in idle_keys(config).items():
        place, key = idle.split(".")
        if key in said[place] and getattr(getattr(config, place), key) != _without(said, place, key):
            raise source.mistake(f"{idle} does nothing without {needs}; remove it", (place, key))


def _model_defaults(model: Mapping[str, Any], tokenizer: dict[str, Any]) -> dict[str, Any]:
    """[model] with what its preset implies."""
    preset = model.get("preset", DEFAULT_PRESET)
    full = {**PRESETS[model["architecture"]][preset], **model, "preset": preset}
    if model["architecture"] == "transformer" and not _shared(tokenizer):
        full.setdefault("tie_embeddings", "target")  # separate vocabularies cannot share all
    return full


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


def _line_in(message: str) -> int | None:
    _, found, rest = message.partition("at line ")
    digits = rest.split(",")[0].split(")")[0].strip()
    return int(digits) if found and digits.isdigit() else None


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
