"""A run folder: its configuration, metrics, environment and checkpoints, and who may write to it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt import __version__
from nmt.changes import Changes
from nmt.checkpoint import CONFIG, MANIFEST, WEIGHTS, NewerFormat, find_model, read_manifest
from nmt.config import Config
from nmt.config_file import dump_config, load_config
from nmt.errors import UserError
from nmt.files import LOCK, lock, point, remove_folder, remove_partial, write_file
from nmt.metrics_file import MetricsFile

METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    step: int
    scores: dict[str, float]
    scheduled: bool  # False: written because training was interrupted


class Run:
    """A run folder that this process alone writes to, until `close`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints_folder = folder / "checkpoints"
        self._metrics = MetricsFile(folder / METRICS)
        self._lock: Any = None
        self.aside: Path | None = None  # where a restart moved what was here

    @classmethod
    def open(cls, folder: Path, config: Config, *, restart: bool = False) -> Run:
        """Create a run, or continue one of the same configuration.

        Args:
            restart: move an existing run aside (DIR.old-1, DIR.old-2, ...) and begin anew.

        Raises:
            UserError: another process trains here, the folder is something else, or keys of the configuration
                changed that may not (`nmt.changes`; the message names them).
        """
        if folder.exists() and not folder.is_dir():
            raise UserError("is a file; name a folder for the run with --run", file=folder)
        folder = folder.resolve() if restart else folder
        cls(folder)._check_is_ours()
        aside: Path | None = None
        if restart and _is_run(folder):
            with cls(folder)._locked():
                free = (folder.with_name(f"{folder.name}.old-{number}") for number in itertools.count(1))
                aside = folder.rename(next(path for path in free if not path.exists()))
        run = cls(folder)
        run.aside = aside
        run._create()
        run._locked()
        try:
            run._begin_or_continue(config)
        except BaseException:
            run.close()
            raise
        return run

    def put_back(self) -> bool:
        """Undo a restart of which nothing has come; whether there was one."""
        begun = self.folder / METRICS
        if self.aside is None or self.checkpoints() or (begun.exists() and begun.stat().st_size):
            return False
        self.close()
        remove_folder(self.folder)
        self.aside.rename(self.folder)
        return True

    def _check_is_ours(self) -> None:
        """UserError for a folder that holds something, but no run."""
        if not self.folder.is_dir() or _is_run(self.folder):
            return
        ours = ("checkpoints", LOCK, ENVIRONMENT)
        foreign = sorted(p.name for p in self.folder.iterdir() if p.name not in ours)
        if foreign or any((self.folder / "checkpoints").glob("*")):
            raise UserError(
                f"is not empty and not a run (it holds {', '.join(foreign[:3]) or 'checkpoints'}); "
                "choose another --run",
                file=self.folder,
            )

    def _create(self) -> None:
        try:
            self.checkpoints_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot be created ({error.strerror}); choose another --run", file=self.folder
            ) from None

    def _locked(self) -> Run:
        try:
            self._lock = lock(self.folder, wait=False)
        except BlockingIOError:
            raise UserError(
                "another process is training here; wait for it, or choose another --run", file=self.folder
            ) from None
        return self

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin_or_continue(self, config: Config) -> None:
        remove_partial(self.folder)
        remove_partial(self.checkpoints_folder)
        found, unreadable = find_checkpoints(self.folder)
        if unreadable and not found:
            raise UserError(f"{next(iter(unreadable.values()))}; or begin anew with --restart")
        if not (self.folder / CONFIG).exists() or not found:
            # Nothing was trained yet, perhaps because the configuration was wrong: this one counts.
            self._describe(config)
            return
        refused = self.changes_since(found[-1].folder, config).refused
        if refused:
            raise UserError(
                f"this run was begun with another configuration: {'; '.join(refused)}; use --run for a new "
                "folder, or --restart to move this one aside and begin anew",
                file=self.folder,
            )

    def config_of(self, checkpoint: Path) -> Config:
        """What a checkpoint was trained with; without a configuration of its own, what the run says."""
        try:
            return load_config(checkpoint / CONFIG)
        except UserError:
            return load_config(self.folder / CONFIG)

    def changes_since(self, checkpoint: Path, config: Config) -> Changes:
        """From what a checkpoint was trained with to a configuration."""
        before = self.config_of(checkpoint)
        named = before.training.initialize_from, config.training.initialize_from
        same_base = False
        if named[0] != named[1] and None not in named:
            origin = read_manifest(checkpoint).get("initialized_from")
            same_base = isinstance(origin, dict) and _may_be(Path(str(named[1])), origin.get("sha256"))
        return Changes.between(before, config, same_base=same_base)

    def goes_on_with(self, config: Config) -> None:
        """Write down the configuration that holds from now on.

        A checkpoint has that of its own. So a change that no checkpoint has seen is found again.
        """
        text = dump_config(config)
        if (self.folder / CONFIG).read_text(encoding="utf-8") != text:
            write_file(self.folder / CONFIG, text)

    def make_again(self, config: Config) -> bool:
        """Whether the folder had vanished. If so it is made again, but not the folder that it was in.

        Raises:
            OSError: it cannot be made, or another process trains in what is there now.
        """
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat((self.folder / LOCK).stat(), os.fstat(self._lock.fileno())):
                    return False
        self.folder.mkdir(exist_ok=True)
        self.checkpoints_folder.mkdir(exist_ok=True)
        again = lock(self.folder, wait=False)
        if self._lock is not None:
            self._lock.close()
        self._lock = again
        self._describe(config)
        return True

    def _describe(self, config: Config) -> None:
        # In this order: a configuration alone may be anybody's.
        write_file(self.folder / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")
        write_file(self.folder / CONFIG, dump_config(config))

    def close(self) -> None:
        self._metrics.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # Metrics

    def cut_metrics(self, size: int) -> None:
        """Forget metrics logged after the checkpoint that training goes on from."""
        self._metrics.cut(size)

    def log(self, event: dict[str, Any]) -> int:
        """Append one object to the metrics, flushed; returns their size in bytes.

        Raises:
            OSError: it cannot be written now; it is with the next that can.
        """
        self._metrics.add(event)
        return self._metrics.write()

    def log_later(self, event: dict[str, Any]) -> None:
        """Have the next `log` or `sync_metrics` append this too."""
        self._metrics.add(event)

    def sync_metrics(self) -> int:
        """Flush the metrics to disk; returns their size in bytes."""
        return self._metrics.write(sync=True)

    # Checkpoints

    def checkpoint_folder(self, step: int) -> Path:
        return self.checkpoints_folder / f"{_PREFIX}{step:08d}"

    def checkpoints(self) -> list[Checkpoint]:
        """All whole checkpoints, oldest first."""
        return list_checkpoints(self.folder)

    def set_aside(self, checkpoint: Path) -> None:
        """Keep a damaged checkpoint for study, as checkpoints/damaged-step-N: training does not find it."""
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        if aside.exists():
            remove_folder(aside)
        checkpoint.rename(aside)

    def keep(self, *, last: int, best: int, metric: str) -> None:
        """Point `last` and `best`, then remove checkpoints that are neither among the last nor the best.

        A checkpoint written at an interruption serves to continue from: the next scheduled one
        replaces it, so that an interrupted run ends with the same checkpoints as any other.
        """
        found = self.checkpoints()
        if not found:
            return
        scheduled = [c for c in found if c.scheduled]
        point(self.folder / "last", found[-1].folder)
        ranked = rank(scheduled, metric)
        if ranked:
            point(self.folder / "best", ranked[0].folder)
        kept = {c.folder for c in [*scheduled[-last:], *ranked[:best], found[-1]]}
        for checkpoint in found:
            if checkpoint.folder not in kept:
                remove_folder(checkpoint.folder)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All whole checkpoints of a run folder, oldest first.

    Raises:
        UserError: a later nmt wrote one.
    """
    return find_checkpoints(folder)[0]


def find_checkpoints(folder: Path) -> tuple[list[Checkpoint], dict[Path, str]]:
    """As `list_checkpoints`, and beside them why the manifests of others cannot be read."""
    found, unreadable = [], {}
    for path in sorted((folder / "checkpoints").glob(f"{_PREFIX}*")):
        if not (path / MANIFEST).exists():
            continue
        try:
            found.append(_checkpoint(path))
        except NewerFormat:
            raise
        except UserError as error:
            unreadable[path] = str(error)
    return found, unreadable


def _checkpoint(path: Path) -> Checkpoint:
    manifest = read_manifest(path)
    step, scores = manifest.get("step"), manifest.get("scores", {})
    if not (isinstance(step, int) and isinstance(scores, dict)):
        raise UserError("does not say of which step it is", file=path / MANIFEST)
    return Checkpoint(path, step, scores, manifest.get("scheduled", True))


def _may_be(model: Path, sha256: str | None) -> bool:
    """Whether a model has these weights, as far as one can still tell: it may be gone."""
    try:
        found = read_manifest(find_model(model))["files"].get(WEIGHTS)
    except UserError:
        return True
    return bool(found == sha256)


def rank(checkpoints: list[Checkpoint], metric: str) -> list[Checkpoint]:
    """Best first by a validation metric; among equals by the loss, then the earlier."""
    scored = [c for c in checkpoints if metric in c.scores]
    return sorted(scored, key=lambda c: (*merit(c.scores, metric), c.step))


def _is_run(folder: Path) -> bool:
    """Whether a configuration there is what a training wrote."""
    beside = (folder / ENVIRONMENT).exists() or any((folder / "checkpoints").glob(f"{_PREFIX}*/{MANIFEST}"))
    return beside and (folder / CONFIG).exists()


def merit(scores: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """What validations are ranked by, the less the better: the metric, among equals the loss.

    One whose loss is not known, as in checkpoints of before it was noted, comes before those.
    """
    loss = scores.get("loss")
    return -sign(metric) * float(scores[metric]), 0.0 if loss is None else float(loss)


def sign(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return 1 if metric == "bleu" else -1


def environment() -> dict[str, Any]:
    """What a number depends on beside the configuration."""
    import numpy
    import sacrebleu
    import sentencepiece
    import torch

    cuda = torch.cuda.is_available()
    return {
        "nmt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "sentencepiece": sentencepiece.__version__,
        "sacrebleu": sacrebleu.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "command": sys.argv,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
