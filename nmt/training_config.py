"""The keys of [training]: part of `nmt.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nmt.model_config import Count, CountOrNone, Rate, Section, Size
from nmt.presets import TRAINING_PRESETS


class TrainingConfig(Section):
    """The loop. A step is one update of the parameters."""

    # The training of a paper: its optimizer, schedule, clipping and length, as defaults.
    preset: Literal["sutskever2014", "bahdanau2014", "luong2015", "vaswani2017"] | None = None
    seed: int = Field(1, ge=0)  # of all that is drawn by chance
    max_steps: Count = 10_000  # training ends after so many steps
    # Training ends after so many passes over the corpus, if before max_steps; 0 is off.
    max_epochs: CountOrNone = 0
    batch_tokens: int = Field(4096, ge=16, le=10**12)  # sentences x longest of either side, padding counted
    accumulation: Count = 1  # batches a step; with several processes a multiple of their number
    # Makes updates of gradients. muon (Jordan et al. 2024): for matrices between layers, adamw for the rest.
    optimizer: Literal["adam", "adamw", "muon", "adadelta", "sgd"] = "adam"
    learning_rate: float = Field(5e-3, gt=0)  # the peak; of the noam schedule a factor
    # How the rate goes after the warm-up: down with the root of the step, to 0 at max_steps by a line or a
    # cosine, not at all, as Vaswani et al. 2017 have it (noam), or halved every few epochs.
    schedule: Literal["inverse-sqrt", "linear", "cosine", "constant", "noam", "halving"] = "inverse-sqrt"
    warmup_steps: CountOrNone = 2000  # the rate rises from 0 in so many steps
    halve_after_epochs: float = Field(5.0, ge=0)  # of the halving schedule: the whole rate for so long
    # Of the halving schedule: after halve_after_epochs halved at once, and at each further so many epochs.
    halve_every_epochs: float = Field(1.0, gt=0)
    betas: tuple[Rate, Rate] = (0.9, 0.98)  # of adam, adamw and muon's adamw: decay of the two averages
    rho: Rate = 0.95  # of adadelta: decay of its averages
    epsilon: float = Field(1e-9, gt=0)  # of adam, adamw, muon's adamw and adadelta: keeps from dividing by 0
    weight_decay: float = Field(0.0, ge=0)  # of matrices; added to the gradient by adam, adadelta and sgd
    # What a step's loss is divided by. Papers before the Transformer have sentences, which makes gradients as
    # many times as large as a sentence has tokens.
    loss_per: Literal["token", "sentence"] = "token"
    label_smoothing: Rate = 0.1  # share of the probability that is spread over the whole vocabulary
    # Weight in the loss of log^2 of the softmax's sum (Chowdhery et al. 2022: 1e-4); 0 is off.
    z_loss: float = Field(0.0, ge=0)
    # Weight in the loss of how far two passes with different dropout are apart: alpha of Liang et al. 2021,
    # who have 5 in translation; 0 is off.
    r_drop: float = Field(0.0, ge=0)
    # Weight of a loss that has one head attend as data.alignments say (Garg et al. 2019: 0.05); 0 is off.
    guided_alignment: float = Field(0.0, ge=0)
    guided_layer: Annotated[int, Field(ge=1)] | None = None  # of the decoder; if not set, the last but one
    guided_head: Annotated[int, Field(ge=1)] | None = None  # of guided_layer; if not set, the first
    ema: Rate = 0.0  # decay of the averaged weights that are validated and saved, such as 0.999; 0 is off
    clip_norm: float = Field(0.0, ge=0)  # longer gradients are scaled down to this norm; 0 is off
    # Of the factors of products; sums and weights are float32. float16, with a scaled loss: GPUs only. int8,
    # with a scale for some hundreds of numbers each: CPUs with AVX-512 VNNI only.
    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    max_nonfinite: Count = 10  # updates in a row skipped for a loss that is not finite, then stop
    activation_checkpointing: bool = False  # compute layers twice and keep less of them: less memory, slower
    # FSDP: each process keeps a part of parameters, gradients, optimizer state; for models that do not fit.
    shard: bool = False
    initialize_from: str | None = None  # a model or run of the same [model]: its weights, its vocabulary
    freeze: tuple[str, ...] = ()  # what is not trained, by name or its beginning: "encoder", "decoder.0"
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    threads: int = Field(0, ge=0, le=1024)  # of a process; 0: one a core
    log_every: Count = 50  # steps between lines of loss and speed
    validate_every: Count = 500  # steps between validations; a checkpoint follows each
    tensorboard: bool = False  # write events for TensorBoard to RUN/tensorboard as well
    keep_best: Count = 1  # checkpoints of the best validations that stay
    keep_last: Count = 5  # checkpoints of the last validations that stay
    metric: Literal["bleu", "loss", "perplexity"] = "bleu"  # of validation: names the best checkpoint
    patience: CountOrNone = 0  # validations without a better `metric` before stopping; 0 is off
    validation_beam_size: Size = 1  # beam of the validation's translations; 1 is greedy

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
