"""The training loop, visible: batches, gradient, update, validation, checkpoint.

Killed at any moment and started again, a run ends with the weights and metrics it would have had:
batches are a function of (lengths, seed, epoch, window), dropout of (seed, number of the batch), and a
checkpoint holds everything else. What is computed follows from the configuration alone: a step has
`training.accumulation` batches, and processes only share them out. So a run may go on with another number of
processes, in the same order of sentences and with gradients that are the same up to rounding.
"""

from __future__ import annotations

import contextlib
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nmt import __version__
from nmt.budget import SentenceMemoryError, is_out_of_memory
from nmt.checkpoint import set_weights, weights_of
from nmt.config import Config
from nmt.continuation import check_files, finished_outcome, read_newest
from nmt.data.batches import Batch, seeded
from nmt.data.prepare import prepare, read_held_out
from nmt.errors import DamagedModel, SentenceError, UserError
from nmt.fine_tuning import freeze, tokenizers_from, tokenizers_of, weights_to_begin_with
from nmt.fingerprints import Row, corpora_of, files_of, prepared_of
from nmt.gradient import Gradient, target_tokens
from nmt.guided import Guided
from nmt.interrupt import Interrupt, Stopped
from nmt.keeper import Keeper, Observer
from nmt.model_config import TransformerConfig
from nmt.models import build_model
from nmt.models.recompute import recompute_layers
from nmt.moving_average import MovingAverage
from nmt.nonfinite import NonFinite
from nmt.optimization import build_optimizer, learning_rate, set_learning_rate
from nmt.parameters import Parameters
from nmt.precision import precision_on
from nmt.preflight import preflight
from nmt.progress import Outcome, Progress
from nmt.ranks import ALONE, Ranks
from nmt.resources import check_epoch, check_share, peak_memory, take_device, with_workers
from nmt.run import Run
from nmt.stream import Stream
from nmt.tensorboard import Board
from nmt.validation import Validation


def train(config: Config, run: Run, observe: Observer = lambda event: None, ranks: Ranks = ALONE) -> Outcome:
    """Prepare what is not prepared, then train to the end or continue where the run stopped.

    Args:
        run: opened by the first process; the others do not touch it.
        observe: called with every event: "status", "preflight", then those of metrics.jsonl; in the
            first process only.

    Raises:
        UserError: the data or configuration is wrong, the loss stays not finite, memory does not hold a
            sentence, or the last checkpoint cannot be written.
    """
    finished = ranks.from_first(lambda: finished_outcome(run, config))
    if finished is not None:
        return finished
    with contextlib.ExitStack() as stack:
        if config.training.tensorboard and ranks.is_first:
            observe = stack.enter_context(contextlib.closing(Board(run.folder, observe)))
        trainer = Trainer(config, run, observe, ranks)
        # Until here there is nothing to save, and an interruption ends the process at once.
        with contextlib.closing(trainer.stream), Interrupt() as interrupt:
            return trainer.train(interrupt)


