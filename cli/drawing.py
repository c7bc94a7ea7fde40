"""The options of `nmt translate` that draw translations: --sample, --mbr and what goes with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.sampling import Draws

UTILITIES = ("chrf", "bleu")


@dataclass(frozen=True)
class Drawing:
    """Of the command line; None is not given.

    Raises:
        UserError: they do not go together.
    """

    sample: bool = False
    mbr: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    utility: str | None = None

    def __post_init__(self) -> None:
        if self.mbr is not None and self.mbr < 2:
            raise UserError(
                f"--mbr {self.mbr} leaves nothing to compare a sample with; use 2 or more, or --sample"
            )
        if self.utility is not None:
            if self.mbr is None:
                raise UserError("--utility goes with --mbr; add that")
            if self.utility not in UTILITIES:
                raise UserError(f"--utility {self.utility} is not known; use {' or '.join(UTILITIES)}")
        if not self.drawn:
            for name in ("temperature", "top_k", "top_p", "seed"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} goes with --sample or --mbr; add one")
        if self.temperature is not None and not 0.001 <= self.temperature <= 1000:
            if 0 <= self.temperature < 1:
                raise UserError(
                    f"--temperature {self.temperature:g} leaves nothing to chance; use --beam-size 1 in "
                    "place of sampling"
                )
            raise UserError(
                f"--temperature {self.temperature:g} is not from 0.001 to 1000; 1 is the model's own"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k {self.top_k} leaves no token; use 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g} is no probability above 0; use one up to 1")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"--seed {self.seed} is negative; use 0 or more")

    @property
    def drawn(self) -> bool:
        """Whether anything is."""
        return self.sample or self.mbr is not None

    def check(self, *, beam_size: int | None, n_best: int, engine: str) -> None:
        """UserError where the other options ask for a beam."""
        if not self.drawn:
            return
        asked = "--sample" if self.sample else "--mbr"
        if beam_size is not None and (beam_size > 1 or self.mbr is not None):
            raise UserError(f"{asked} draws, and --beam-size {beam_size} searches; leave one out")
        if engine != "nmt":
            raise UserError(f"{asked} is not for --engine {engine}; leave one out")
        if self.mbr is not None and n_best > self.mbr:
            raise UserError(f"--n-best {n_best} is more than --mbr {self.mbr} draws; raise --mbr")

    def draws(self, n_best: int) -> Draws | None:
        """What to draw of each line."""
        from nmt.sampling import Draws

        if not self.drawn:
            return None
        given = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "seed")}
        return Draws(
            samples=n_best if self.mbr is None else self.mbr,
            **{name: value for name, value in given.items() if value is not None},
        )

    def utility_of_risk(self) -> str | None:
        """By which samples are compared; None: they are not."""
        return None if self.mbr is None else self.utility or UTILITIES[0]

    def settings(self, n_best: int) -> dict[str, Any]:
        """What decides the translations, by name."""
        draws = self.draws(n_best)
        return {**({} if draws is None else asdict(draws)), "utility": self.utility_of_risk()}
