"""Recipes run by make, as users run them, in a folder of their own: the checkout stays as it is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


def workshop(folder: Path) -> Path:
    """`folder`, with what make needs linked into it; `corpora/` and `runs/` come to lie there."""
    if shutil.which("make") is None:
        pytest.skip("needs make, with which recipes are run")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "ready").touch()  # newer than what it depends on: make installs nothing
    return folder


def make(
    folder: Path, target: str, *, dry: bool = False, timeout: float = 600, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`make TARGET NAME=VALUE...` in a folder of `workshop`, with the running interpreter's environment.

    Args:
        dry: show what would be done.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    given = {"VENV": sys.prefix, "READY": "ready", **variables}
    return subprocess.run(
        [
            "make",
            "--no-print-directory",
            *(["--dry-run"] if dry else []),
            target,
            *(f"{name}={value}" for name, value in given.items()),
        ],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def load_script(recipe: str, name: str) -> ModuleType:
    """A script of a recipe, as a module."""
    path = ROOT / "recipes" / recipe / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{recipe}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
