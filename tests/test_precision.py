"""What a precision is on a device, and trainings in int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import Nmt, prepare_folder

from nmt import precision as module
from nmt.linear import available, product_type
from nmt.precision import Precision, precision_on, refused, slow_in_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
needs_bytes = pytest.mark.skipif(not available(torch.int8), reason="no AVX-512 here, or C is not compiled")


def having(monkeypatch: pytest.MonkeyPatch, *kinds: torch.dtype, bfloat16_instructions: bool = True) -> None:
    monkeypatch.setattr(module, "available", lambda kind: kind in kinds)
    monkeypatch.setattr(module, "slow_in_bfloat16", lambda: not bfloat16_instructions)


def test_float32_is_what_tensors_are() -> None:
    assert precision_on("float32", CPU) == precision_on("float32", GPU) == Precision()


def test_on_a_gpu_autocast_does_it() -> None:
    assert precision_on("bfloat16", GPU) == Precision(autocast=torch.bfloat16)
    assert precision_on("float16", GPU) == Precision(autocast=torch.float16)


def test_bfloat16_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, torch.bfloat16)
    assert precision_on("bfloat16", CPU) == Precision(layers=torch.bfloat16, output=torch.bfloat16)
    having(monkeypatch)  # an Arm processor, or no compiler
    assert precision_on("bfloat16", CPU) == Precision(autocast=torch.bfloat16)
    having(monkeypatch, bfloat16_instructions=False)
    found = precision_on("bfloat16", CPU)
    assert found.autocast is found.layers is found.output is None
    assert found.note == "float32 in its place: this processor has no instructions for bfloat16"


def test_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, torch.int8)
    assert refused("int8", CPU) is None
    assert precision_on("int8", CPU) == Precision(layers=torch.int8, output=torch.int8)
    said = refused("int8", GPU)
    assert said is not None
    assert said.endswith('is for CPUs, and this is cuda:0; use "bfloat16", or training.device = "cpu"')
    having(monkeypatch)
    assert "needs a processor with AVX-512 VNNI" in str(refused("int8", CPU))


def test_float16_is_for_gpus() -> None:
    assert "needs a GPU, and this is cpu" in str(refused("float16", CPU))
    assert refused("float16", GPU) is None


def test_which_processors_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert slow_in_bfloat16()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not slow_in_bfloat16()
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert not slow_in_bfloat16()


def test_of_layers_ends() -> None:
    for found in (Precision(), Precision(layers=torch.int8), Precision(autocast=torch.bfloat16)):
        with found.of_layers(CPU):
            assert product_type() == (found.layers or torch.float32)
            assert torch.is_autocast_enabled("cpu") == (found.autocast is not None)
        assert product_type() == torch.float32
        assert not torch.is_autocast_enabled("cpu")


# Trainings

LARGE = ("--set", "training.batch_tokens=1024")  # so that layers have the rows that products of ours want


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precision")
    prepare_folder(folder)
    return folder


def losses(run: Path) -> list[float]:
    events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["event"] == "train"]


@needs_bytes
def test_int8_trains_as_float32_and_goes_on_to_the_bit(folder: Path) -> None:
    nmt = Nmt(folder)

    def train(run: str, precision: str, steps: int) -> str:
        settings = (f"training.precision={precision}", f"training.max_steps={steps}", "training.log_every=1")
        sets = [part for setting in settings for part in ("--set", setting)]
        return nmt("train", "tiny.toml", "--run", f"runs/{run}", *LARGE, *sets).stderr

    train("float32", "float32", 12)
    assert "device      cpu, int8" in train("int8", "int8", 12)
    train("half", "int8", 6)
    train("half", "int8", 12)
    ends = [load_file(folder / f"runs/{run}/last/model.safetensors") for run in ("half", "int8")]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())
    exact, found = losses(folder / "runs/float32"), losses(folder / "runs/int8")
    assert found != exact
    assert found == pytest.approx(exact, rel=0.01)
    assert exact[-1] < 0.97 * exact[0]


def test_a_processor_without_bfloat16_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, bfloat16_instructions=False)
    nmt = Nmt(folder)
    options = ("--set", "training.precision=bfloat16", "--set", "training.max_steps=2")
    said = nmt("train", "tiny.toml", "--run", "runs/none", *options).stderr
    assert "precision   float32 in its place: this processor has no instructions for bfloat16\n" in said
    said = nmt("translate", "runs/none", "--precision", "bfloat16", stdin=b"a\n").stderr
    assert "this processor has no instructions for bfloat16; float32 and int8 are faster" in said


def test_int8_is_refused_where_it_cannot_be_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch)
    said = Nmt(folder).error("train", "tiny.toml", "--run", "runs/no", "--set", "training.precision=int8")
    assert 'training.precision = "int8" needs a processor with AVX-512 VNNI' in said
