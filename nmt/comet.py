"""COMET (Rei et al. 2020) beside sacreBLEU's metrics, where `pip install -e '.[metrics]'` has put it.

It is given sacreBLEU's interface: a line counts as its score and 1, so intervals and paired tests are those
of the other metrics, with the same resampled lines.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt.errors import UserError, install

PACKAGE = "unbabel-comet"


def comet_metric(
    model: str, sources: Sequence[str], references: Sequence[Sequence[str]], *, device: str = "cpu"
) -> Any:
    """COMET as one of sacreBLEU's metrics, for `MetricSet`.

    Args:
        model: a name such as Unbabel/wmt22-comet-da, which is downloaded, or a checkpoint file.
        references: only the first is looked at, as COMET takes one.

    Raises:
        UserError: COMET is not installed, or the model cannot be had.
    """
    try:
        import comet
    except ImportError as error:
        if error.name != "comet":
            raise UserError(f"--comet: {PACKAGE} cannot be loaded ({error}); install it again") from None
        raise UserError(f"--comet needs {PACKAGE}, which is not installed; {install('metrics')}") from None
    from sacrebleu.metrics.base import Metric, Score, Signature

    try:
        path = model if Path(model).is_file() else comet.download_model(model)
        scorer = comet.load_from_checkpoint(path)
    except Exception as error:  # whatever network, disk and its libraries raise
        raise UserError(
            f"--comet {model}: the model cannot be loaded ({type(error).__name__}: {error}); "
            "give a name such as Unbabel/wmt22-comet-da, or a checkpoint file"
        ) from None

    class CometSignature(Signature):
        def __init__(self, args: dict[str, Any]):
            super().__init__(args)
            self.info["version"] = _version()
            self.info["comet"] = model

    class Comet(Metric):
        _SIGNATURE_TYPE = CometSignature
        name = "COMET"

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.num_refs = 1

        def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: Any) -> list[list[float]]:
            lines = [
                {"src": source, "mt": hypothesis, "ref": reference}
                for source, hypothesis, reference in zip(sources, hypotheses, first, strict=True)
            ]
            found = scorer.predict(lines, batch_size=8, gpus=int(device != "cpu"), progress_bar=False)
            return [[float(score), 1.0] for score in found.scores]

        def _compute_score_from_stats(self, stats: Any) -> Any:
            score: Any = Score(self.name, float(stats[0]) / float(stats[1]))
            return score

        def _aggregate_and_compute(self, stats: Any) -> Any:
            return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])

        # What the base class asks for and these statistics do without.
        def _preprocess_segment(self, sent: str) -> str:
            return sent

        def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
            return {}

        def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[Any]:
            raise NotImplementedError("COMET looks at all lines together")

    first = list(references[0])
    return Comet()


def _version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
