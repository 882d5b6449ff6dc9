"""How the report page words its figures: formats, headline, cautions. A missing figure is a dash, never a zero."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Systems = dict[str, dict[str, Any]]
MISSING = "–"


def word_level(value: float | None, digits: int = 2) -> str:
    """A level or any other plain number.

    >>> word_level(0.0649), word_level(-0.2), word_level(-0.001), word_level(None)
    ('0.06', '−0.20', '0.00', '–')
    """
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def word_signed(value: float | None, digits: int = 2) -> str:
    """A gap or difference with its sign.

    >>> word_signed(0.1), word_signed(-0.1), word_signed(0.001)
    ('+0.10', '−0.10', '0.00')
    """
    text = word_level(value, digits)
    return f"+{text}" if value is not None and value > 0 and float(text) else text


def word_percent(value: float | None) -> str:
    r"""A share.

    >>> word_percent(0.726), word_percent(-0.031), word_percent(0.004), word_percent(None)
    ('73\xa0%', '−3\xa0%', '0.4\xa0%', '–')
    """
    if value is None:
        return MISSING
    return f"{word_level(100 * value, 1 if 0 < abs(value) < 0.0095 else 0)}\N{NO-BREAK SPACE}%"


def word_interval(ends: list[float | None] | None, word: Callable[[float | None], str] = word_level) -> str:
    r"""Both ends of an interval, or nothing where there is none.

    >>> word_interval([0.07, 0.1]), word_interval([-0.1, 0.25], word_percent), word_interval(None)
    ('0.07 to 0.10', '−10\xa0% to 25\xa0%', '')
    """
    return f"{word(ends[0])} to {word(ends[1])}" if ends and None not in ends else ""


def word_chance(p: float | None) -> str:
    """A p-value.

    >>> word_chance(0.0004), word_chance(0.03), word_chance(0.25), word_chance(None)
    ('p < 0.001', 'p = 0.030', 'p = 0.25', '')
    """
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def word_count(value: float | None) -> str:
    """A number of things, with thousands set apart.

    >>> word_count(12345), word_count(2.5), word_count(None)
    ('12,345', '2.5', '–')
    """
    return (
        MISSING
        if value is None
        else f"{value:,.0f}"
        if float(value).is_integer() or abs(value) >= 100
        else f"{value:,.1f}"
    )


def word_name(name: object) -> str:
    """A name of the data as words: `movie_recommendation` is "movie recommendation"."""
    return str(name).replace("_", " ")


def word_sum(count: int, one: str) -> str:
    """A number with its noun.

    >>> word_sum(1, "turn"), word_sum(2400, "turn")
    ('1 turn', '2,400 turns')
    """
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def shorten_name(name: str, most: int) -> str:
    """A name that fits into `most` characters; the whole of it stands in the plot's title and in the table."""
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


def word_factor(value: float | None) -> str:
    """A factor: 2.43 times is `2.43 ×`."""
    return MISSING if value is None else f"{word_level(value)}\N{NO-BREAK SPACE}×"


METRICS = {
    "mean_abs_gap": "Mean absolute gap",
    "late_abs_gap": "Absolute gap in the late third",
    "over_share": "Share of replies with too much",
    "under_share": "Share of replies with too little",
    **{f"retention_{turns}": f"Retention at turn {turns}, more is better" for turns in (10, 20, 30, 50)},
}


def word_headline(systems: Systems, best: str | None) -> str:
    """The sentence at the top: what was found, and whether chance would explain it."""
    if best is None:
        return "No system was measured" if not systems else "Every session failed: there is nothing to measure"
    figures = systems[best]
    gap, reduction = word_level(figures["mean_abs_gap"]), figures.get("gap_reduction")
    if len(systems) == 1:
        return f"With {word_name(best)}, replies miss the desired empathy by {gap} on average"
    if reduction is None:
        return (
            f"No system comes nearer to the desired empathy than {word_name(best)}, which misses it by {gap} on average"
        )
    ends = figures.get("gap_reduction_interval")
    if reduction <= 0 or (ends and None not in ends and ends[0] <= 0):
        return f"No system comes clearly nearer to the desired empathy than base; {word_name(best)} misses it by {gap} on average"
    return (
        f"With {word_name(best)}, {word_percent(reduction)} of the gap between perceived and desired empathy is closed"
    )


