"""Model folders: written whole or not at all, checked when read, no pickle ever loaded.

A model folder holds `model.safetensors`, `config.toml`, the tokenizer's files and `manifest.json`
(format, step, scores, sha256 of each file and of the training data). A checkpoint is a model folder
that also holds `training_state.pt`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nmt import __version__
from nmt.config import Config
from nmt.config_file import dump_config, load_config
from nmt.data.prepared import load_tokenizers, tokenizer_files
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import new_folder
from nmt.models import Model, build_model
from nmt.named import Named

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.toml"
MANIFEST = "manifest.json"
TRAINING_STATE = "training_state.pt"

Weights = dict[str, Tensor]


class NewerFormat(UserError):
    """A model that a later nmt wrote: it is not damaged."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to translate, and where it came from."""

    folder: Path
    model: Model  # in evaluation mode; but None of an export, which another engine translates with
    config: Config
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    manifest: dict[str, Any]

    @property
    def languages(self) -> tuple[str, str]:
        """Of source and target."""
        return self.config.data.source_language, self.config.data.target_language


def weights_of(model: Named) -> Weights:
    """Every parameter once, by name: shared matrices have one."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def save_model(
    folder: Path,
    weights: Weights,
    config: Config,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    manifest: Mapping[str, Any],
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder; `manifest` adds to what every manifest holds."""
    with new_folder(folder) as partial:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        # Written by Python: the libraries' own writers hide what the system says of a full disk.
        (partial / WEIGHTS).write_bytes(safetensors.torch.save(contiguous))
        (partial / CONFIG).write_text(dump_config(config), encoding="utf-8")
        for name, content in tokenizer_files(source_tokenizer, target_tokenizer).items():
            (partial / name).write_bytes(content)
        if training_state is not None:
            _save_state(dict(training_state), partial / TRAINING_STATE)
        sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        whole = {"format": FORMAT, "nmt": __version__, **manifest, "files": sums}
        (partial / MANIFEST).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


class _Written:
    """A file for torch, whose own errors do not tell what the system said."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.failed: tuple[int | None, str | None] | None = None  # not the error, which would keep all it saw

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = error.errno, error.strerror
            raise

    def flush(self) -> None:
        self._file.flush()


def _save_state(state: dict[str, Any], path: Path) -> None:
    """`torch.save`, not by way of a copy in memory."""
    with path.open("wb") as file:
        written = _Written(file)
        try:
            torch.save(state, written)  # type: ignore[arg-type]
        except RuntimeError:
            if written.failed is not None:
                raise OSError(*written.failed, str(path)) from None
            raise


def find_model(path: Path) -> Path:
    """The model folder that a user names: one, or a run, which stands for its best checkpoint.

    Raises:
        UserError: there is none.
    """
    if not path.exists():
        raise UserError("no such model; name a model folder or a run folder", file=path)
    if not path.is_dir():
        raise UserError("is a file; name the folder that holds model.safetensors", file=path)
    if (path / MANIFEST).exists():
        return path
    for link in ("best", "last"):  # an interrupted run may have no best yet
        if (path / link / MANIFEST).exists():
            return path / link
    if (path / WEIGHTS).exists():
        raise UserError(f"has no {MANIFEST}; it was not written whole, copy it again", file=path)
    hint = " yet: training has not reached a checkpoint" if (path / "metrics.jsonl").exists() else ""
    raise UserError(f"holds no model{hint}; name a model folder or a run folder", file=path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder; UserError if it is damaged or of a newer format."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version, sums = manifest["format"], manifest["files"]
        if not (isinstance(version, int) and isinstance(sums, dict)):
            raise TypeError
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=file) from None
    except (ValueError, KeyError, TypeError):
        raise UserError("is damaged; copy the model again from where it was trained", file=file) from None
    if version > FORMAT:
        raise NewerFormat(
            f"the model has format {version}, written by nmt {manifest.get('nmt', 'of a later version')}; "
            f"this is nmt {__version__}, which reads formats up to {FORMAT}: upgrade nmt",
            file=file,
        )
    return dict(manifest)


def model_hash(manifest: Mapping[str, Any]) -> str:
    """What tells a model from others, the sha256 of its files' in the manifest: where it lies, how long its
    training took and what that would go on from do not matter. The same training done again has the same."""
    files = {name: value for name, value in manifest["files"].items() if name != TRAINING_STATE}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def check_files(folder: Path, manifest: Mapping[str, Any], *, training_state: bool = False) -> None:
    """Compare each file with its sha256 in the manifest."""
    for name, expected in manifest["files"].items():
        if name == TRAINING_STATE and not training_state:
            continue
        file = folder / name
        if not file.exists():
            raise UserError("is missing from the model folder; copy the model again", file=file)
        if _sha256(file) != expected:
            raise UserError(
                f"is not the file that was saved (its sha256 differs from {MANIFEST}): it was changed or cut "
                "short; copy the model again",
                file=file,
            )


def load_weights(folder: Path) -> Weights:
    file = folder / WEIGHTS
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"cannot be loaded: {error}; copy the model again", file=file) from None


def load_model(path: Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a model folder, or a run's best checkpoint, for translation.

    Raises:
        UserError: it is not a model, is damaged, or of a newer format.
    """
    folder = find_model(path)
    manifest = read_manifest(folder)
    if "export" in manifest:
        raise UserError(
            "is an export for CTranslate2; use nmt translate --engine ctranslate2, or name its model",
            file=folder,
        )
    check_files(folder, manifest)
    config = load_config(folder / CONFIG)
    source_tokenizer, target_tokenizer = load_tokenizers(folder)
    model = build_model(config.model, len(source_tokenizer), len(target_tokenizer))
    set_weights(model, load_weights(folder), folder)
    model.to(device).eval()
    return LoadedModel(folder, model, config, source_tokenizer, target_tokenizer, manifest)


def set_weights(model: Named, weights: Weights, folder: Path) -> None:
    """Copy weights into a model; UserError if the names or shapes are not the model's."""
    parameters = dict(model.named_parameters())
    different = sorted(parameters.keys() ^ weights.keys())
    different += [
        n for n in sorted(parameters.keys() & weights.keys()) if parameters[n].shape != weights[n].shape
    ]
    if different:
        raise UserError(
            f"does not fit its {CONFIG} ({len(different)} tensors differ, the first is {different[0]}); "
            "copy the model again",
            file=folder / WEIGHTS,
        )
    broken = sorted(name for name, tensor in weights.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise UserError(
            f"has what is no number ({len(broken)} tensors, the first is {broken[0]}): training had failed; "
            "use an earlier checkpoint",
            file=folder / WEIGHTS,
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def load_training_state(folder: Path) -> dict[str, Any]:
    file = folder / TRAINING_STATE
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError("has no training state: training cannot go on from here", file=folder) from None
    return state


def average(folders: list[Path]) -> Weights:
    """The mean of the weights of several checkpoints of one model, computed in float64."""
    total: Weights = {}
    for folder in folders:
        check_files(folder, read_manifest(folder))
        weights = load_weights(folder)
        if not total:
            total = {name: tensor.double() for name, tensor in weights.items()}
            kinds = {name: tensor.dtype for name, tensor in weights.items()}
            continue
        if weights.keys() != total.keys() or any(weights[n].shape != total[n].shape for n in total):
            raise UserError(
                f"has other weights than {folders[0]}; average checkpoints of one run", file=folder
            )
        for name, tensor in weights.items():
            total[name] += tensor.double()
    return {name: (tensor / len(folders)).to(kinds[name]) for name, tensor in total.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
