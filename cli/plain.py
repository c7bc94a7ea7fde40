"""Training in plain lines: what `nmt train` writes where no terminal is."""

from __future__ import annotations

from typing import Any

from nmt.cli import output as out

# Whether torch.compile is used (LOG.md has the measurement).
_COMPILE = {
    "cpu": "no: torch.compile was slower when measured",
    "gpu": "no: torch.compile is not measured on GPUs",
}


class Lines:
    """Training in plain lines, for logs and pipes."""

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "status":
            self.line(event["text"])
        elif kind == "preflight":
            for text in preflight(event):
                self.line(text)
        elif kind in ("train", "first step"):
            self.line(training_line(event))
        elif kind == "validation":
            self.line(validation_line(event))
        elif kind == "warning":
            out.warn(event["text"])

    def line(self, text: str) -> None:
        out.note(text)

    def close(self) -> None:
        """Nothing to tidy up."""


def preflight(event: dict[str, Any]) -> list[str]:
    """What is about to be trained, on what, at what cost."""
    lines = [f"corpus      {event['kept']:,} of {event['lines']:,} pairs kept, "
             f"{event['source_tokens']:,} source and {event['target_tokens']:,} target tokens; "
             f"validation {event['validation_lines']:,} pairs"]  # fmt: skip
    for row in event["dropped"]:
        places = f"; first: {', '.join(row['places'][:3])}" if row["places"] else ""
        lines.append(f"  dropped   {row['count']:,} ({row['share']:.2%}) {row['reason']}{places}")
    source, target = event["source_vocabulary"], event["target_vocabulary"]
    vocabulary = f"{target:,}" if source == target else f"{source:,} source, {target:,} target"
    parts = ", ".join(f"{name} {count:,}" for name, count in event["parameters"].items() if name != "total")
    device = f"{event['device']}, {event['precision']}, {event['threads']} threads"
    if event["processes"] > 1:
        device += f", {event['processes']} processes like this one"
        if event["sharded"]:
            device += ", a part of the model in each"
    megabytes = event["model_bytes"] / 2**20
    total, trained = event["parameters"]["total"], event["trained"]
    frozen = f"{trained:,} of them trained; " if trained < total else ""
    lines += [
        f"vocabulary  {vocabulary}",
        f"model       {total:,} parameters ({parts}); {frozen}"
        f"{megabytes:,.0f} MB with gradients and optimizer",
        f"batches     {event['batches_an_epoch']:,} an epoch, {event['padding']:.1%} padding; "
        + (
            f"{event['epochs']:,.1f} epochs are about {event['steps']:,} steps"
            if event["ended_by_epochs"]
            else f"{event['steps']:,} steps are {event['epochs']:,.1f} epochs"
        ),
        f"device      {device}",
        *([f"precision   {event['precision_note']}"] if event["precision_note"] else []),
        f"compile     {_COMPILE['cpu' if event['device'] == 'cpu' else 'gpu']}",
        f"run         {event['run']}",
    ]
    if event["rate_at_end"] is not None:
        lines.append(
            f"warning     the {event['schedule']} schedule goes down to 0 at step {event['max_steps']:,} "
            f"(training.max_steps), and training.max_epochs ends at about step {event['steps']:,} with "
            f"{event['rate_at_end']:.0%} of the rate left; set training.max_steps = {event['steps']}"
        )
    if event["continues_from"]:
        lines.append(f"continues from step {event['continues_from']:,}")
    elif event["initialized_from"]:
        lines.append(f"begins with the weights of {event['initialized_from']}")
    return lines


def training_line(event: dict[str, Any]) -> str:
    return (
        f"step {event['step']:,}  epoch {event['epoch']}  loss {event['loss']:.3f}  "
        f"rate {event['learning_rate']:.2e}  gradient {event['gradient_norm']:.2f}  "
        f"{event['target_tokens_per_second']:,.0f} tokens/s  {event['memory_mib']:,.0f} MiB  "
        f"{out.duration(event['seconds'])}"
    )


def validation_line(event: dict[str, Any]) -> str:
    return (
        f"step {event['step']:,}  validation  loss {event['loss']:.3f}  "
        f"perplexity {_readable(event['perplexity'])}  BLEU {event['bleu']:.2f}"
        f"{'  best so far' if event['best'] else ''}  (took {event['validation_seconds']:.0f} s)"
    )


def _readable(number: float) -> str:
    """Two digits after the point, but of what has many before it a power of ten."""
    return f"{number:.2f}" if number < 1e6 else f"{number:.2e}"
