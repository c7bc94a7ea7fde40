"""Translations that are kept beside a run: read again, and made again where they are not what is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nmt import report_translations
from nmt.checkpoint import LoadedModel, load_model
from nmt.report_translations import FOLDER, translate
from nmt.translator import Translator

SOURCES = ["The dog sleeps.", "", "A woman sees the old house.", "\u2028</script>\u202e x", "x" * 2000]


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load_model(tiny_run / "runs" / "tiny")


def kept(folder: Path) -> Path:
    (file,) = (folder / FOLDER).iterdir()
    return file


def test_a_second_report_reads_the_first_ones_translation(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    first = translate(loaded, tmp_path, "ab", SOURCES, tell=told.append)
    expected = Translator.of(loaded).translate_all(SOURCES)
    assert first.texts == [one.text for one in expected]
    assert first.tokens == [list(one.candidates[0].tokens) for one in expected]
    assert first.parts == [one.parts for one in expected]
    assert first.parts[-1] > 1
    assert (told, first.reused) == ([len(SOURCES)], False)
    monkeypatch.setattr(report_translations, "Translator", None)
    again = translate(loaded, tmp_path, "ab", SOURCES)
    assert again.reused
    assert (again.texts, again.tokens, again.parts, again.seconds) == (
        first.texts,
        first.tokens,
        first.parts,
        first.seconds,
    )


def test_other_models_and_texts_are_translated(loaded: LoadedModel, tmp_path: Path) -> None:
    translate(loaded, tmp_path, "ab", SOURCES)
    assert not translate(loaded, tmp_path, "cd", SOURCES).reused
    assert not translate(loaded, tmp_path, "ab", SOURCES[:-1]).reused
    assert translate(loaded, tmp_path, "ab", SOURCES).reused
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: json.dumps(json.loads(text) | {"nmt": "0.0.1"}),
        lambda text: json.dumps(json.loads(text) | {"texts": ["x"]}),
        lambda text: json.dumps(json.loads(text) | {"texts": [3] * 5}),
        lambda text: json.dumps(json.loads(text) | {"tokens": 5}),
        lambda text: json.dumps(json.loads(text) | {"seconds": "long"}),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "parts"}),
    ],
)
def test_what_is_damaged_is_made_again(loaded: LoadedModel, tmp_path: Path, change: Any) -> None:
    first = translate(loaded, tmp_path, "ab", SOURCES)
    whole = kept(tmp_path).read_text()
    kept(tmp_path).write_text(change(whole))
    again = translate(loaded, tmp_path, "ab", SOURCES)
    assert not again.reused
    assert again.texts == first.texts
    assert json.loads(kept(tmp_path).read_text()).keys() == json.loads(whole).keys()


def test_a_folder_that_takes_nothing_costs_only_the_time(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    warnings: list[str] = []
    assert translate(loaded, tmp_path, "ab", SOURCES, warn=warnings.append).texts
    (warning,) = warnings
    assert str(tmp_path / FOLDER) in warning
    assert "not kept" in warning
