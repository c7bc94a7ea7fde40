"""sacreBLEU's metrics with the options of its command line, kept together for one set of references.

What goes in is lines of `nmt.data.corpus.read_lines`: cut at newlines alone, as sacreBLEU cuts a file,
without the carriage return before them, which it strips with all other blanks at a line's end. A byte order
mark at the head of a file is no text here; sacreBLEU's command line takes it for part of the first line.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nmt.errors import UserError

# sacreBLEU's metrics, and the names of their scores.
SCORE_NAMES = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++", "ter": "TER"}
METRICS = tuple(SCORE_NAMES)
# Codes of three letters that ISO 639 has for languages sacreBLEU has a tokenizer of.
_TWO_LETTERS = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko"}
SEED_VARIABLE = "SACREBLEU_SEED"  # sacreBLEU reads it by itself; 12345 without it


@dataclass(frozen=True)
class MetricOptions:
    """How text is compared. The names of sacreBLEU's options stand beside."""

    tokenize: str | None = None  # --tokenize; None is its default, 13a
    lowercase: bool = False  # --lowercase: BLEU
    chrf_lowercase: bool | None = None  # --chrf-lowercase; None is as `lowercase`
    ter_case_sensitive: bool = False  # --ter-case-sensitive; TER is caseless without
    force: bool = False  # --force: no warning where text looks tokenised


class MetricSet:
    """Metrics that know their references, as the command line of sacreBLEU makes them.

    Attributes:
        metrics: sacreBLEU's metric objects by the names of their scores: "BLEU", "chrF2", "chrF2++", "TER",
            and those of `extra`.
        size: number of lines.
        fingerprint: the beginning of a hash of the references.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        options: MetricOptions | None = None,
        *,
        names: Sequence[str] = METRICS,
        extra: Sequence[Any] = (),
    ):
        """
        Args:
            references: one or more lists of lines, of one length.
            names: of METRICS.
            extra: more metrics with sacreBLEU's interface and a `name`.

        Raises:
            UserError: a tokenizer that sacreBLEU has not, or that needs what is not installed.
        """
        self.options = options or MetricOptions()
        self.references = [list(lines) for lines in references]
        self.size = len(self.references[0])
        self.fingerprint = fingerprint(self.references)
        self.metrics: dict[str, Any] = {}
        for name in names:
            self.metrics[SCORE_NAMES[name]] = make_metric(name, self.options, self.references)
        for metric in extra:
            self.metrics[metric.name] = metric
        for metric in self.metrics.values():
            _remember_statistics(metric)

    def statistics(self, name: str, hypotheses: Sequence[str]) -> list[Any]:
        """What a metric counts in each line; computed once for each list of hypotheses."""
        found: list[Any] = self.metrics[name]._extract_corpus_statistics(hypotheses, None)
        return found

    def of_sentences(self) -> dict[str, Any]:
        """Metrics for scores of single lines: BLEU stops at the highest order a line has n-grams of, as
        sacreBLEU's --sentence-level does."""
        found = {}
        for name, metric in self.metrics.items():
            found[name] = metric
            if name == "BLEU":
                found[name] = copy.copy(metric)
                found[name].effective_order = True
        return found

    def signature(self, name: str) -> str:
        """As sacreBLEU writes it."""
        return str(self.metrics[name].get_signature())

    def words(self, line: str) -> list[str]:
        """A line's words as BLEU counts them: in its case and by its tokenizer."""
        found: list[str] = self.metrics["BLEU"]._preprocess_segment(line).split()
        return found


def default_tokenizer(language: str | None) -> str | None:
    """BLEU's tokenizer that sacreBLEU takes for a target language, such as zh for Chinese; None is 13a.

    Args:
        language: a code as `data.target_language` has it: "zh", "zh-TW", "zho_Hans", "jpn". None is unknown.
    """
    from sacrebleu.metrics.bleu import BLEU

    code = re.split("[-_.]", (language or "").lower())[0]
    found: str | None = BLEU._TOKENIZER_MAP.get(_TWO_LETTERS.get(code, code))
    return found


def tokenizer_here(language: str | None) -> str | None:
    """`default_tokenizer`; "char" where that needs what is not installed. The signature says which."""
    tokenize = default_tokenizer(language)
    try:
        make_metric("bleu", MetricOptions(tokenize))
    except UserError:
        return "char"
    return tokenize


def fingerprint(references: Sequence[Sequence[str]]) -> str:
    """The beginning of a sha256 of lines, which tells test sets of one name apart."""
    text = hashlib.sha256()
    for lines in references:
        # A length first, so that two references are not one long one.
        text.update(f"{len(lines)}\n".encode())
        text.update("".join(f"{line}\n" for line in lines).encode())
    return text.hexdigest()[:12]


def make_metric(name: str, options: MetricOptions, references: Sequence[Sequence[str]] | None = None) -> Any:
    """One of sacreBLEU's metrics.

    Raises:
        UserError: as `MetricSet`.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    given = None if references is None else [list(lines) for lines in references]
    if name == "bleu":
        tokenize = options.tokenize
        if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
            raise UserError(
                f"--tokenize {tokenize} is not one of sacreBLEU's: {', '.join(sorted(BLEU.TOKENIZERS))}"
            )
        try:
            # Text for --tokenize none is tokenised on purpose: no warning of that.
            force = options.force or tokenize == "none"
            return BLEU(tokenize=tokenize, lowercase=options.lowercase, force=force, references=given)
        except (ImportError, RuntimeError, OSError) as error:
            raise UserError(
                f"--tokenize {tokenize} cannot be used here ({error}); "
                "install what it needs, or choose another"
            ) from None
    if name in ("chrf", "chrf++"):
        lowercase = options.lowercase if options.chrf_lowercase is None else options.chrf_lowercase
        return CHRF(word_order=2 if name == "chrf++" else 0, lowercase=lowercase, references=given)
    return TER(case_sensitive=options.ter_case_sensitive, references=given)


def check_seed() -> None:
    """UserError where SACREBLEU_SEED is no seed."""
    seed = os.environ.get(SEED_VARIABLE, "none")
    if seed.lower() != "none" and not (seed.isascii() and seed.isdigit()):
        raise UserError(f"{SEED_VARIABLE} is {seed!r}; set it to a whole number from 0, or unset it")


def seed_of_resampling() -> str:
    """The seed that sacreBLEU resamples with: a number, or "none" for another one each time."""
    return os.environ.get(SEED_VARIABLE, "12345").lower()


def forget_resampling(metric: Any) -> None:
    """Take the number of resamples out of the next signature."""
    metric.n_bootstrap = metric.seed = None


def _remember_statistics(metric: Any) -> None:
    """Intervals, tests, sentences and breakdowns all begin with the same counts, which cost the most."""
    extract = metric._extract_corpus_statistics
    known: dict[int, tuple[Any, Any]] = {}

    def remembered(hypotheses: Any, references: Any) -> Any:
        if references is not None:
            return extract(hypotheses, references)
        if id(hypotheses) not in known:
            known[id(hypotheses)] = (
                hypotheses,
                extract(hypotheses, None),
            )  # kept, so that the id stays its own
        return known[id(hypotheses)][1]

    metric._extract_corpus_statistics = remembered
