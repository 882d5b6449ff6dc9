"""Writes report.html: the whole report as one page without scripts that matter, outside requests or trust in its texts.

What the page holds is decided here, how it is worded in `wording.py`, where marks go in `plots.py`, and how all that looks in
`page.html`, `plots.html` and `page.css`. Every figure is one of report.json's or a mean over its conversations.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.evaluation import plots, wording
from empathy_agent.evaluation.conversations import (
    Systems,
    average_turns,
    choose_conversations,
    compare_conversations,
    measure_conversation,
    shorten_turns,
)
from empathy_agent.evaluation.figures import list_figures

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
TOLERANCE = 0.1  # where the report's settings name none
MOST_FAILED = 40  # failed sessions that are listed
# Controls, lone surrogates and characters that turn the direction of text around or are invisible.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


def write_page(report: dict[str, Any]) -> str:
    """Returns the report as one HTML page that needs nothing else; the same report gives the same page.

    Shows the figures of every system in plots and tables, and of each system its worst and best conversations in full (fewer the
    more systems there are, long ones without their middle), so that the page stays small however many conversations were played.

    Args:
        report: What report.json holds. Anything may be missing or None; texts may hold anything.
    """
    from markupsafe import Markup

    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        build_environment()
        .get_template("page.html")
        .render(
            **view_report(make_visible(report)),
            style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


@cache
def build_environment() -> Environment:
    """The templates of this folder; what they fill in is escaped, and a name that they use but nobody set is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= wording.FILTERS
    return environment


