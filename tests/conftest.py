"""Shared by all tests: where the real data is, and a small trained model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support import Nmt, prepare_folder

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"

# An example may wait for another program; how long a test takes is no property of the code.
hypothesis.settings.register_profile("nmt", deadline=None)
hypothesis.settings.load_profile("nmt")
gc.disable()  # while modules are loaded and tests are collected: all of that stays


def pytest_collection_finish() -> None:
    """Thousands of tests are half a second of work for the garbage collector, each time, and in each fork."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def multi30k() -> Path:
    """The folder of Multi30k's raw files; tests that need it are skipped where it is absent."""
    folder = REAL_DATA / "multi30k" / "raw"
    if not (folder / "train.en.gz").exists():
        pytest.skip("needs Multi30k in ../shared/data, which is not part of the project")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small models are fastest with one."""
    import torch  # above it would be loaded before `support` has said how many threads it begins with

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `folder`, which the module with the test makes."""
    monkeypatch.chdir(folder)


@pytest.fixture
def nmt(tmp_path: Path) -> Nmt:
    """The command, run in this test's own folder."""
    return Nmt(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `corpus/`, `tiny.toml` and a finished run `runs/tiny`. Read only."""
    folder = tmp_path_factory.mktemp("tiny")
    prepare_folder(folder)
    Nmt(folder)("train", "tiny.toml")
    return folder
