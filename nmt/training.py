"""The training loop, visible: batches, loss, gradient, update, validation, checkpoint.

Killed at any moment and started again, a run ends with the weights and metrics it would have had:
batches are a function of (seed, epoch), dropout of (seed, step), and a checkpoint holds everything
else. B sentences, S source length, T target length, N positions, D width, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nmt.checkpoint import (
    check_files,
    load_training_state,
    load_weights,
    read_manifest,
    save_model,
    set_weights,
    weights_of,
)
from nmt.config import Config
from nmt.data.batches import Batch, plan_epoch, seeded
from nmt.data.prepare import prepare, read_held_out
from nmt.data.tokenizer import PAD
from nmt.device import choose_device
from nmt.errors import UserError
from nmt.examples import Examples, Sentences
from nmt.interrupt import Interrupt
from nmt.loss import cross_entropy_sum
from nmt.model_config import TransformerConfig
from nmt.models import build_model, parameter_counts
from nmt.optimization import build_optimizer, bytes_a_parameter, learning_rate, set_learning_rate
from nmt.run import Checkpoint, Run, sign
from nmt.validation import Validation

Event = dict[str, Any]
Observer = Callable[[Event], None]


@dataclass
class Progress:
    """Where training stands; all of it is in every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # next batch of the epoch
    seconds: float = 0.0  # spent training, over all continuations
    best_score: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    finished: str = ""  # why, once it is
    # Sums since the last logged step.
    logged_loss: float = 0.0
    logged_tokens: int = 0
    logged_seconds: float = 0.0
    metrics_size: int = 0  # bytes of metrics.jsonl that belong to this state


@dataclass
class Outcome:
    reason: str  # why training stopped
    step: int
    best: Checkpoint | None
    interrupted_by: int | None = None  # signal number


def train(config: Config, run: Run, observe: Observer = lambda event: None) -> Outcome:
    """Prepare what is not prepared, then train to the end or continue where the run stopped.

    Args:
        observe: called with every event: "status", "preflight", then those of metrics.jsonl.

    Raises:
        UserError: the data or configuration is wrong, or the loss is not finite.
    """
    finished = finished_outcome(run)
    if finished is not None:
        return finished
    trainer = Trainer(config, run, observe)
    # Until here there is nothing to save, and an interruption ends the process at once.
    with Interrupt() as interrupt:
        return trainer.train(interrupt)


def finished_outcome(run: Run) -> Outcome | None:
    """How a run ended that needs no more training; its corpus may be gone by now."""
    found = run.checkpoints()
    progress = Progress(**load_training_state(found[-1].folder)["progress"]) if found else Progress()
    if not progress.finished:
        return None
    best = next((c for c in found if c.step == progress.best_step), None)
    return Outcome(f"{progress.finished} (nothing to do; --restart begins anew)", progress.step, best)


