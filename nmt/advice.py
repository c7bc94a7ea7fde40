"""What to train on a corpus, and why: a first configuration in which every value carries its reason.

`fit_tokenizer` finds a vocabulary that the text allows, `advise` chooses, `render` writes TOML. The
sizes follow what trained well on corpora of that size: Wu et al. 2021 for Multi30k's 29,000 pairs,
fairseq's IWSLT'14 for 160,000, Vaswani et al. 2017 from a million on.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nmt.config_file import parse_config
from nmt.data.tokenizer import Tokenizer, VocabularySizeError, train_tokenizer
from nmt.errors import UserError, counted
from nmt.holdout import Layout
from nmt.profile import SAMPLE, Pairs, Profile, spread

TRIAL = 30_000  # pairs of the trial tokenizer
RESERVED = 260  # entries of every vocabulary: bytes and special tokens
FEW = 20_000  # pairs
WIDTH = 100  # of a line of the configuration


class TokenizerPlan(NamedTuple):
    """Tokenizer settings that the text allows."""

    type: str
    shared: bool
    vocabulary_size: int
    wanted: int  # the vocabulary size for a corpus of that size
    character_coverage: float
    batch_length: float  # mean tokens of the longer side of a pair, end of sentence counted
    target_length: float


class Choice(NamedTuple):
    """One line of a configuration."""

    section: str
    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Tier:
    """What to train on fewer than `below` pairs."""

    below: float
    preset: str
    vocabulary: int  # shared by both languages
    separate: int  # for each language
    batch_tokens: int
    learning_rate: float
    epochs: float  # at `epochs_at` pairs, where that is given
    epochs_at: int = 0
    dropout: float = 0.3
    most_warmup: int = 2000
    accumulation: int = 1


TIERS = (
    Tier(1_000, "tiny", 600, 500, 512, 2e-3, 100),
    Tier(3_000, "tiny", 1_200, 1_000, 1024, 2e-3, 70),
    Tier(10_000, "tiny", 2_000, 1_500, 1024, 3e-3, 40),
    Tier(20_000, "tiny", 4_000, 3_000, 2048, 4e-3, 60),
    Tier(150_000, "tiny", 8_000, 6_000, 4096, 5e-3, 100, 29_000),
    Tier(1_000_000, "small", 10_000, 8_000, 4096, 5e-4, 50, 160_000, most_warmup=4000),
    Tier(math.inf, "base", 32_000, 24_000, 8192, 7e-4, 20, 4_500_000, 0.1, most_warmup=4000, accumulation=3),
)
VALIDATIONS, PATIENCE = 25, 8
MOST_STEPS = 100_000  # Vaswani et al. 2017, base
# Target tokens on two cores of an AMD EPYC; `small` lies between the two that were measured.
TOKENS_PER_SECOND = {"tiny": 6000, "small": 900, "base": 600}
LARGE = 4096  # tokens of a batch
# Of `make bench BENCH='--only training --trained Transformer'`, with batches of LARGE tokens; `small` lies
# between.
GAIN_OF_INT8 = {"tiny": 1.5, "small": 2.0, "base": 2.5}


def tier_of(pairs: int) -> Tier:
    """The tier of a corpus with so many training pairs."""
    return next(tier for tier in TIERS if pairs < tier.below)


def fit_tokenizer(profile: Profile) -> TokenizerPlan:
    """Tokenizer settings for a training text, tried on it: the vocabulary is one that it allows.

    Raises:
        UserError: no vocabulary fits.
    """
    kept, source, target = profile.kept, profile.source, profile.target
    tier = tier_of(len(kept))
    kind = "bpe" if source.spaced and target.spaced else "unigram"
    # SentencePiece's own advice for scripts with thousands of characters; it takes 0.98 and more.
    coverages = [0.9999, 0.9995, 0.999, 0.995, 0.99, 0.98]
    if {"Han", "Kana"} & {*source.scripts, *target.scripts}:
        del coverages[0]
    sample = spread(kept, SAMPLE)
    # Apart, both languages have vocabularies of one size: that may suit neither, and sharing helps.
    for shared in (False, True) if not profile.same_script else (True,):
        wanted = tier.vocabulary if shared else tier.separate
        found = _fit(kept, kind, shared, wanted, coverages)
        if found is not None:
            tokenizers, coverage = found
            sources = tokenizers[0].encode_all([source for source, _ in sample])
            targets = tokenizers[-1].encode_all([target for _, target in sample])
            longer = sum(max(len(s), len(t)) + 1 for s, t in zip(sources, targets, strict=True))
            lengths = longer / len(sample), sum(len(t) + 1 for t in targets) / len(sample)
            return TokenizerPlan(kind, shared, len(tokenizers[0]), wanted, coverage, *lengths)
    raise UserError("found no vocabulary that this text allows; look at it with `nmt data check`")


def _fit(
    kept: Pairs, kind: str, shared: bool, wanted: int, coverages: Sequence[float]
) -> tuple[list[Tokenizer], float] | None:
    """Tokenizers of the size nearest to `wanted`, at the highest coverage that this size bears."""
    coverages, text = list(coverages), spread(kept, TRIAL)
    size, low, high = wanted, RESERVED + 1, 1 << 30
    while low <= high:
        try:
            return _try(text, kind, shared, size, coverages[0]), coverages[0]
        except VocabularySizeError as error:
            if error.most is not None and len(text) < len(kept):
                text = kept  # it may allow what a sample does not
            elif error.most is not None:
                # Not all it allows: the last entries are whole words seen twice.
                high = min(high - 1, error.most)
                size = max(low, RESERVED + int(0.8 * (high - RESERVED)))
            elif error.least > min(high, 1.6 * wanted) and len(coverages) > 1:
                del coverages[0]
            else:
                low = max(low + 1, error.least)
                size = min(high, RESERVED + int(1.2 * (low - RESERVED)))
    return None


def _try(text: Pairs, kind: str, shared: bool, size: int, coverage: float) -> list[Tokenizer]:
    sides: list[Iterable[str]] = (
        [(line for pair in text for line in pair)] if shared else [[s for s, _ in text], [t for _, t in text]]
    )
    return [
        train_tokenizer(lines, type=kind, vocabulary_size=size, character_coverage=coverage)
        for lines in sides
    ]


def advise(
    profile: Profile, plan: TokenizerPlan, layout: Layout, *, bytes_here: bool = False
) -> list[Choice]:
    """A value and its reason for every key worth a thought; the others keep their defaults.

    Args:
        bytes_here: that training is to be on a processor that can do it in int8, and has no GPU.
    """
    n = len(profile.kept)
    return [
        *_data(profile, layout),
        *_tokenizer(profile, plan, n),
        *_model(plan, tier_of(n), n),
        *_training(plan, tier_of(n), n, bytes_here),
        Choice("search", "beam_size", 5, "1 is greedy: several times faster, a little worse"),
        Choice("search", "length_penalty", 1.0, "the usual; raise it if translations end too early"),
    ]


def _data(profile: Profile, layout: Layout) -> list[Choice]:
    source, target = layout.languages

    def origin(name: str) -> str:
        count = layout.held_out.get(name)
        return "yours" if count is None else f"{count:,} pairs held out; training shares no line with them"

    rows: list[tuple[str, Any, str]] = [
        ("train", layout.train, f"{profile.pairs:,} pairs: PREFIX.{source} and PREFIX.{target}"),
        ("validation", layout.validation, f"{origin('validation')}; chooses the best checkpoint"),
        ("test", layout.test, f"{origin('test')}; for `nmt evaluate` when all is chosen"),
        ("source_language", source, "how the names of the source files end"),
        ("target_language", target, "how the names of the target files end"),
    ]
    if profile.drop_duplicates:
        share = f"{profile.duplicates:,} pairs came before; learning them twice teaches little"
        rows.append(("drop_duplicates", True, share))
    if profile.drop_copies:
        share = f"{profile.copies:,} pairs have equal sides; they teach to leave text untranslated"
        rows.append(("drop_copies", True, share))
    if layout.overlap:
        share = f"{layout.overlap:,} pairs repeat a line of validation or test; drops those with its source"
        rows.append(("drop_overlap", True, share))
    return [Choice("data", *row) for row in rows]


def _tokenizer(profile: Profile, plan: TokenizerPlan, n: int) -> list[Choice]:
    source, target = (" and ".join(side.scripts) for side in (profile.source, profile.target))
    if plan.type == "bpe":
        kind = "blanks part the words in both languages; byte pairs are the usual choice then"
    else:
        name = source if not profile.source.spaced else target
        kind = f"{name} has no blanks between words; unigram cuts such text better than byte pairs"
    if profile.same_script:
        shared = f"both languages are written in {source}; common names and stems are learnt once"
    elif plan.shared:
        shared = f"the scripts differ ({source}, {target}), but apart no one size suits both"
    else:
        shared = f"the scripts differ ({source}, {target}); there is nothing to share"
    each = "" if plan.shared else " in each language"
    if plan.vocabulary_size < plan.wanted:
        size = f"{n:,} pairs allow hardly more{each}: so few different words"
    elif plan.vocabulary_size > plan.wanted:
        size = f"the many different characters need so many{each}"
    elif n < FEW:
        size = f"{n:,} pairs: a larger vocabulary{each} would see most of its entries a few times only"
    else:
        size = f"usual{each} for {n:,} pairs; frequent words stay whole"
    found = [
        Choice("tokenizer", "type", plan.type, kind),
        Choice("tokenizer", "shared", plan.shared, shared),
        Choice("tokenizer", "vocabulary_size", plan.vocabulary_size, size),
    ]
    if plan.character_coverage < 0.9999:
        rare = "rarer characters are spelled in bytes and leave the vocabulary to the others"
        found.append(Choice("tokenizer", "character_coverage", plan.character_coverage, rare))
    return found


def _model(plan: TokenizerPlan, tier: Tier, n: int) -> list[Choice]:
    sizes = {
        "tiny": "a wider model would learn so little text by heart, and a CPU trains this one",
        "small": "the size of IWSLT'14; wants a GPU, on a CPU training takes days",
        "base": "Vaswani et al. 2017; wants a GPU, a CPU would need weeks",
    }
    noise = {
        0.3: "little text is learnt by heart soon; strong noise delays that",
        0.1: "much text is its own protection; more noise would slow learning",
    }
    found = [
        Choice("model", "architecture", "transformer", "the best translations for the time spent"),
        Choice("model", "preset", tier.preset, f"{n:,} pairs: {sizes[tier.preset]}"),
        Choice("model", "dropout", tier.dropout, noise[tier.dropout]),
    ]
    if tier.preset == "tiny":
        norm = "learns sooner where to look; with post 4,500 pairs stayed at a quarter of the BLEU"
        found.append(Choice("model", "norm", "pre", norm))
    if not plan.shared:
        ties = "input and output of the target share weights; two vocabularies cannot share all"
        found.append(Choice("model", "tie_embeddings", "target", ties))
    return found


def _training(plan: TokenizerPlan, tier: Tier, n: int, bytes_here: bool) -> list[Choice]:
    # Padding and the ends of batches leave about a tenth empty.
    pairs_a_step = 0.9 * tier.batch_tokens * tier.accumulation / plan.batch_length
    steps_an_epoch = max(1.0, n / pairs_a_step)
    epochs = tier.epochs
    if tier.epochs_at:
        epochs *= min(1.0, (tier.epochs_at / n) ** 0.75)
    every = _round_step(min(MOST_STEPS, epochs * steps_an_epoch) / VALIDATIONS)
    steps = every * VALIDATIONS
    warmup = min(tier.most_warmup, _round_step(steps / 6))
    in_bytes = bytes_here and tier.batch_tokens >= LARGE
    speed = TOKENS_PER_SECOND[tier.preset] * (GAIN_OF_INT8[tier.preset] if in_bytes else 1)
    seconds = steps * pairs_a_step * plan.target_length / speed
    cost = f"{_time(seconds)} on two free CPU cores, less if patience ends it sooner"
    batch = f"some {tier.batch_tokens / plan.batch_length:,.0f} pairs, {steps_an_epoch:,.0f} updates an epoch"
    if n < FEW:
        batch += "; larger batches would leave too few"
    rows: list[tuple[str, Any, str]] = [
        ("seed", 1, "another seed, another random start; compare several before you trust a small gain"),
        ("max_steps", steps, f"about {steps / steps_an_epoch:,.0f} epochs; {cost}"),
        ("batch_tokens", tier.batch_tokens, batch),
    ]
    if tier.accumulation > 1:
        together = tier.accumulation * tier.batch_tokens
        reason = f"batches an update: {together:,} tokens, as Vaswani et al. 2017, in the memory of one GPU"
        rows.append(("accumulation", tier.accumulation, reason))
    rates = "a narrow model bears a high rate" if tier.preset == "tiny" else "wider models need lower rates"
    if tier.preset == "tiny" and n < FEW:
        rates += ", a short warm-up a lower one than the usual 0.005"
    rows += [
        ("learning_rate", tier.learning_rate, f"the peak; {rates}"),
        ("warmup_steps", warmup, f"{warmup / steps:.0%} of max_steps; the rate climbs, then falls"),
        ("label_smoothing", 0.1, "keeps the model from being too sure; the usual amount"),
        ("validate_every", every, f"steps; {VALIDATIONS} looks at validation, each saves a checkpoint"),
        ("patience", PATIENCE, f"stops after {PATIENCE * every:,} steps without a better validation BLEU"),
        ("keep_last", 5, "checkpoints; `nmt average` of them is often better than the best alone"),
    ]
    if in_bytes:
        reason = "tiny 1.5, base 2.5 times as fast as in float32 on an Intel Xeon; bfloat16 for a GPU"
        rows.append(("precision", "int8", reason))
    elif tier.preset != "tiny":
        reason = "nearly twice the speed at this width; take float32 on GPUs older than 2020"
        rows.append(("precision", "bfloat16", reason))
    return [Choice("training", *row) for row in rows]


def _round_step(number: float) -> int:
    """To two digits, the second 0 or 5."""
    unit = max(1, int(5 * 10 ** (math.floor(math.log10(max(1.0, number))) - 1)))
    return max(unit, round(number / unit) * unit)


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds > 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return counted(max(1, math.ceil(seconds / 60)), "minute")


def render(choices: Sequence[Choice], heading: str) -> str:
    """A commented configuration that `load_config` reads.

    Raises:
        UserError: a path cannot be written as TOML.
    """
    lines = [f"# {_one_line(row)}".rstrip() for row in heading.split("\n")]
    section = ""
    for choice in choices:
        if choice.section != section:
            section = choice.section
            lines += ["", f"[{section}]"]
        # JSON's numbers, strings and booleans are TOML's, but for one character.
        value = json.dumps(choice.value, ensure_ascii=False).replace("\x7f", "\\u007f")
        setting, reason = f"{choice.key} = {value}", _one_line(choice.reason)
        if len(setting) + len(reason) + 4 <= WIDTH:
            lines.append(f"{setting}  # {reason}")
        else:
            wrapped = textwrap.wrap(reason, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
            lines += [*(f"# {part}" for part in wrapped), setting]
    text = "\n".join(lines) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        broken = next(row for row in text.split("\n") if row.count(text[error.start])).partition(" = ")[2]
        raise UserError(
            f"the path {broken!a} is not UTF-8, or this locale is not, and cannot stand in a "
            "configuration; rename it, or set LC_ALL=C.UTF-8"
        ) from None
    parse_config(text, file="the advised configuration")
    return text


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() or 0xD800 <= ord(c) < 0xE000 else "�" for c in text)