class Trainer:
    """One process's training of one run."""

    def __init__(self, config: Config, run: Run, observe: Observer, ranks: Ranks = ALONE):
        self.config = config
        self.settings = settings = config.training
        self.run = run
        self.observe = observe if ranks.is_first else lambda event: None
        self.ranks = ranks
        check_share(settings, ranks)
        self.device = take_device(settings, ranks)
        ranks.use(self.device)

        # Read what can be wrong before anything slow begins.
        with torch.device("meta"):
            freeze(build_model(config.model, 8, 8), settings.freeze)
        validation_pairs = read_held_out(config.data, config.data.validation)
        for prefix in config.data.test_prefixes:
            read_held_out(config.data, prefix)
        ranks.require_same("versions", {"nmt": __version__, "torch": torch.__version__})
        ranks.require_same("files", files_of(config))
        tokenizers = tokenizers_from(ranks.from_first(lambda: tokenizers_of(config, run.folder)))
        self.data = ranks.in_turn(
            lambda: prepare(
                config,
                run.folder.parent / ".prepared",
                lambda text: self.observe({"event": "status", "text": text}),
                warn=lambda text: self.observe({"event": "warning", "text": text}),
                check=self._check_files,
                tokenizers=tokenizers,
            )
        )
        ranks.require_same("prepared data", prepared_of(self.data))
        torch.manual_seed(derived_seed(settings.seed, "initialize"))
        vocabularies = len(self.data.source_tokenizer), len(self.data.target_tokenizer)
        make = partial(build_model, config.model, *vocabularies)
        self.model = make()
        if settings.activation_checkpointing:
            recompute_layers(self.model)
        freeze(self.model, settings.freeze)
        if settings.shard and ranks.size > 1:
            from nmt.sharded import ShardedParameters  # torch takes a while to load it

            self.parameters: Parameters = ShardedParameters(self.model, ranks, self.device, make)
        else:
            self.parameters = Parameters(self.model.to(self.device), ranks)
        self.average = MovingAverage(self.parameters, settings.ema) if settings.ema else None
        self.optimizer = build_optimizer(self.parameters, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")
        self.gradient = Gradient(
            self.model,
            self.device,
            precision=precision_on(settings.precision, self.device),
            smoothing=settings.label_smoothing,
            scaler=self.scaler,
            z_loss=settings.z_loss,
            r_drop=settings.r_drop,
            parameters=self.parameters,
            guided=guided_head(config),
        )
        model = config.model
        self.width = model.width if isinstance(model, TransformerConfig) else model.hidden_width
        self.progress = Progress()
        self.origin: dict[str, Any] | None = None  # of the weights that training began with
        self.stream = Stream(self.data, with_workers(config, ranks))
        self.validation = Validation(config, validation_pairs, self.data)
        self.validation.check_fits(self.model)
        self.corpora = corpora_of(config, self.data)
        self.keeper = Keeper(
            *(run, config, {**self.corpora, "validation": self.validation.about}, self.data, self.observe),
            is_first=ranks.is_first,
            processes=ranks.size,
        )
        self.nonfinite = NonFinite(self.gradient, ranks, self.keeper, settings.max_nonfinite)

    def _check_files(self, files: list[Row]) -> None:
        if self.ranks.is_first:
            check_files(self.run, self.config, files)

    def train(self, interrupt: Interrupt) -> Outcome:
        self._resume()
        check_epoch(self.settings, self.stream.batches_an_epoch)
        self.parameters.require_same()
        self.observe(
            preflight(
                *(self.config, self.model, self.parameters, self.data, self.stream),
                validation_lines=len(self.validation.pairs),
                device=self.device,
                precision=self.gradient.precision,
                processes=self.ranks.size,
                continues_from=self.progress.step,
                initialized_from=self.origin["model"] if self.origin else None,
                run=str(self.run.folder),
            )
        )
        outcome = self._train(interrupt)
        self.ranks.gather([0])  # nobody leaves before all is written
        return outcome

    def _train(self, interrupt: Interrupt) -> Outcome:
        progress, settings = self.progress, self.settings
        agreed: int | None = None
        first = progress.step + 1
        self.clock = time.perf_counter()
        while not progress.finished:
            if not progress.validating:  # else it is the validation that was stopped
                agreed = self._step(interrupt.signal)
                progress.logged_seconds += self._passed()
                if progress.step % settings.log_every == 0:
                    self._log_training()
                elif progress.step == first and progress.logged_tokens:  # shown, so that one sees it work
                    self.observe({"event": "first step", **progress.place(), **self._training_event()})
            if progress.is_to_validate(settings):
                try:
                    scores = self._validate(interrupt, agreed)
                except Stopped as stopped:
                    progress.validating = True
                    self._passed()
                    return self._stopped(stopped.number)
                except (SentenceError, MemoryError, RuntimeError) as error:
                    raise self._not_validated(error) from None
                progress.validating = False
                progress.finished = progress.reason_to_finish(settings)
                self._passed()
                self._save(scores, scheduled=True, is_last=bool(progress.finished))
                self.clock = time.perf_counter()
            # Several processes must stop after the same step, so they agree on the signal in the step.
            signal = interrupt.signal if self.ranks.size == 1 else agreed
            if signal is not None and not progress.finished:
                return self._stopped(signal)
        return self._outcome(progress.finished)

    def _passed(self) -> float:
        """Count the seconds since the last time."""
        began, self.clock = self.clock, time.perf_counter()
        self.progress.seconds += self.clock - began
        return self.clock - began

    def _stopped(self, signal: int) -> Outcome:
        # Saving takes all processes, where each has a part.
        if self.ranks.from_first(self.keeper.newest_step) < self.progress.step:
            self._save({}, scheduled=False, is_last=True)
        return self._outcome("interrupted; run the same command to continue", signal)

    def _not_validated(self, error: Exception) -> Exception:
        """What ends a training that cannot be validated, once what was trained is saved."""
        no_memory = isinstance(error, SentenceMemoryError) or is_out_of_memory(error)
        if not (no_memory or isinstance(error, SentenceError)):
            return error
        self.progress.validating = True
        saved = self.ranks.size == 1 or (self.ranks.is_first and not self.parameters.in_parts)
        if saved and self.keeper.newest_step() < self.progress.step:
            self._save({}, scheduled=False, is_last=True)
        what = "out of memory; it goes on from there where there is more, or on another training.device"
        return UserError(
            f"validation after step {self.progress.step:,}{' (which is saved)' if saved else ''}: "
            f"{what if no_memory else error}"
        )

    # One step

    def _step(self, signal: int | None = None) -> int | None:
        """One update: gradients of the sum over `accumulation` batches, divided by their target tokens, or
        sentences (`training.loss_per`).

        Args:
            signal: that this process got.

        Returns:
            The signal that one of the processes got.
        """
        progress, settings, ranks = self.progress, self.settings, self.ranks
        epoch = self.stream.epochs
        batches, seeds = self._share_of_step()
        own = sum(map(target_tokens, batches)), sum(len(batch.source_BS) for batch in batches)
        tokens, sentences = (int(sum(counts)) for counts in zip(*ranks.gather([*own]), strict=True))
        self.model.train()
        divisor = sentences if settings.loss_per == "sentence" else tokens
        losses = self.gradient.of_step(batches, seeds, divisor)
        self.parameters.sum_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self.parameters.clip_gradients(settings.clip_norm)
        told = ranks.gather([*losses, self.gradient.most_tokens, signal or 0])
        # In the order of batches, whoever computed them.
        loss_sum = sum(told[i % ranks.size][i // ranks.size] for i in range(settings.accumulation))

        progress.step += 1
        self.rate = learning_rate(progress.step, settings, width=self.width, epoch=epoch)
        if math.isfinite(loss_sum) and math.isfinite(norm):
            self.gradient_norm = norm
            set_learning_rate(self.optimizer, self.rate)
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(progress.step)
            progress.skipped_in_row = 0
            progress.logged_loss += loss_sum
            progress.logged_tokens += tokens
        else:
            self.nonfinite.skip(progress, batches, seeds, loss_sum)
        self.scaler.update()
        self.optimizer.zero_grad()
        self._learn_limit([int(row[-2]) for row in told])
        return next((int(row[-1]) for row in told if row[-1]), None)

    def _share_of_step(self) -> tuple[list[Batch], list[int]]:
        """This process's batches of the next step, every R-th of all, and the seed of each one's dropout."""
        progress, settings, ranks = self.progress, self.settings, self.ranks
        batches, seeds = [], []
        for turn in range(settings.accumulation):
            if turn % ranks.size == ranks.rank:
                batches.append(self.stream.next())
                number = progress.step * settings.accumulation + turn
                seeds.append(derived_seed(settings.seed, "dropout", number))
            else:
                self.stream.skip()
        progress.position = self.stream.position
        return batches, seeds

    def _learn_limit(self, everyones: list[int]) -> None:
        """Take over the smallest number of tokens at which memory ran out in any process."""
        if self.parameters.in_parts:
            return  # it ends the training
        most = min((tokens for tokens in everyones if tokens), default=0)
        self.gradient.most_tokens = most
        if most != self.progress.most_tokens:
            self.progress.most_tokens = most
            self.keeper.warn(
                self.progress,
                f"memory did not hold a batch; from now on batches of more than {most:,} tokens are "
                "computed in parts, with the same gradient",
            )

    # Validation

    def _validate(self, interrupt: Interrupt, agreed: int | None) -> dict[str, float]:
        """Scores of the validation set; Stopped, in all processes, where one has a signal."""
        progress, settings = self.progress, self.settings
        began = time.perf_counter()
        self.parameters.require_same()
        with self._averaged(), self.parameters.whole_model() as model, self.gradient.judging(model):
            try:
                scores = self.validation.scores(
                    model, self.gradient.loss_alone, self.ranks, lambda: agreed or interrupt.signal
                )
            except DamagedModel:
                raise self.nonfinite.after_validation(
                    f"{progress.step:,}", "its model gives no scores"
                ) from None
        if not math.isfinite(scores["loss"]):
            raise self.nonfinite.after_validation(f"{progress.step:,}", "its loss is not finite")
        better = progress.note_scores(scores, settings.metric)
        self.keeper.log(
            progress,
            {
                "event": "validation",
                **scores,
                "best": better,
                "validation_seconds": round(time.perf_counter() - began, 3),
            },
        )
        return scores

    # Files

    def _training_event(self) -> dict[str, Any]:
        return {
            **self.progress.logged(),
            "learning_rate": self.rate,
            "gradient_norm": self.gradient_norm,
            "memory_mib": peak_memory(self.device),
        }

    def _log_training(self) -> None:
        if self.progress.logged_tokens:  # else all were skipped, and a warning said so
            self.keeper.log(self.progress, {"event": "train", **self._training_event()})
        self.progress.forget_logged()

    def _save(self, scores: dict[str, float], *, scheduled: bool, is_last: bool) -> None:
        parameters = self.parameters
        state = {"optimizer": parameters.whole_state(self.optimizer), "scaler": self.scaler.state_dict()}
        weights = weights_of(parameters)
        if self.average is not None:  # which is what is saved as the model
            state["weights"] = parameters.whole(weights)
            weights = {**weights, **self.average.weights}
        self.keeper.save(
            *(parameters.whole(weights), state, self.progress, scores),
            scheduled=scheduled,
            is_last=is_last,
            initialized_from=self.origin,
        )

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile the model is the one to validate."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _resume(self) -> None:
        """Continue from the newest whole checkpoint, or begin. The first process reads it for all."""
        newest = partial(read_newest, self.run, self.config, self.corpora, self.data)
        part = self.parameters.part if self.parameters.in_parts else None
        found = self.ranks.from_first(newest, part)
        if found is not None:
            self._restore(found)
        elif self.settings.initialize_from is not None:
            begun, self.origin = self.ranks.from_first(lambda: weights_to_begin_with(self.config), part)
            set_weights(self.parameters, begun, Path(self.origin["model"]))
            if self.average is not None:
                self.average.load(begun)
        if self.ranks.is_first:
            self.run.cut_metrics(self.progress.metrics_size)
            if found is not None:
                # What was killed between writing a checkpoint and tidying up after it is done now.
                self.keeper.keep()
                self.run.goes_on_with(self.config)
        if found is not None:
            for text in found["damaged"]:
                self.keeper.warn(self.progress, text)
            self.keeper.note_changes(self.progress, found["changes"])

    def _restore(self, found: dict[str, Any]) -> None:
        state, folder = found["state"], Path(found["folder"])
        set_weights(self.parameters, state.get("weights", found["weights"]), folder)
        if self.average is not None:
            self.average.load(found["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.origin = found["initialized_from"]
        self.progress = Progress.from_state(state["progress"])
        self.progress.finished = ""  # or its end was moved
        self.stream.position = self.progress.position
        self.gradient.most_tokens = self.progress.most_tokens

    def _outcome(self, reason: str, interrupted_by: int | None = None) -> Outcome:
        best = self.keeper.best(self.progress.best_step)
        return Outcome(reason, self.progress.step, best, interrupted_by)


def guided_head(config: Config) -> Guided | None:
    """Which head learns alignments, if one does."""
    view = config.guided_view
    return None if view is None else Guided(config.training.guided_alignment, view[0] - 1, view[1] - 1)


def derived_seed(seed: int, *purpose: int | str) -> int:
    """A torch seed for one purpose."""
    return int(seeded(seed, *purpose).integers(2**62))