class Trainer:
    """One process's training of one run."""

    def __init__(self, config: Config, run: Run, observe: Observer):
        self.config = config
        self.settings = config.training
        self.run = run
        self.observe = observe
        self.device = choose_device(self.settings.device)
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)

        # Read what can be wrong before anything slow begins.
        validation_pairs = read_held_out(config.data, config.data.validation)
        for prefix in config.data.test_prefixes:
            read_held_out(config.data, prefix)
        self.data = prepare(
            config, run.folder.parent / ".prepared", lambda text: observe({"event": "status", "text": text})
        )
        torch.manual_seed(derived_seed(self.settings.seed, "initialize"))
        self.model: Any = build_model(
            config.model, len(self.data.source_tokenizer), len(self.data.target_tokenizer)
        ).to(self.device)
        self.optimizer = build_optimizer(self.model, self.settings)
        model = config.model
        self.width = model.width if isinstance(model, TransformerConfig) else model.hidden_width
        self.progress = Progress()
        self._examples_of_epoch: tuple[int, Examples] | None = None
        self.validation = Validation(config, validation_pairs, self.data)
        self.validation.check_fits(self.model)

    def train(self, interrupt: Interrupt) -> Outcome:
        self._resume()
        progress, settings = self.progress, self.settings
        self.observe(self._preflight())
        clock = time.perf_counter()
        while not progress.finished:
            self._step()
            now = time.perf_counter()
            progress.seconds += now - clock
            progress.logged_seconds += now - clock
            clock = now
            if progress.step % settings.log_every == 0:
                self._log_training()
            seen_enough = 0 < settings.max_epochs <= progress.epoch
            last = progress.step >= settings.max_steps or seen_enough
            if progress.step % settings.validate_every == 0 or last:
                scores = self._validate()
                if seen_enough:
                    progress.finished = f"{settings.max_epochs:,} epochs done"
                elif last:
                    progress.finished = f"{settings.max_steps:,} steps done"
                elif settings.patience and progress.validations_since_best >= settings.patience:
                    progress.finished = (
                        f"{settings.metric} did not improve in {settings.patience} validations; "
                        f"the best was at step {progress.best_step:,}"
                    )
                now = time.perf_counter()
                progress.seconds += now - clock
                clock = now
                self._save(scores, scheduled=True)
                clock = time.perf_counter()
            if interrupt.signal is not None and not progress.finished:
                newest = self.run.checkpoints()
                if not newest or newest[-1].step < progress.step:
                    self._save({}, scheduled=False)
                return self._outcome("interrupted; run the same command to continue", interrupt.signal)
        return self._outcome(progress.finished)

    # One step

    def _step(self) -> None:
        """One update: gradients of the sum over `accumulation` batches, divided by their target tokens."""
        progress, settings = self.progress, self.settings
        torch.manual_seed(derived_seed(settings.seed, "dropout", progress.step))
        epoch = progress.epoch + progress.batch / len(self._examples(progress.epoch).plan)
        batches = [self._next_batch() for _ in range(settings.accumulation)]
        tokens = sum(int((batch.target_output_BT != PAD).sum()) for batch in batches)
        self.model.train()
        loss_sum = 0.0
        for batch in batches:
            smoothed, plain = self._loss(batch, settings.label_smoothing)
            (smoothed / tokens).backward()  # type: ignore[no-untyped-call]
            loss_sum += plain.item()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm or math.inf).item()
        self._require_finite(loss_sum, norm, step=progress.step + 1)
        progress.step += 1
        self.rate = learning_rate(progress.step, settings, width=self.width, epoch=epoch)
        set_learning_rate(self.optimizer, self.rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.gradient_norm = norm
        progress.logged_loss += loss_sum
        progress.logged_tokens += tokens

    def _loss(self, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
        """Summed over the target tokens of a batch: the loss to minimise, and without smoothing."""
        source_BS = torch.from_numpy(batch.source_BS).to(self.device)
        input_BT = torch.from_numpy(batch.target_input_BT).to(self.device)
        output_BT = torch.from_numpy(batch.target_output_BT).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            memory = self.model.encode(source_BS, source_BS != PAD)
            hidden_BTD = self.model.decode(input_BT, memory)
            is_token_BT = output_BT != PAD
            output = self.model.embeddings.output
            hidden_ND = hidden_BTD[is_token_BT]
            weight_VD, bias_V = output.weight, output.bias
            if self.settings.precision == "bfloat16":
                hidden_ND, weight_VD = hidden_ND.bfloat16(), weight_VD.bfloat16()
                bias_V = None if bias_V is None else bias_V.bfloat16()
        return cross_entropy_sum(hidden_ND, weight_VD, bias_V, output_BT[is_token_BT], smoothing=smoothing)

    def _next_batch(self) -> Batch:
        """The batch at (epoch, batch) of the progress, which then points to the next one."""
        progress = self.progress
        examples = self._examples(progress.epoch)
        batch = examples.batch(examples.plan[progress.batch])
        progress.batch += 1
        if progress.batch == len(examples.plan):
            progress.epoch, progress.batch = progress.epoch + 1, 0
        return batch

    def _examples(self, epoch: int) -> Examples:
        """The training examples as segmented and ordered in this epoch."""
        if self._examples_of_epoch is None or self._examples_of_epoch[0] != epoch:
            data, settings = self.data, self.settings
            source: Sentences = data.source
            target: Sentences = data.target
            lengths = (data.source.lengths, data.target.lengths)
            if self.config.tokenizer.sampling:
                source, target = data.sampled(
                    self.config.tokenizer.sampling,
                    settings.seed,
                    epoch,
                    max_tokens=self.config.data.max_tokens,
                )
                lengths = (np.array([len(s) for s in source]), np.array([len(t) for t in target]))
            plan = plan_epoch(
                lengths[0] + 1,  # end of sentence
                lengths[1] + 1,
                batch_tokens=settings.batch_tokens,
                seed=settings.seed,
                epoch=epoch,
            )
            self._examples_of_epoch = (epoch, Examples(source, target, plan))
        return self._examples_of_epoch[1]

    def _require_finite(self, *numbers: float, step: int) -> None:
        if not all(map(math.isfinite, numbers)):
            raise UserError(
                f"loss or gradient is not finite in step {step:,}; lower training.learning_rate, lengthen "
                f"training.warmup_steps or set training.clip_norm = 1.0 ({self._whereabouts()})"
            )

    # Validation

    def _validate(self) -> dict[str, float]:
        progress, settings = self.progress, self.settings
        began = time.perf_counter()
        self.model.eval()
        scores = self.validation.scores(self.model, lambda batch: self._loss(batch, 0.0)[1].item())
        self._require_finite(scores["loss"], step=progress.step)
        score = scores[settings.metric]
        better = progress.best_score is None or sign(settings.metric) * (score - progress.best_score) > 0
        if better:
            progress.best_score, progress.best_step = score, progress.step
        progress.validations_since_best = 0 if better else progress.validations_since_best + 1
        self._log(
            {
                "event": "validation",
                **scores,
                "best": better,
                "validation_seconds": round(time.perf_counter() - began, 3),
            }
        )
        return scores

    # Files

    def _log_training(self) -> None:
        progress = self.progress
        event = {
            "event": "train",
            "loss": progress.logged_loss / progress.logged_tokens,
            "learning_rate": self.rate,
            "gradient_norm": self.gradient_norm,
            "target_tokens_per_second": round(progress.logged_tokens / progress.logged_seconds, 1),
        }
        progress.logged_loss, progress.logged_tokens, progress.logged_seconds = 0.0, 0, 0.0
        self._log(event)

    def _log(self, event: Event) -> None:
        progress = self.progress
        name = event.pop("event")
        place = {"step": progress.step, "epoch": progress.epoch, "seconds": round(progress.seconds, 3)}
        event = {"event": name, **place, **event}
        self.run.log(event)
        self.observe(event)

    def _save(self, scores: dict[str, float], *, scheduled: bool) -> None:
        progress, settings = self.progress, self.settings
        folder = self.run.checkpoint_folder(progress.step)
        if scheduled:
            self._log({"event": "checkpoint", "checkpoint": folder.name})
        progress.metrics_size = self.run.sync_metrics()
        try:
            save_model(
                folder,
                weights_of(self.model),
                self.config,
                self.data.source_tokenizer,
                self.data.target_tokenizer,
                {
                    "step": progress.step,
                    "scores": scores,
                    "scheduled": scheduled,
                    "train_seconds": round(progress.seconds, 1),
                    "training_data": self.data.manifest["training_data"],
                },
                {"progress": asdict(progress), "optimizer": self.optimizer.state_dict()},
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; the checkpoint was not written, {self._whereabouts()}",
                str(folder),
            ) from error
        self.run.keep(last=settings.keep_last, best=settings.keep_best, metric=settings.metric)

    def _resume(self) -> None:
        """Continue from the newest whole checkpoint, or begin."""
        found = self.run.checkpoints()
        if not found:
            self.run.cut_metrics(0)
            return
        folder = found[-1].folder
        check_files(folder, read_manifest(folder), training_state=True)
        state = load_training_state(folder)
        trained_on = found[-1].training_data
        if [entry["sha256"] for entry in trained_on] != [
            entry["sha256"] for entry in self.data.manifest["training_data"]
        ]:
            raise UserError(
                "the training corpus is not the one this run was begun with: its files changed; put them "
                "back, use --run for a new folder, or --restart",
                file=self.run.folder,
            )
        set_weights(self.model, load_weights(folder), folder)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.run.cut_metrics(self.progress.metrics_size)
        # What was killed between writing a checkpoint and tidying up after it is done now.
        self.run.keep(last=self.settings.keep_last, best=self.settings.keep_best, metric=self.settings.metric)

    def _outcome(self, reason: str, interrupted_by: int | None = None) -> Outcome:
        best = [c for c in self.run.checkpoints() if c.step == self.progress.best_step]
        return Outcome(reason, self.progress.step, best[0] if best else None, interrupted_by)

    def _whereabouts(self) -> str:
        found = self.run.checkpoints()
        if not found:
            return "there is no checkpoint yet"
        return f"the last checkpoint is {found[-1].folder}"

    def _preflight(self) -> Event:
        """What is about to be trained, on what, at what cost."""
        plan = self._examples(self.progress.epoch)
        manifest = self.data.manifest
        counts = parameter_counts(self.model)
        padded, used = plan.padding()
        return {
            "event": "preflight",
            "lines": manifest["lines"],
            "kept": manifest["kept"],
            "dropped": manifest["dropped"],
            "source_tokens": manifest["source_tokens"],
            "target_tokens": manifest["target_tokens"],
            "validation_lines": len(self.validation.pairs),
            "source_vocabulary": len(self.data.source_tokenizer),
            "target_vocabulary": len(self.data.target_tokenizer),
            "parameters": counts,
            "model_bytes": counts["total"] * bytes_a_parameter(self.settings),
            "batches_an_epoch": len(plan.plan),
            "padding": 1 - used / padded,
            "steps": self.settings.max_steps,
            "epochs": min(
                self.settings.max_steps * self.settings.accumulation / len(plan.plan),
                self.settings.max_epochs or math.inf,
            ),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "precision": self.settings.precision,
            "continues_from": self.progress.step,
            "run": str(self.run.folder),
        }


def derived_seed(seed: int, *purpose: int | str) -> int:
    """A torch seed for one purpose."""
    return int(seeded(seed, *purpose).integers(2**62))
