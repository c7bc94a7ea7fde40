"""Every key of a configuration with its default, what it may be and its meaning: what `nmt config` prints.

All of it is read off the classes of `nmt.config`: values off the types, the meaning off the comment beside
or above a key, defaults off the classes and `nmt.presets`.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nmt.config import OPTIONAL_SECTIONS, SECTIONS
from nmt.config_file import to_toml
from nmt.config_mistakes import suggest
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS, Section
from nmt.presets import DEFAULT_PRESET, PRESETS, RATES, TRAINING_PRESETS

_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
_GUARD = 1_000_000  # upper bounds from here on only keep out what no machine could do
_NAMES = {int: "integer", float: "number", str: "text"}


@dataclass(frozen=True)
class Key:
    """One key. Values are written as in a configuration, as TOML."""

    section: str
    name: str
    default: str  # "" where there is none
    is_required: bool
    values: str  # what it may be, in words
    meaning: str
    otherwise: tuple[str, ...]  # other defaults, such as "512 with preset small, base"

    @property
    def full_name(self) -> str:
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Group:
    """The keys of a section; of [model] those of one architecture."""

    section: str
    architecture: str  # "" but in [model]
    about: str
    keys: tuple[Key, ...]


def reference() -> list[Group]:
    """All keys, in the order of the classes.

    Raises:
        UserError: this installation has no source code, in which the meanings stand.
    """
    data, tokenizer, *others = SECTIONS.items()
    groups = [_group(name, kind) for name, kind in (data, tokenizer)]
    groups += [_group("model", kind, architecture) for architecture, kind in MODEL_SECTIONS.items()]
    return groups + [_group(name, kind) for name, kind in (*others, *OPTIONAL_SECTIONS.items())]


def look_up(name: str) -> list[Group]:
    """The part of `reference` that a section, ``section.key`` or the name of a key alone stands for.

    Raises:
        UserError: there is none; says which is nearest.
    """
    groups = reference()
    name = name.strip().strip("[]")
    section, dot, key = name.partition(".")
    sections = list(dict.fromkeys(group.section for group in groups))
    if section in sections:
        groups = [group for group in groups if group.section == section]
        if not dot:
            return groups
    elif dot:
        raise UserError(f"unknown section {section}; {suggest(section, sections)}")
    else:
        key = name
    found = [Group(g.section, g.architecture, g.about, keys) for g in groups if (keys := _named(g.keys, key))]
    if not found:
        names = dict.fromkeys(k.name for group in groups for k in group.keys)
        if dot:
            raise UserError(f"unknown key {name}; {suggest(key, list(names))}")
        close = suggest(name, [*sections, *names])
        close = close if close.startswith("did") else f"sections: {', '.join(sections)}"
        raise UserError(f"unknown section or key {name}; {close}")
    return found


def of_architecture(groups: Iterable[Group], architecture: str) -> list[Group]:
    """Those that hold for an architecture; UserError where it is not known or none of them does."""
    if architecture not in MODEL_SECTIONS:
        raise UserError(
            f"--architecture {architecture} is not known; {suggest(architecture, list(MODEL_SECTIONS))}"
        )
    groups = list(groups)
    found = [group for group in groups if group.architecture in ("", architecture)]
    if not found:
        others = " and ".join(group.architecture for group in groups)
        raise UserError(
            f"{architecture} has no {groups[0].keys[0].full_name}, which is an option of {others}"
        )
    return found


def _named(keys: Iterable[Key], name: str) -> tuple[Key, ...]:
    return tuple(key for key in keys if key.name == name)


def _group(section: str, kind: type[Section], architecture: str = "") -> Group:
    meanings = meanings_of(kind)
    keys = []
    for name, field in kind.model_fields.items():
        default, otherwise = _defaults(section, architecture, name, field)
        required = default is PydanticUndefined
        written = "" if required or default is None else to_toml(default)
        keys.append(
            Key(section, name, written, required, values_of(field), meanings.get(name, ""), otherwise)
        )
    return Group(section, architecture, " ".join((kind.__doc__ or "").split()), tuple(keys))


def meanings_of(kind: type[Section]) -> dict[str, str]:
    """Of each key of a class the comment beside it, after the lines of comment directly above it.

    Raises:
        UserError: the source code is not there.
    """
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        raise UserError(
            "the meanings of keys stand in the source code of nmt, which is not installed here; see "
            "docs/configuration.md"
        ) from None
    above: dict[int, str] = {}
    beside: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines = beside if token.line[: token.start[1]].strip() else above
            lines[token.start[0]] = token.string.lstrip("#").strip()
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in above:
                first -= 1
            texts = [above[line] for line in range(first, node.lineno)]
            texts += [beside[n] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in beside]
            found[node.target.id] = " ".join(texts)
    return found


def _defaults(section: str, architecture: str, name: str, field: FieldInfo) -> tuple[Any, tuple[str, ...]]:
    """The default, and what it is elsewhere; PydanticUndefined where the key has to be given."""
    default = field.default
    if section == "model":
        if name == "architecture":
            return architecture, ()
        if name == "preset":
            return DEFAULT_PRESET, ()
        presets = PRESETS[architecture]
        default = presets[DEFAULT_PRESET].get(name, default)
        return default, _otherwise(default, {"preset": presets}, name, field.default)
    if section == "training":
        tables = {"optimizer": RATES, "schedule": RATES, "preset": TRAINING_PRESETS}
        literals = {key: _choices(SECTIONS[section].model_fields[key].annotation) for key in tables}
        parts = {
            key: {choice: values for choice, values in table.items() if choice in literals[key]}
            for key, table in tables.items()
        }
        return default, _otherwise(default, parts, name, default)
    return default, ()


def _otherwise(
    default: Any, tables: dict[str, dict[str, dict[str, Any]]], name: str, without: Any
) -> tuple[str, ...]:
    """``VALUE with KEY CHOICE, CHOICE`` for each value that differs from the default."""
    found = []
    for key, table in tables.items():
        choices: dict[str, list[str]] = {}
        for choice, values in table.items():
            value = values.get(name, without)
            if value != default:
                choices.setdefault(to_toml(value), []).append(choice)
        found += [f"{value} with {key} {', '.join(names)}" for value, names in choices.items()]
    return tuple(found)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """All literals anywhere in a type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def values_of(field: FieldInfo) -> str:
    """What a key may be, in words."""
    return _words(field.annotation, field.metadata)


