"""Where the marks of the report's plots go: numbers in, positions out; `plots.html` draws them.

Plots that stretch with the page count from 0 to 100 on both axes, y downwards. Slopes are drawn in pixels. A missing number is
None and gets no mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any

SLOPE_WIDTH, SLOPE_FROM, SLOPE_TO, SLOPE_TOP = 320, 164, 268, 34
LABEL_GAP = 15.0  # pixels between the middles of two labels
HEIGHT = 150  # pixels of the lowest plot of lines


def place_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that cover `low` to `high`, at most about `most`.

    >>> place_ticks(0, 0.43)
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    >>> place_ticks(-0.31, 0.02)
    [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1]
    """
    rough = (high - low or 1.0) / (most - 1)
    scale = 10 ** floor(log10(rough))
    step = next(size * scale for size in (1, 2, 2.5, 5, 10) if size * scale >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, max(last, first + 1) + 1)]


def count_digits(ticks: Sequence[float]) -> int:
    """Decimals that tell ticks apart.

    >>> count_digits([0.0, 0.1, 0.2]), count_digits([0.0, 0.25]), count_digits([0, 20])
    (1, 2, 0)
    """
    return next((digits for digits in range(4) if all(round(tick, digits) == tick for tick in ticks)), 4)


def spread_labels(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Moves labels apart until neighbours are `least` away, in order and as near as possible to where they belong.

    >>> spread_labels([10, 12, 40], 10, 0, 100)
    [6.0, 16.0, 40.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    least = min(least, (high - low) / max(1, len(order) - 1))
    groups: list[list[float]] = []  # of [sum of wanted tops, number of labels]
    for rank, i in enumerate(order):
        groups.append([wanted[i] - rank * least, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, size = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + size]
    offsets = [total / size for total, size in groups for _ in range(int(size))]
    room = high - low - least * (len(order) - 1)
    placed = [0.0] * len(order)
    for rank, i in enumerate(order):
        placed[i] = round(low + min(max(offsets[rank] - low, 0.0), max(room, 0.0)) + rank * least, 1)
    return placed


def place_rows(rows: list[dict[str, Any]], *, zero: bool = False, reference: float | None = None) -> dict[str, Any]:
    """Places dots with whiskers on one common axis.

    Args:
        rows: Each with `value`, `interval` (a pair) and `spread` (values of single conversations), all of which may be missing;
            `best`, `against`, `note` and `sure` (whether the dot is full) go to the template.
        zero: Whether zero gets a line in the middle of the marks rather than being the left end.
        reference: A value that gets a line through every row.
    """
    values = [0.0, *([reference] if reference is not None else [])]
    for row in rows:
        values += [v for v in (row.get("value"), *(row.get("interval") or ()), *row.get("spread", ())) if v is not None]
    ticks = place_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / (high - low), 2)

    rows = [{"best": False, "against": None, "note": "", "sure": True, **row} for row in rows]
    for row in rows:
        ends = row.get("interval")
        row["x"] = x(row.get("value"))
        row["ends"] = [x(end) for end in ends] if ends and None not in ends else None
        counts = Counter(round(x(value) or 0) for value in row.get("spread", ()))
        tallest = max(counts.values(), default=1)
        row["bars"] = [(at, round(100 * (count / tallest) ** 0.5)) for at, count in sorted(counts.items())]
    return {
        "rows": rows,
        "ticks": [(x(tick), tick) for tick in ticks],
        "digits": count_digits(ticks),
        "zero": x(0.0) if zero else None,
        "reference": x(reference),
    }


def name_side(gap: float | None, tolerance: float) -> str:
    """Says on which side of the tolerance a gap lies: `over`, `under`, `within`, or `none` where there is no gap."""
    if gap is None:
        return "none"
    if round(abs(gap) - tolerance, 6) <= 0:
        return "within"
    return "over" if gap > 0 else "under"


def place_slopes(tasks: dict[str, dict[str, Any]], tolerance: float, height: int) -> dict[str, Any]:
    """Places one slope per task from the desired level (left) to the perceived one (right), in pixels."""
    kept = {name: task for name, task in tasks.items() if task.get("desired") is not None}

    def y(level: float | None) -> float | None:
        return None if level is None else round(SLOPE_TOP + (1 - level) * (height - SLOPE_TOP - 12), 1)

    left = [y(task["desired"]) for task in kept.values()]
    right = [y(task.get("perceived")) for task in kept.values()]
    named = spread_labels([at or 0.0 for at in left], LABEL_GAP, SLOPE_TOP, height - 10)
    seen = [at for at in right if at is not None]
    valued = iter(spread_labels(seen, LABEL_GAP, SLOPE_TOP, height - 10))
    lines = []
    for (name, task), start, end, label in zip(kept.items(), left, right, named, strict=True):
        lines.append(
            {
                "task": name,
                "desired": task["desired"],
                "perceived": task.get("perceived"),
                "gap": task.get("gap"),
                "side": name_side(task.get("gap"), tolerance),
                "from": start,
                "to": end,
                "label": label,
                "value": next(valued) if end is not None else None,
                "ends": [y(level) for level in task.get("perceived_interval") or ()],
            }
        )
    return {"lines": lines, "height": height, "width": SLOPE_WIDTH, "x": (SLOPE_FROM, SLOPE_TO)}


def place_curves(
    curves: list[dict[str, Any]], *, high: float | None = None, wanted: Sequence[tuple[int, float, float]] = ()
) -> dict[str, Any] | None:
    """Places lines over turns, from zero up.

    Args:
        curves: Each with `name`, `style` and `points` [(turn, value or None)].
        high: Upper end of the axis of a small plot with few ticks; by default the next round number above all values.
        wanted: A zone as (turn, lower, upper).

    Returns:
        Paths, labels at their right ends, the zone and ticks; None where no curve has a value.
    """
    values = [value for curve in curves for _, value in curve["points"] if value is not None]
    turns = sorted({turn for curve in curves for turn, _ in curve["points"]} | {turn for turn, *_ in wanted})
    if not values:
        return None
    ticks = place_ticks(0.0, max(values), 5) if high is None else [0.0, high / 2, high]
    top, first, last = ticks[-1], turns[0], turns[-1]

    def x(turn: int) -> float:
        return round(100 * (turn - first) / (last - first), 2) if last > first else 50.0

    def y(value: float) -> float:
        return round(100 * (1 - value / top), 2)

    drawn = []
    for curve in curves:
        points = [(x(turn), y(value)) for turn, value in curve["points"] if value is not None]
        if points:
            path = "".join(f"{'L' if i else 'M'}{a:g} {b:g}" for i, (a, b) in enumerate(points))
            drawn.append({**curve, "path": path + ("h.01" if len(points) == 1 else ""), "end": points[-1][1]})
    for curve, at in zip(drawn, spread_labels([c["end"] for c in drawn], 1500 / HEIGHT, 0.0, 100.0), strict=True):
        curve["label"] = at
    there = [f"{x(turn):g},{y(upper):g}" for turn, _, upper in wanted]
    back = [f"{x(turn):g},{y(lower):g}" for turn, lower, _ in reversed(wanted)]
    every = max(1, ceil((last - first + 1) / (12 if high is None else 6)))
    marked = [turn for turn in turns if (turn - first) % every == 0]
    return {
        "curves": drawn,
        "zone": " ".join(there + back) if len(there) > 1 else "",
        "y": [(y(tick), tick) for tick in ticks],
        "digits": count_digits(ticks),
        "x": [(x(turn), turn) for turn in marked],
    }


def place_course(turns: list[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """Places the course of one conversation: per reply a stem from the desired to the perceived level."""
    marks: dict[str, list[str]] = {"over": [], "under": [], "within": [], "desired": []}
    width = 100 / max(1, len(turns))
    for number, turn in enumerate(turns):
        desired, perceived = turn.get("desired"), turn.get("perceived")
        if desired is None or perceived is None:
            continue
        at = round((number + 0.5) * width, 2)
        marks["desired"].append(f"M{at - width * 0.32:.2f} {100 - 100 * desired:.1f}h{width * 0.64:.2f}")
        side = name_side(turn.get("gap"), tolerance)
        marks[side].append(f"M{at} {100 - 100 * desired:.1f}V{100 - 100 * perceived:.1f}")
    return {name: "".join(paths) for name, paths in marks.items()}