def make_visible(value: Any) -> Any:
    r"""Copies a JSON value with unseen characters made visible and numbers that are not finite made None.

    >>> make_visible({"a": "b\x07\u202e", "c": [float("nan")]})
    {'a': 'b␇[U+202E]', 'c': [None]}
    """
    if isinstance(value, str):
        return UNSEEN.sub(_show, value.replace("\r\n", "\n"))
    if isinstance(value, dict):
        return {make_visible(str(name)): make_visible(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [make_visible(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else f"[U+{code:04X}]"


def view_report(report: dict[str, Any]) -> dict[str, Any]:
    """Everything that the template says, by its names there."""
    systems: Systems = report.get("systems") or {}
    tolerance = (report.get("settings") or {}).get("tolerance")
    tolerance = TOLERANCE if tolerance is None else tolerance
    best = choose_best(systems)
    failed = [
        {"system": name, **conversation}
        for name, system in systems.items()
        for conversation in system.get("conversations") or []
        if conversation.get("status") == "failed"
    ]
    ablations = [_view_gap(name, system, None) for name, system in (report.get("ablations") or {}).items()]
    named = {row["name"] for row in ablations}
    comparisons = report.get("comparisons") or []
    whole = next((compared.get("against") for compared in comparisons if compared.get("system") in named), None)
    reference = (systems.get(whole or "") or {}).get("mean_abs_gap")
    return {
        "best": best,
        "headline": wording.word_headline(systems, best),
        "standfirst": wording.word_standfirst(report),
        "cautions": wording.list_cautions(report, failed),
        "systems": systems,
        "tolerance": tolerance,
        "gaps": plots.place_rows([_view_gap(name, system, best) for name, system in systems.items()]),
        "tasks": _collect(systems, "tasks"),
        "slopes": view_slopes(systems, tolerance),
        "shares": [
            (name, system["under_share"], system["over_share"])
            for name, system in systems.items()
            if system.get("under_share") is not None and system.get("over_share") is not None
        ],
        "courses": view_courses(systems, best, tolerance),
        "constructs": {kind: _collect(systems, kind) for kind in ("dimensions", "mechanisms")},
        "comparisons": view_comparisons(comparisons),
        "ablations": plots.place_rows(ablations, reference=reference) if ablations else None,
        "whole": whole,
        "figures": list_figures(systems),
        "judges": _collect(systems, "judged_by"),
        "shown": {name: choose_conversations(system, len(systems)) for name, system in systems.items()},
        "others": compare_conversations(systems),
        "place_course": lambda turns: plots.place_course(turns, tolerance),
        "name_side": lambda gap: plots.name_side(gap, tolerance),
        "shorten": shorten_turns,
        "failed": failed[:MOST_FAILED],
        "failed_more": max(0, len(failed) - MOST_FAILED),
        "failed_title": f"{wording.word_sum(len(failed), 'session')} failed",
        "provenance": wording.list_provenance(report),
        "command": shlex.join(map(str, report.get("command") or [])),
    }


def _collect(systems: Systems, kind: str) -> list[str]:
    return list(dict.fromkeys(name for system in systems.values() for name in system.get(kind) or {}))


def view_slopes(systems: Systems, tolerance: float) -> dict[str, dict[str, Any]]:
    """Slopes of each system that has tasks, all panels equally high so that they compare."""
    height = max(340, 60 + round(plots.LABEL_GAP * len(_collect(systems, "tasks")) * 1.25))
    return {
        name: plots.place_slopes(system["tasks"], tolerance, height)
        for name, system in systems.items()
        if system.get("tasks")
    }


def choose_best(systems: Systems) -> str | None:
    """Names the system with the smallest mean absolute gap; the first of equals, None where there is no figure."""
    measured = {name: s["mean_abs_gap"] for name, s in systems.items() if s.get("mean_abs_gap") is not None}
    return min(measured, key=lambda name: measured[name]) if measured else None


def _view_gap(name: str, system: dict[str, Any], best: str | None) -> dict[str, Any]:
    measured = [measure_conversation(conversation) for conversation in system.get("conversations") or []]
    reduction = system.get("gap_reduction")
    return {
        "name": name,
        "best": name == best,
        "value": system.get("mean_abs_gap"),
        "interval": system.get("mean_abs_gap_interval"),
        "spread": [gap for gap in measured if gap is not None],
        "note": "" if reduction is None else f"{wording.word_percent(reduction)} closed",
    }


def view_courses(systems: Systems, best: str | None, tolerance: float) -> dict[str, Any]:
    """Absolute gaps over turns for each system, and for each task the perceived levels against the zone that was wanted."""
    curves = {name: system["curve"] for name, system in systems.items() if system.get("curve")}
    plain = iter(range(len(systems)))
    styles = {name: "best" if name == best else f"style-{next(plain) % 4}" for name in systems}
    turns = sorted({point["turn"] for points in curves.values() for point in points})
    at = {name: {point["turn"]: point for point in points} for name, points in curves.items()}
    gaps = {name: [(point["turn"], point.get("abs_gap")) for point in points] for name, points in curves.items()}
    panels = {}
    for task, (levels, desired) in average_turns(systems).items():
        zone = [(turn, max(0.0, level - tolerance), min(1.0, level + tolerance)) for turn, level in desired]
        placed = plots.place_curves(_list_lines(levels, styles), high=1.0, wanted=zone)
        if placed:
            rows = [("desired", dict(desired)), *((name, dict(points)) for name, points in levels.items())]
            panels[task] = {**placed, "rows": rows}
    return {
        "gaps": plots.place_curves(_list_lines(gaps, styles)),
        "panels": panels,
        "thirds": [name for name, system in systems.items() if any((system.get("thirds") or {}).values())],
        "names": list(curves),
        "turns": [(turn, [at[name].get(turn, {}) for name in curves]) for turn in turns],
    }


def _list_lines(points: dict[str, list[tuple[int, Any]]], styles: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "style": styles[name], "best": styles[name] == "best", "points": points[name]} for name in points
    ]


def view_comparisons(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups differences by judge and metric, each with an axis of its own, since metrics differ in unit."""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for comparison in comparisons:
        low, high = comparison.get("interval") or (None, None)
        sure = low is not None and high is not None and (low > 0 or high < 0)
        row = {**comparison, "name": comparison.get("system"), "value": comparison.get("difference"), "sure": sure}
        chance, pairs = (
            wording.word_chance(comparison.get("p_holm", comparison.get("p"))),
            comparison.get("conversations"),
        )
        row["note"] = ", ".join(filter(None, [chance, "" if pairs is None else f"n = {pairs}"]))
        groups.setdefault((comparison.get("judge"), comparison.get("metric")), []).append(row)
    return [
        {"judge": judge, "metric": metric, **plots.place_rows(rows, zero=True)}
        for (judge, metric), rows in groups.items()
    ]
