"""The form of a model that search is fastest with."""

from __future__ import annotations

import copy

import torch

from nmt.models.fast_transformer import FastTransformer
from nmt.models.packed import packed
from nmt.models.seam import Model, SearchModel
from nmt.models.transformer import Transformer

_GPU_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: str, device: torch.device) -> str | None:
    """What is wrong with a precision on a device, and what to do; None: nothing."""
    if device.type == "cpu" and precision == "float16":
        return "precision float16 is for GPUs; use bfloat16 or int8 on a CPU"
    if device.type != "cpu" and precision == "int8":
        return "precision int8 is for CPUs; use bfloat16 or float16 on a GPU"
    return None


def for_search(model: Model, precision: str = "float32", *, recording: bool = False) -> SearchModel:
    """The same model, for `encode`, `start`, `step` and `project` without gradients.

    On a CPU its matrices are packed, and a Transformer's decoder runs in loops of C where they are compiled;
    activations are float32 whatever the precision of products. Elsewhere it is the model, or a copy of the
    precision, and a Transformer's cache stays in its place. With `recording`, `step` can record attention.
    Raises ValueError for what `check_precision` refuses.
    """
    device = next(model.parameters()).device
    wrong = check_precision(precision, device)
    if wrong is not None:
        raise ValueError(wrong)
    if device.type != "cpu":
        # A copy that shares the weights, or one of the precision.
        same = precision == "float32"
        twin = copy.copy(model) if same else copy.deepcopy(model).to(_GPU_TYPES[precision])
        if isinstance(twin, Transformer):
            twin.fixed_cache = True
        return twin
    twin = packed(model, precision)
    return FastTransformer(twin) if not recording and FastTransformer.can_run(twin) else twin
