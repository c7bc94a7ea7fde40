"""nmt config: every key of a configuration, its default, what it may be and its meaning."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nmt.cli import output as out

if TYPE_CHECKING:
    from nmt.config_reference import Group, Key

_WIDTH = 80


def config(
    name: Annotated[
        str,
        typer.Argument(metavar="SECTION[.KEY]", help="Only this, such as training or data.tags."),
    ] = "",
    architecture: Annotated[
        str, typer.Option(metavar="NAME", help="Of [model] only the keys of this architecture.")
    ] = "",
    format: Annotated[Literal["text", "markdown"], typer.Option(help="How it is written.")] = "text",
) -> None:
    """What can stand in a configuration: keys, defaults, values, meanings."""
    from nmt.config_reference import look_up, of_architecture, reference

    groups = look_up(name) if name else reference()
    if architecture:
        groups = of_architecture(groups, architecture)
    out.result(_markdown(groups) if format == "markdown" else "\n\n".join(map(_text, groups)))


def _title(group: Group) -> str:
    return f"[{group.section}]" + (
        f' with architecture = "{group.architecture}"' if group.architecture else ""
    )


def _text(group: Group) -> str:
    lines = [_title(group), *_wrapped(group.about, "")]
    for key in group.keys:
        head = f"  {key.name}" + (f" = {key.default}" if key.default else "")
        values = f"({_values(key)})"
        if len(head) + 2 + len(values) < _WIDTH:
            lines += ["", f"{head}  {values}"]
        else:
            lines += ["", head, *_wrapped(values, " " * 6)]
        lines += _wrapped(key.meaning, " " * 6)
        if key.otherwise:
            lines += _wrapped("; ".join(key.otherwise), " " * 6)
    return "\n".join(lines)


def _values(key: Key) -> str:
    """What a key may be, and whether it may be left out where no default says so."""
    return key.values + ("; required" if key.is_required else "" if key.default else "; not set")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH - 1,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _markdown(groups: list[Group]) -> str:
    lines = [
        "# Configuration",
        "",
        "Every key that `nmt train CONFIG.toml` knows; `nmt config` prints the same. Written by",
        "`nmt config --format markdown > docs/configuration.md` from the comments in `nmt/config.py`,",
        "`model_config.py` and `training_config.py`. [README.md](../README.md) says what to do with them.",
    ]
    for group in groups:
        lines += ["", f"## {_title(group)}", "", _escaped(group.about), ""]
        lines += ["| key | default | values | meaning |", "| --- | --- | --- | --- |"]
        for key in group.keys:
            default = "required" if key.is_required else f"`{key.default}`" if key.default else "not set"
            default += "".join(f"; {_escaped(other)}" for other in key.otherwise)
            lines.append(f"| `{key.name}` | {default} | {_escaped(key.values)} | {_escaped(key.meaning)} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text in which a page shows every character, in code too."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        for mark in "\\|<>*_[]":
            parts[number] = parts[number].replace(mark, f"\\{mark}")
    return "`".join(parts)
