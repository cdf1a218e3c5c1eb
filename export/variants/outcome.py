"""What became of a recipe that has no artifact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from export.convert.recipes import Recipe
from export.layers import LayerReport
from fl_mobile.errors import ExportError

SKIPPED, FAILED = "skipped", "failed"


@dataclass(frozen=True)
class Unmade:
    """A recipe that was asked for and has no artifact in the bundle.

    Attributes:
        recipe: Its name.
        outcome: ``"skipped"`` when it does not suit the model, which is known before anything is converted;
            ``"failed"`` when it was tried.
        reason: What was found, one line.
        advice: The layer that hurts most where layers were measured, and the next thing to try.
    """

    recipe: str
    outcome: str
    reason: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """Returns the record in JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.recipe} {self.outcome}: {self.reason}{f' {self.advice}' if self.advice else ''}"


def told_together(unmade: Iterable[Unmade]) -> str:
    """Returns one line for all of them; recipes that came to the same end for the same reason are told at once."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in unmade:
        alike.setdefault((each.outcome, each.reason, each.advice), []).append(each.recipe)
    return "; ".join(str(Unmade(", ".join(names), *end)) for end, names in alike.items())


def advice_for(recipe: Recipe, layers: LayerReport | None) -> str:
    """Returns what to try after ``recipe`` failed its parity."""
    other = f"recipe '{recipe.instead}'" if recipe.instead else ""
    worst = None if layers is None else layers.worst
    if worst is None:
        return f"Try {other}." if other else ""
    name, share = worst
    return f"Layer {name!r} adds {share:.0%} of the noise at the answer: try --keep-float {name}" + (
        f", or {other}." if other else "."
    )


def advice_on_refusal(recipe: Recipe, layer: str) -> str:
    """Returns what to try after a runtime refused an operation of ``layer``."""
    if not layer or recipe.weight_bits != 8:
        return ""
    return f"That is layer {layer!r}: try --keep-float {layer}" + (
        f", or recipe '{recipe.instead}'." if recipe.instead else "."
    )


def nothing_made(unmade: Sequence[Unmade]) -> ExportError:
    """Returns the error that says of every recipe why it has no artifact."""
    return ExportError(f"no artifact could be made, so no bundle was written. {told_together(unmade)}")