def _words(kind: Any, bounds: Iterable[Any] = ()) -> str:
    origin: Any = get_origin(kind)
    parts: tuple[Any, ...] = get_args(kind)
    if origin is Literal:
        return _either([to_toml(part) for part in parts])
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"list: {_words(parts[0])}"
        return f"list of {len(parts)}: {_words(parts[0])}"
    if hasattr(kind, "__metadata__"):  # Annotated
        inner = [bound for part in kind.__metadata__ for bound in getattr(part, "metadata", [part])]
        return _words(parts[0], inner)
    if parts:  # of a union
        wanted = [p for p in parts if p is not NoneType]
        wanted.sort(key=lambda part: not _choices(part))  # words before numbers
        return _either([_words(part, bounds) for part in wanted])
    if kind is bool:
        return "true or false"
    given = {
        name: to_toml(value)
        for name in _BOUNDS
        for bound in bounds
        if (value := getattr(bound, name, None)) is not None
    }
    if float(given.get("le", 0)) >= _GUARD:
        del given["le"]
    if {"ge", "le"} <= given.keys():
        return f"{_NAMES[kind]}, {given['ge']} to {given['le']}"
    return ", ".join([_NAMES[kind], *(_BOUNDS[name].format(value) for name, value in given.items())])


def _either(parts: list[str]) -> str:
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
