"""`nmt config`: its keys, defaults, values and meanings are those that configurations have."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from support import Nmt

from nmt.config import OPTIONAL_SECTIONS, SECTIONS, Config
from nmt.config_file import dump_config, parse_config
from nmt.config_reference import Group, Key, look_up, meanings_of, reference
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS, Section
from nmt.presets import PRESETS, RATES, TRAINING_PRESETS

ROOT = Path(__file__).resolve().parents[1]
DATA = {"train": "a", "validation": "b", "source_language": "en", "target_language": "de"}
GROUPS = reference()
KEYS = [(group, key) for group in GROUPS for key in group.keys]
CLASSES: dict[str, type[Section]] = {**SECTIONS, **OPTIONAL_SECTIONS}


def class_of(group: Group) -> type[Section]:
    return MODEL_SECTIONS[group.architecture] if group.architecture else CLASSES[group.section]


def configuration(**sections: dict[str, Any]) -> Config:
    lines = []
    for name, keys in {"data": DATA, **sections}.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return parse_config("\n".join(lines))


def group_of(section: str, architecture: str = "") -> Group:
    (found,) = [g for g in GROUPS if (g.section, g.architecture) == (section, architecture)]
    return found


# --- keys ------------------------------------------------------------------------------------------------


def test_the_keys_are_those_that_a_configuration_accepts() -> None:
    known = {(name, "", key) for name, kind in CLASSES.items() for key in kind.model_fields}
    known |= {("model", name, key) for name, kind in MODEL_SECTIONS.items() for key in kind.model_fields}
    listed = [(group.section, group.architecture, key.name) for group, key in KEYS]
    assert set(listed) == known
    assert len(listed) == len(known)
    for architecture in MODEL_SECTIONS:
        config = configuration(model={"architecture": architecture}, export={})
        for section, values in config.model_dump().items():
            group = group_of(section, architecture if section == "model" else "")
            assert [key.name for key in group.keys] == list(values)


def test_sections_come_in_the_order_of_a_configuration() -> None:
    listed = list(dict.fromkeys(group.section for group in GROUPS))
    assert listed == list(Config.model_fields)


@pytest.mark.parametrize(("group", "key"), KEYS, ids=lambda part: getattr(part, "full_name", ""))
def test_every_key_has_a_meaning_that_stands_alone(group: Group, key: Key) -> None:
    assert len(key.meaning) > 8
    assert not re.search(r"noqa|type: ignore|fmt:|\bNone\b", key.meaning)
    assert not re.match(r"(then|also|and) ", key.meaning)
    assert not key.meaning.endswith((",", ":", ";"))


# --- defaults --------------------------------------------------------------------------------------------


def said(key: Key, **chosen: str) -> Any:
    """The default where some keys have these values; the last of `chosen` counts most."""
    value = key.default
    for name, choice in chosen.items():
        for other in key.otherwise:
            written, _, rest = other.partition(f" with {name} ")
            if choice in rest.split(", "):
                value = written
    return tomllib.loads(f"value = {value}")["value"] if value else None


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("architecture", MODEL_SECTIONS)
def test_defaults_of_models(architecture: str) -> None:
    for preset in (None, *PRESETS[architecture]):
        chosen = {"preset": preset} if preset else {}
        found = configuration(model={"architecture": architecture, **chosen}).model.model_dump()
        for key in group_of("model", architecture).keys:
            assert said(key, **chosen) == found[key.name] or key.name in chosen, key


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        *({"preset": preset} for preset in TRAINING_PRESETS),
        *({"optimizer": name} for name in ("adam", "adamw", "muon", "adadelta", "sgd")),
        *({"schedule": name} for name in ("inverse-sqrt", "linear", "cosine", "constant", "noam", "halving")),
        {"optimizer": "sgd", "schedule": "noam"},
    ],
    ids=str,
)
def test_defaults_of_training(chosen: dict[str, str]) -> None:
    found = configuration(training=chosen).training.model_dump()
    for key in group_of("training").keys:
        assert said(key, **chosen) == plain(found[key.name]) or key.name in chosen, key


def test_no_table_of_defaults_is_left_out() -> None:
    """Every value of a preset, an optimizer or a schedule that is not the default is said."""
    for table, names in ((TRAINING_PRESETS, ("preset",)), (RATES, ("optimizer", "schedule"))):
        for choice, values in table.items():
            for name, value in values.items():
                (key,) = [key for key in group_of("training").keys if key.name == name]
                told = [plain(said(key, **{by: choice})) for by in names]
                assert plain(value) in told


def test_other_defaults_and_what_is_required() -> None:
    config = configuration(export={})
    for section in ("data", "tokenizer", "search", "export"):
        values = getattr(config, section).model_dump()
        for key in group_of(section).keys:
            assert key.is_required == (key.name in DATA)
            assert key.is_required or said(key) == plain(values[key.name])
            assert not key.otherwise


# --- values ----------------------------------------------------------------------------------------------


def accepts(group: Group, key: Key, value: Any) -> bool:
    field = class_of(group).model_fields[key.name]
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("group", "key"), KEYS, ids=lambda part: getattr(part, "full_name", ""))
def test_values_said_are_those_accepted(group: Group, key: Key) -> None:
    for choice in re.findall(r'"[^"]*"', key.values):
        assert accepts(group, key, json.loads(choice))
    is_text = re.search(r"\btext\b", key.values) is not None
    assert accepts(group, key, "no such word") == (is_text and not key.values.startswith("list"))
    assert accepts(group, key, True) or key.values != "true or false"

    wrapped = (lambda n: [n, n]) if "list of 2" in key.values else (lambda n: [n])
    shape = wrapped if key.values.startswith("list") else (lambda n: n)
    least = 1 if "integer" in key.values else 1e-9
    for words, inside, outside in (
        (r"([\d.]+) or more", 0, -least),
        (r"above ([\d.]+)", least, 0),
        (r"([\d.]+) to [\d.]+", 0, -least),
        (r"[\d.]+ to ([\d.]+)", 0, least),
        (r"below ([\d.]+)", -least, 0),
    ):
        for bound in re.findall(words, key.values):
            number = int(bound) if "integer" in key.values else float(bound)
            assert accepts(group, key, shape(number + inside)), (key, number)
            assert not accepts(group, key, shape(number + outside)), (key, number)


# --- meanings --------------------------------------------------------------------------------------------


class Strange(Section):
    """Comments in every place."""

    plain: int = 1  # beside
    # above,
    # in two lines
    above: int = 2
    # above and
    both: str = "# no comment"  # beside
    without: int = 3

    # Of nobody.

    long: tuple[
        int,  # inside
        str,
    ] = (1, "#")  # at the end

    def method(self) -> int:
        local: int = 4  # of no key
        return local


def test_where_a_comment_may_stand() -> None:
    assert meanings_of(Strange) == {
        "plain": "beside",
        "above": "above, in two lines",
        "both": "above and beside",
        "without": "",
        "long": "inside at the end",
    }


def test_without_source_code(monkeypatch: pytest.MonkeyPatch) -> None:
    made = type("Made", (Section,), {"__module__": "nowhere"})
    with pytest.raises(UserError, match=r"docs/configuration\.md"):
        meanings_of(made)


# --- the command -----------------------------------------------------------------------------------------


def test_everything(nmt: Nmt) -> None:
    lines = nmt("config").lines
    assert max(map(len, lines)) < 80
    assert not any(line != line.rstrip() for line in lines)
    titles = [line for line in lines if line.startswith("[")]
    assert titles[:3] == ["[data]", "[tokenizer]", '[model] with architecture = "transformer"']
    assert sum(line.startswith("  ") and not line.startswith("   ") for line in lines) == len(KEYS)


def test_a_section_and_a_key(nmt: Nmt) -> None:
    lines = nmt("config", "search").lines
    assert lines[0] == "[search]"
    assert "  beam_size = 5  (integer, 1 or more)" in lines
    assert nmt("config", "[search]").lines == lines
    assert nmt("config", "training.r_drop").lines[3] == "  r_drop = 0.0  (number, 0 or more)"
    assert nmt("config", "r_drop").lines == nmt("config", "training.r_drop").lines
    assert [line for line in nmt("config", "preset").lines if line.startswith("[")][-1] == "[training]"


def test_one_architecture(nmt: Nmt) -> None:
    lines = nmt("config", "model", "--architecture", "luong").lines
    assert [line for line in lines if line.startswith("[")] == ['[model] with architecture = "luong"']
    assert len(nmt("config", "model.tie_embeddings").lines) > len(lines) // 4
    text = nmt.error("config", "norm", "--architecture", "luong")
    assert text == "nmt: luong has no model.norm, which is an option of transformer"
    assert "did you mean luong?" in nmt.error("config", "--architecture", "loung")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("trainig", "unknown section or key trainig; did you mean training?"),
        ("trainig.seed", "unknown section trainig; did you mean training?"),
        ("training.rdrop", "unknown key training.rdrop; did you mean r_drop?"),
        ("beamsize", "unknown section or key beamsize; did you mean beam_size?"),
        ("qqqqqqqq", "unknown section or key qqqqqqqq; sections: data, tokenizer, model,"),
        ("search.qqqqqqqq", "unknown key search.qqqqqqqq; known: beam_size, "),
        (".", "unknown section"),
        ("training.", "unknown key training."),
    ],
)
def test_unknown_names(nmt: Nmt, name: str, nearest: str) -> None:
    assert nearest in nmt.error("config", name)


@settings(max_examples=20, deadline=None)
@given(st.text())
def test_any_name_is_a_group_or_one_line(name: str) -> None:
    message = ""
    try:
        assert all(group.keys for group in look_up(name))
    except UserError as error:
        message = str(error)
    assert "\n" not in message


def test_the_page_is_up_to_date(nmt: Nmt) -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert nmt("config", "--format", "markdown").stdout.decode() == page, (
        "write it anew: nmt config --format markdown > docs/configuration.md"
    )
    rows = [line for line in page.split("\n") if line.startswith("| `")]
    assert len(rows) == len(KEYS)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_what_a_configuration_says_is_listed() -> None:
    """Every line of a whole configuration is a key of the list."""
    names = {key.full_name for _, key in KEYS}
    for section, keys in tomllib.loads(dump_config(configuration(export={}))).items():
        assert {f"{section}.{key}" for key in keys} <= names
