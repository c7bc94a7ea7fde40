"""A Transformer of ours as one of CTranslate2, an inference engine in C++ that shares no code with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.models.positions import sinusoidal_positions
from nmt.models.transformer import Transformer

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")
from ctranslate2.specs import common_spec, transformer_spec  # noqa: E402

_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "swiglu": common_spec.Activation.SWISH,  # with ffn_glu
}
_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


class Converted:
    """Log-probabilities of given targets, by CTranslate2 with the weights of a Transformer."""

    def __init__(self, model: Transformer, folder: Path, **options: Any):
        """`options`: the keyword arguments of the model that are not seen from its weights."""
        self.options = options
        self.weights = {name: p.detach().numpy() for name, p in model.state_dict().items()}
        size, self.width = self.weights["embeddings.target.weight"].shape
        self.words = _SPECIAL + [f"word{i}" for i in range(len(_SPECIAL), size)]
        spec = self.spec(len(model.encoder), len(model.decoder))
        spec.register_source_vocabulary(self.words)
        spec.register_target_vocabulary(self.words)
        spec.config.layer_norm_epsilon = 1e-5
        spec.validate()
        spec.save(str(folder))
        self.translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
        )

    def score(self, source: list[int], target: list[int]) -> torch.Tensor:
        """Of each target token and of the end of sentence: (T + 1,)."""
        (result,) = self.translator.score_batch(
            [[self.words[i] for i in source]], [[self.words[i] for i in target]]
        )
        return torch.tensor(result.log_probs)

    def spec(self, encoder_layers: int, decoder_layers: int) -> Any:
        options: dict[str, Any] = dict(
            pre_norm=self.options["norm"] == "pre",
            activation=_ACTIVATIONS[self.options["activation"]],
            relative_position=self.options["positions"] == "relative",
            ffn_glu=self.options["activation"] == "swiglu",
            rms_norm=self.options["norm_type"] == "rmsnorm",
            rotary_dim=0 if self.options["positions"] == "rotary" else None,  # 0: all of a head
            rotary_interleave=True,  # pairs of neighbours
        )
        heads = self.options["heads"]
        encoder = transformer_spec.TransformerEncoderSpec(encoder_layers, heads, **options)
        decoder = transformer_spec.TransformerDecoderSpec(decoder_layers, heads, **options)
        encoder.embeddings[0].weight = self.weights["embeddings.source.weight"]
        decoder.embeddings.weight = self.weights["embeddings.target.weight"]
        self.linear(decoder.projection, "embeddings.output")
        for index, layer in enumerate(encoder.layer):
            self.self_attention(layer.self_attention, f"encoder.{index}", "attention", "attention_residual")
            self.feed_forward(layer.ffn, f"encoder.{index}.feed_forward")
        for index, layer in enumerate(decoder.layer):
            name = f"decoder.{index}.cross"
            self.self_attention(layer.self_attention, f"decoder.{index}", "self_attention", "self_residual")
            self.norm(layer.attention.layer_norm, f"{name}_residual.norm")
            self.linear(layer.attention.linear[0], f"{name}_attention.input", slice(0, self.width))
            self.linear(layer.attention.linear[1], f"{name}_attention.input", slice(self.width, None))
            self.linear(layer.attention.linear[2], f"{name}_attention.output")
            self.feed_forward(layer.ffn, f"decoder.{index}.feed_forward")
        for stack, stack_name, side in ((encoder, "encoder", "source"), (decoder, "decoder", "target")):
            if self.options["norm"] == "pre":
                self.norm(stack.layer_norm, f"{stack_name}_norm")
            if self.options["positions"] == "learned":
                stack.position_encodings.encodings = self.weights[f"{side}_positions.table.weight"]
            elif self.options["positions"] == "sinusoidal":  # its own have another order of columns
                table = sinusoidal_positions(0, 64, self.width, torch.empty(0))
                stack.position_encodings.encodings = table.numpy()
        return transformer_spec.TransformerSpec(encoder, decoder)

    def linear(self, spec: Any, name: str, rows: slice = slice(None)) -> None:
        spec.weight = self.weights[f"{name}.weight"][rows]
        if f"{name}.bias" in self.weights:
            spec.bias = self.weights[f"{name}.bias"][rows]

    def norm(self, spec: Any, name: str) -> None:
        spec.gamma = self.weights[f"{name}.weight"]
        if f"{name}.bias" in self.weights:
            spec.beta = self.weights[f"{name}.bias"]

    def self_attention(self, spec: Any, layer: str, name: str, residual: str) -> None:
        self.norm(spec.layer_norm, f"{layer}.{residual}.norm")
        self.linear(spec.linear[0], f"{layer}.{name}.input")
        self.linear(spec.linear[1], f"{layer}.{name}.output")
        if self.options["positions"] == "relative":
            spec.relative_position_keys = self.weights[f"{layer}.relative.keys"]
            spec.relative_position_values = self.weights[f"{layer}.relative.values"]

    def feed_forward(self, spec: Any, name: str) -> None:
        self.norm(spec.layer_norm, f"{name}_residual.norm")
        self.linear(spec.linear_1, f"{name}.outer")
        if self.options["activation"] == "swiglu":
            self.linear(spec.linear_0, f"{name}.gate")
            self.linear(spec.linear_0_noact, f"{name}.inner")
        else:
            self.linear(spec.linear_0, f"{name}.inner")
