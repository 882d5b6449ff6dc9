"""The part of a report that is about one reading: its figures with their intervals, its worst errors, its calibration curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation.reading_scores import Interval, bootstrap, list_bins, measure_calibration_error

if TYPE_CHECKING:
    import numpy as np

Row = dict[str, Any]
WORST = 10
SHOWN = 160  # characters of a text in the error analysis


@dataclass
class Section:
    """The figures of one reading, its worst errors, and the calibration curves of its probabilities."""

    name: str
    seed: int
    figures: list[Row] = field(default_factory=list)
    errors: dict[str, list[Row]] = field(default_factory=dict)
    curves: dict[str, Row] = field(default_factory=dict)

    def add(
        self, measure: str, statistic: Callable[[np.ndarray], float], groups: Sequence[str], note: str = ""
    ) -> Interval:
        """Adds a figure; `statistic` takes row numbers, `groups` is the conversation of each row."""
        found = bootstrap(statistic, groups, self.seed)
        rounded = {key: None if value is None else round(value, 4) for key, value in found._asdict().items()}
        self.figures.append(
            {"measure": measure, **rounded, "rows": len(groups), "groups": len(set(groups)), "note": note}
        )
        return found

    def add_curve(self, name: str, confidence: np.ndarray, truth: np.ndarray, groups: Sequence[str]) -> None:
        """Adds both expected calibration errors of a probability, and its curves."""
        curve: Row = {}
        for kind, adaptive in (("equal width", False), ("adaptive", True)):

            def error(rows: np.ndarray, adaptive: bool = adaptive) -> float:
                return measure_calibration_error(confidence[rows], truth[rows], adaptive)

            self.add(
                f"{name}: calibration error, {kind}",
                error,
                groups,
                "15 bins; lower is better; its bootstrap leans upward",
            )
            curve[kind] = [asdict(b) for b in list_bins(confidence, truth, adaptive)]
        self.curves[name] = curve


def list_worst(
    rows: list[Row],
    measure: str,
    describe: Callable[[Row], tuple[object, object, float]],
    *,
    own: bool = True,
    lowest: bool = False,
) -> list[Row]:
    """The `WORST` rows, each with id, what was expected, what was read, and the number that ranks them, under the name `measure`.

    Args:
        rows: What was read; `at` is the turn, where there are several.
        measure: Name of the number, such as `error` or `confidence`.
        describe: What was expected and read, and the number.
        own: Whether the text, shortened, may be shown: that of public sets stays out of a file that could be published.
        lowest: Whether the lowest number is worst.
    """
    described = [(*describe(row), row) for row in rows]
    described.sort(key=lambda d: (d[2] if lowest else -d[2], d[3]["id"], d[3].get("at", 0)))
    errors = []
    for expected, found, number, row in described[:WORST]:
        place = f"{row['id']}/{row['at']}" if "at" in row else row["id"]
        error: Row = {"id": place, "expected": expected, "found": found, measure: round(float(number), 4)}
        if own:
            error["text"] = row["text"] if len(row["text"]) <= SHOWN else row["text"][: SHOWN - 1] + "…"
        errors.append(error)
    return errors


def on_rows(statistic: Callable[..., float], *arrays_and_rows: Any) -> float:
    """A statistic of arrays on some of their rows; the last argument holds the row numbers."""
    *arrays, rows = arrays_and_rows
    return statistic(*(array[rows] for array in arrays))


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """The statistic that is the mean of `values`, or the share where they are true or false."""
    return lambda rows: float(values[rows].mean())
