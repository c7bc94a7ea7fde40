"""A Transformer of ours in the files of CTranslate2, an inference engine in C++ (Klein et al. 2020).

B sentences, D width, V vocabulary, N width of a head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nmt import __version__
from nmt.checkpoint import CONFIG, FORMAT, MANIFEST, LoadedModel, model_hash
from nmt.config import QUANTIZATIONS, SearchConfig
from nmt.config_file import dump_config
from nmt.data.prepared import tokenizer_files
from nmt.data.tokenizer import BOS, EOS, UNK, Tokenizer
from nmt.errors import UserError, install
from nmt.model_config import ModelConfig, TransformerConfig
from nmt.models.positions import sinusoidal_positions

ENGINE = "ctranslate2"
EPSILON = 1e-5  # of our norms
# Rows of a table of sinusoidal positions, at least: 1 MB at width 128.
_POSITIONS = 2048

Array = npt.NDArray[np.float32]

KEPT = ("step", "scores", "training_data", "longest_source")  # of the model's manifest


def require_ctranslate2() -> Any:
    """The module; UserError where it is not installed."""
    try:
        import ctranslate2
    except ImportError:
        raise UserError(f"CTranslate2 is not installed; {install('export')}") from None
    return ctranslate2


def unsupported(model: ModelConfig) -> list[str]:
    """The options of a configuration that CTranslate2 4.8 cannot run, each with the reason; [] if none.

    It runs every option of our Transformer: pre- and post-norm, LayerNorm and RMSNorm, ReLU, GELU and SwiGLU,
    all four kinds of positions, any number of heads and layers, feed-forward layers of different widths,
    separate and shared vocabularies, tied and untied embeddings. It has no recurrent layers.
    """
    if not isinstance(model, TransformerConfig):
        return [f'model.architecture = "{model.architecture}" (it runs Transformers only)']
    return []


def check_supported(model: ModelConfig, *, file: Path | None = None) -> None:
    """One UserError that names all unsupported options."""
    reasons = unsupported(model)
    if reasons:
        raise UserError(
            f"CTranslate2 cannot run {'; '.join(reasons)}; train a transformer for it, or translate with nmt",
            file=file,
        )


def write_export(loaded: LoadedModel, folder: Path, quantization: str = "float32") -> None:
    """Write what CTranslate2 loads and `nmt translate --engine ctranslate2` needs into an empty folder.

    CTranslate2's own: `model.bin`, `config.json` and the vocabularies, which are the SentencePiece pieces in
    the order of their ids. `add_source_eos` is true: `ctranslate2.Translator(folder).translate_batch` takes
    the pieces of a line as SentencePiece gives them, without any special token, and returns pieces.
    Ours: `config.toml`, the tokenizer's files, and `manifest.json`, which says from which model it came.

    Args:
        quantization: one of `nmt.config.QUANTIZATIONS`.

    Raises:
        UserError: CTranslate2 is not installed, or cannot run this model.
    """
    check_supported(loaded.config.model, file=loaded.folder)
    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization {quantization} is not known; use {', '.join(QUANTIZATIONS)}")
    engine = require_ctranslate2()
    settings = loaded.config.model
    assert isinstance(settings, TransformerConfig)
    positions = position_rows(settings, loaded.config.search)
    spec = transformer_spec(
        loaded.model,
        heads=settings.heads,
        norm=settings.norm,
        norm_type=settings.norm_type,
        activation=settings.activation,
        positions=settings.positions,
        position_rows=positions,
    )
    source, target = loaded.source_tokenizer, loaded.target_tokenizer
    register(spec, vocabulary(source), vocabulary(target))
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))
    (folder / CONFIG).write_text(dump_config(loaded.config), encoding="utf-8")
    for name, content in tokenizer_files(source, target).items():
        (folder / name).write_bytes(content)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "nmt": __version__,
        "export": {
            "format": ENGINE,
            "version": engine.__version__,
            "quantization": quantization,
            "positions": positions,  # of a sentence with its end; null: no limit
        },
        "model": {"sha256": model_hash(loaded.manifest), "step": loaded.manifest.get("step")},
        **{key: loaded.manifest[key] for key in KEPT if key in loaded.manifest},
        "files": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The piece of each id. CTranslate2 finds ids by pieces, so one that comes twice gets another name."""
    seen: set[str] = set()
    names = []
    for token_id, piece in enumerate(tokenizer.pieces(range(len(tokenizer)))):
        while piece in seen:
            piece = f"{piece}<{token_id}>"
        seen.add(piece)
        names.append(piece)
    return names


def position_rows(model: TransformerConfig, search: SearchConfig) -> int | None:
    """For how many positions there are added encodings: enough for what `search` allows; None: no limit."""
    if model.positions == "learned":
        return model.max_positions
    if model.positions == "sinusoidal":
        source = search.max_source_tokens + 1
        return max(_POSITIONS, source, int(search.max_length_factor * source) + search.max_length_offset)
    return None


# --- the weights ------------------------------------------------------------------------------------------


