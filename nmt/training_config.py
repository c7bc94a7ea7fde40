"""The keys of [training]: part of `nmt.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nmt.model_config import Rate, Section
from nmt.presets import TRAINING_PRESETS


class TrainingConfig(Section):
    """The loop. A step is one update of the parameters."""

    preset: Literal["sutskever2014", "bahdanau2014", "luong2015", "vaswani2017"] | None = None
    seed: int = Field(1, ge=0)
    max_steps: int = Field(10_000, ge=1)
    max_epochs: int = Field(0, ge=0)  # whichever comes first; 0 is off
    batch_tokens: int = Field(4096, ge=16)  # sentences x longest of either side, padding counted
    accumulation: int = Field(1, ge=1)  # batches a step; with several processes a multiple of their number
    # muon (Jordan et al. 2024): for matrices between layers, with adamw for the rest.
    optimizer: Literal["adam", "adamw", "muon", "adadelta", "sgd"] = "adam"
    learning_rate: float = Field(5e-3, gt=0)  # the peak; a factor of the noam schedule; see nmt.presets
    schedule: Literal["inverse-sqrt", "linear", "cosine", "constant", "noam", "halving"] = "inverse-sqrt"
    warmup_steps: int = Field(2000, ge=0)
    halve_after_epochs: float = Field(5.0, ge=0)  # of the halving schedule: whole rate so long,
    halve_every_epochs: float = Field(1.0, gt=0)  # then halved at once and at each further so many epochs
    betas: tuple[Rate, Rate] = (0.9, 0.98)  # of adam, adamw and muon's adamw
    rho: Rate = 0.95  # of adadelta
    epsilon: float = Field(1e-9, gt=0)  # of adam, adamw, muon's adamw and adadelta
    weight_decay: float = Field(0.0, ge=0)
    # What a step's loss is divided by. Papers before the Transformer have sentences, which makes gradients as
    # many times as large as a sentence has tokens.
    loss_per: Literal["token", "sentence"] = "token"
    label_smoothing: Rate = 0.1
    z_loss: float = Field(0.0, ge=0)  # of log^2 of the softmax's sum (Chowdhery et al. 2022: 1e-4); 0 is off
    r_drop: float = Field(0.0, ge=0)  # alpha of Liang et al. 2021, who have 5 in translation; 0 is off
    # Weight of a loss that has one head attend as data.alignments say (Garg et al. 2019: 0.05); 0 is off.
    guided_alignment: float = Field(0.0, ge=0)
    guided_layer: Annotated[int, Field(ge=1)] | None = None  # of the decoder; None: that before the last
    guided_head: Annotated[int, Field(ge=1)] | None = None  # None: the first
    ema: Rate = 0.0  # decay of the averaged weights that are validated and saved, such as 0.999; 0 is off
    clip_norm: float = Field(0.0, ge=0)  # 0 is off
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # float16, with a scaled loss: GPUs only
    max_nonfinite: int = Field(10, ge=1)  # updates in a row skipped for a loss that is not finite, then stop
    activation_checkpointing: bool = False  # compute layers twice and keep less of them: less memory, slower
    # FSDP: each process keeps a part of parameters, gradients, optimizer state; for models that do not fit.
    shard: bool = False
    initialize_from: str | None = None  # a model or run of the same [model]: its weights, its vocabulary
    freeze: tuple[str, ...] = ()  # what is not trained, by name or its beginning: "encoder", "decoder.0"
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    threads: int = Field(0, ge=0)  # of a process; 0: one a core
    log_every: int = Field(50, ge=1)  # steps
    validate_every: int = Field(500, ge=1)  # steps; a checkpoint follows each validation
    tensorboard: bool = False  # write events for TensorBoard to RUN/tensorboard as well
    keep_best: int = Field(1, ge=1)
    keep_last: int = Field(5, ge=1)
    metric: Literal["bleu", "loss", "perplexity"] = "bleu"  # names the best checkpoint
    patience: int = Field(0, ge=0)  # validations without a better `metric` before stopping; 0 is off
    validation_beam_size: int = Field(1, ge=1)  # 1 is greedy

    @model_validator(mode="after")
    def _preset_keeps_its_optimizer(self) -> TrainingConfig:
        if self.preset and self.optimizer != TRAINING_PRESETS[self.preset]["optimizer"]:
            raise ValueError(
                f"training.optimizer = {self.optimizer}: training.preset = {self.preset} has the rates of "
                f"{TRAINING_PRESETS[self.preset]['optimizer']}; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _one_addition_to_the_loss(self) -> TrainingConfig:
        if self.z_loss and self.r_drop:
            raise ValueError("training.z_loss does not go with training.r_drop; set one of them to 0")
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> TrainingConfig:
        if self.shard and self.optimizer == "muon":
            raise ValueError(
                "training.shard: training.optimizer = muon needs whole matrices; use adam or adamw"
            )
        if self.shard and self.precision == "float16":
            raise ValueError(
                "training.shard: training.precision = float16 scales by all gradients; use bfloat16"
            )
        return self