def word_standfirst(report: dict[str, Any]) -> str:
    """The sentence under the headline: of what and by whom."""
    scenarios, systems = report.get("scenarios") or {}, report.get("systems") or {}
    tasks = {task for system in systems.values() for task in system.get("tasks") or {}}
    played = scenarios.get("conversations")
    parts = [word_sum(played, "conversation")] if isinstance(played, int) else []
    parts += [word_sum(len(tasks), "task")] if tasks else []
    parts += [word_sum(len(systems), "system")]
    judges = [word_name(judge) for judge in report.get("judges") or []]
    read = f", as the {judges[0]} judge reads them" if judges else ""
    besides = f"; {', '.join(judges[1:])} stands apart below" if len(judges) > 1 else ""
    return f"{', '.join(parts)}{read}{besides}."


def list_cautions(report: dict[str, Any], failed: list[dict[str, Any]]) -> list[str]:
    """What a reader must know before trusting the headline."""
    cautions = []
    for judge, card in (report.get("judge_cards") or {}).items():
        if (card or {}).get("independent") is False:
            reasons = "; ".join(map(str, card.get("reasons") or [])) or "no reason given"
            cautions.append(f"The {word_name(judge)} judge is not independent of what it judges: {reasons}.")
    if (report.get("scenarios") or {}).get("conversations") == 1:
        cautions.append("One conversation tells nothing of others, so there are no intervals.")
    if failed:
        cautions.append(
            f"{word_sum(len(failed), 'session')} failed; what was said before that is judged like the rest."
        )
    return cautions


def list_state(turn: dict[str, Any]) -> list[tuple[str, str]]:
    """What the system said of itself at a reply, as (label, value)."""
    rows = [("task", turn.get("task")), ("need", turn.get("need")), ("target", turn.get("target"))]
    rows += [("expert", turn.get("expert")), ("by", turn.get("route")), ("emotion", turn.get("emotion"))]
    worded = [(label, _state_word(value)) for label, value in rows if value is not None and value != ""]
    violations = turn.get("violations")
    return worded + ([("honest-AI violations", ", ".join(map(word_name, violations)))] if violations else [])


def list_alarms(turn: dict[str, Any]) -> list[tuple[str, str]]:
    """Drift alarms at a reply, of the judged gaps and of the system itself, as (words, side)."""
    signs = {"over": "▴ too much", "under": "▾ too little"}
    sides = [("drift alarm", turn.get("alarm")), ("its own alarm", turn.get("drift"))]
    return [(f"{label} {signs[side]}", side) for label, side in sides if isinstance(side, str) and side in signs]


def _state_word(value: Any) -> str:
    return word_level(value) if isinstance(value, int | float) else word_name(value)


def word_metric(metric: str) -> str:
    """What a comparison compares."""
    return METRICS.get(metric, word_name(metric))


def list_provenance(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to make the report again, as (name, value)."""
    rows = [("Seed", report.get("seed")), ("Judges", ", ".join(map(str, report.get("judges") or [])) or None)]
    for judge, card in (report.get("judge_cards") or {}).items():
        rows += [(f"Judge {word_name(judge)}, {word_name(name)}", value) for name, value in (card or {}).items()]
    rows += [(f"Scenarios, {word_name(name)}", value) for name, value in (report.get("scenarios") or {}).items()]
    rows += [(f"Version of {name}", value) for name, value in (report.get("versions") or {}).items()]
    rows += [(f"Setting {name}", value) for name, value in (report.get("settings") or {}).items()]
    rows += [("Schema of report.json", report.get("schema"))]
    return [(name, value if isinstance(value, str) else _spell(value)) for name, value in rows]


def _spell(value: Any) -> str:
    return MISSING if value is None else json.dumps(value, ensure_ascii=False)


FILTERS: dict[str, Callable[..., Any]] = {
    "level": word_level,
    "signed": word_signed,
    "percent": word_percent,
    "interval": word_interval,
    "chance": word_chance,
    "figure": word_count,
    "name": word_name,
    "short": shorten_name,
    "metric": word_metric,
    "state": list_state,
    "alarms": list_alarms,
}