def transformer_spec(
    model: nn.Module,
    *,
    heads: int,
    norm: str,
    norm_type: str,
    activation: str,
    positions: str,
    position_rows: int | None,
) -> Any:
    """The weights of an `nmt.models.transformer.Transformer` as a ctranslate2.specs.TransformerSpec.

    The other arguments are those the model was built with; `position_rows` is the size of its table of
    sinusoidal positions.
    """
    require_ctranslate2()
    from ctranslate2.specs import common_spec
    from ctranslate2.specs import transformer_spec as specs

    kinds = {
        "relu": common_spec.Activation.RELU,
        "gelu": common_spec.Activation.GELU,
        "swiglu": common_spec.Activation.SWISH,  # with ffn_glu
    }
    options: dict[str, Any] = dict(
        pre_norm=norm == "pre",
        activation=kinds[activation],
        relative_position=positions == "relative",
        ffn_glu=activation == "swiglu",
        rms_norm=norm_type == "rmsnorm",
        rotary_dim=0 if positions == "rotary" else None,  # 0: all of a head
        rotary_interleave=True,  # pairs of neighbours
    )
    weights = _Weights(model)
    encoder = specs.TransformerEncoderSpec(len(weights.layers("encoder")), heads, **options)
    decoder = specs.TransformerDecoderSpec(len(weights.layers("decoder")), heads, **options)
    encoder.embeddings[0].weight = weights["embeddings.source.weight"]
    decoder.embeddings.weight = weights["embeddings.target.weight"]
    weights.linear(decoder.projection, "embeddings.output")
    width = decoder.embeddings.weight.shape[1]
    for index, layer in enumerate(encoder.layer):
        weights.self_attention(layer.self_attention, f"encoder.{index}", "attention", "attention_residual")
        weights.feed_forward(layer.ffn, f"encoder.{index}.feed_forward")
    for index, layer in enumerate(decoder.layer):
        name = f"decoder.{index}.cross"
        weights.self_attention(layer.self_attention, f"decoder.{index}", "self_attention", "self_residual")
        weights.norm(layer.attention.layer_norm, f"{name}_residual.norm")
        weights.linear(layer.attention.linear[0], f"{name}_attention.input", slice(0, width))
        weights.linear(layer.attention.linear[1], f"{name}_attention.input", slice(width, None))
        weights.linear(layer.attention.linear[2], f"{name}_attention.output")
        weights.feed_forward(layer.ffn, f"decoder.{index}.feed_forward")
    for stack, stack_name, side in ((encoder, "encoder", "source"), (decoder, "decoder", "target")):
        if norm == "pre":
            weights.norm(stack.layer_norm, f"{stack_name}_norm")
        if positions == "learned":
            stack.position_encodings.encodings = weights[f"{side}_positions.table.weight"]
        elif positions == "sinusoidal":  # CTranslate2's own have other frequencies and another order
            table = sinusoidal_positions(0, position_rows or _POSITIONS, width, torch.empty(0))
            stack.position_encodings.encodings = table.numpy()
    return specs.TransformerSpec(encoder, decoder)


def register(spec: Any, source: Sequence[str], target: Sequence[str]) -> None:
    """Give a spec its vocabularies, in the order of ids, with our special tokens at their ids."""
    spec.register_source_vocabulary(list(source))
    spec.register_target_vocabulary(list(target))
    spec.config.unk_token = target[UNK]
    spec.config.bos_token = spec.config.decoder_start_token = target[BOS]
    spec.config.eos_token = target[EOS]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = EPSILON


class _Weights:
    """Copies of a model's parameters by name, because quantization writes into what it is given."""

    def __init__(self, model: nn.Module):
        self.tensors: Mapping[str, torch.Tensor] = model.state_dict()

    def __getitem__(self, name: str) -> Array:
        return np.array(self.tensors[name].detach().float().cpu().numpy(), order="C")

    def layers(self, stack: str) -> set[str]:
        return {name.split(".")[1] for name in self.tensors if name.startswith(f"{stack}.")}

    def linear(self, spec: Any, name: str, rows: slice = slice(None)) -> None:
        spec.weight = self[f"{name}.weight"][rows]
        if f"{name}.bias" in self.tensors:
            spec.bias = self[f"{name}.bias"][rows]

    def norm(self, spec: Any, name: str) -> None:
        spec.gamma = self[f"{name}.weight"]
        if f"{name}.bias" in self.tensors:
            spec.beta = self[f"{name}.bias"]

    def self_attention(self, spec: Any, layer: str, name: str, residual: str) -> None:
        self.norm(spec.layer_norm, f"{layer}.{residual}.norm")
        self.linear(spec.linear[0], f"{layer}.{name}.input")
        self.linear(spec.linear[1], f"{layer}.{name}.output")
        if f"{layer}.relative.keys" in self.tensors:
            spec.relative_position_keys = self[f"{layer}.relative.keys"]
            spec.relative_position_values = self[f"{layer}.relative.values"]

    def feed_forward(self, spec: Any, name: str) -> None:
        self.norm(spec.layer_norm, f"{name}_residual.norm")
        self.linear(spec.linear_1, f"{name}.outer")
        if f"{name}.gate.weight" in self.tensors:
            self.linear(spec.linear_0, f"{name}.gate")
            self.linear(spec.linear_0_noact, f"{name}.inner")
        else:
            self.linear(spec.linear_0, f"{name}.inner")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
