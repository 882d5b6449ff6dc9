"""Writes report.md: the tables of report.json that a reader would quote, with what they rest on beside them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from empathy_agent.evaluation.figures import list_figures

ALPHA = 0.05
CURVE = (1, 2, 3, 5, 10, 20, 30, 40, 50)  # turns


def write_summary(report: dict[str, Any]) -> str:
    """Returns the report as Markdown; what is not defined is a dash."""
    scenarios, settings = report["scenarios"], report["settings"]
    parts = [
        "# Evaluation",
        f"`{shlex.join(report['command'])}`",
        f"{scenarios['conversations']} conversations ({scenarios['kind']}) from `{scenarios['file']}` "
        f"(sha256 `{str(scenarios['sha256'])[:12]}`), seed {report['seed']}, tolerance {settings['tolerance']}; desired empathy "
        f"by {settings['desired_by']}. Intervals: 95 %, bootstrap over conversations; of shares that are none or all, Wilson's. "
        "A dash: not defined.",
        *_write_judges(report),
        "## Systems",
        _write_systems(report["systems"]),
        "## Tasks",
        _write_tasks(report["systems"]),
        "## Over the turns",
        _write_turns(report["systems"]),
        *_write_curve(report["systems"]),
        *_write_comparisons(report),
        "## All figures",
        _write_figures(report["systems"]),
    ]
    if len(report["judges"]) > 1:
        parts += ["## Judges, apart", _write_judged(report)]
    if report["ablations"]:
        parts += ["## Ablations", _write_ablations(report)]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    return "\n\n".join([*parts, f"Versions: {versions}."]) + "\n"


def write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Writes a Markdown table, the first column to the left and the others to the right.

    >>> print(write_table(["system", "gap"], [["a|b", "0.1"]]))
    | system | gap |
    |---|---:|
    | a\|b | 0.1 |
    """
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)]]
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(
        "|" + "|".join(cells) + "|" if number == 1 else f"| {' | '.join(cells)} |" for number, cells in enumerate(lines)
    )


def show(value: float | None, digits: int = 3, share: bool = False) -> str:
    """Shows a number, or a dash where there is none.

    >>> show(0.7266, share=True, digits=1), show(None), show(2.4346, 2)
    ('72.7 %', '–', '2.43')
    """
    if value is None:
        return "–"
    return f"{100 * value:.{digits}f} %" if share else f"{value:.{digits}f}"


def show_interval(
    value: float | None, interval: Sequence[float] | None, share: bool = False, digits: int | None = None
) -> str:
    """Shows a number with its interval.

    >>> show_interval(0.12, [0.1, 0.15])
    '0.120 [0.100, 0.150]'
    """
    digits = digits or (1 if share else 3)
    if value is None or interval is None:
        return show(value, digits, share)
    low, high = (show(end, digits, share) for end in interval)
    return f"{show(value, digits, share)} [{low}, {high}]"


def _write_judges(report: dict[str, Any]) -> list[str]:
    said = []
    for name in report["judges"]:
        card = report["judge_cards"].get(name)
        if not card:
            continue
        state = {True: "independent", False: "**not independent**", None: "independence not known"}[card["independent"]]
        reasons = f": {'; '.join(card['reasons'])}" if card["reasons"] else ""
        mark = f", sha256 `{card['sha256'][:12]}`" if card.get("sha256") else ""
        said.append(f"- {name} ({card['name']}{mark}): {state}{reasons}")
    return ["Judges:\n" + "\n".join(said)] if said else []


def _write_systems(systems: dict[str, Any]) -> str:
    rows = [
        [
            name,
            show_interval(s["mean_abs_gap"], s["mean_abs_gap_interval"]),
            show_interval(s["gap_reduction"], s["gap_reduction_interval"], share=True),
            show_interval(s["score_factor"], s["score_factor_interval"], digits=2),
            show_interval(s["over_share"], s["over_share_interval"], share=True),
            show_interval(s["under_share"], s["under_share_interval"], share=True),
            str(len(s["conversations"])),
            str(s["judged"]),
            str(s["hand_offs"]),
            str(s["failed"]),
        ]
        for name, s in systems.items()
    ]
    head = [
        "system",
        "absolute gap",
        "gap reduction",
        "score factor",
        "over",
        "under",
        "conversations",
        "replies judged",
    ]
    return write_table([*head, "hand-offs", "failed"], rows)


def _write_tasks(systems: dict[str, Any]) -> str:
    tasks = sorted({task for system in systems.values() for task in system["tasks"]})
    rows = []
    for task in tasks:
        found = {name: system["tasks"].get(task) for name, system in systems.items()}
        desired = next(row["desired"] for row in found.values() if row)
        cells = [show_interval(row["perceived"], row["perceived_interval"]) if row else "–" for row in found.values()]
        rows.append([task, show(desired), *cells])
    return write_table(["task", "desired", *(f"{name}: perceived" for name in systems)], rows)


def _write_turns(systems: dict[str, Any]) -> str:
    ends = ("10", "20", "30", "50")
    rows = [
        [
            name,
            *(show(s["thirds"][third]) for third in ("early", "middle", "late")),
            *(show_interval(s["retention"][end], s["retention_interval"][end], digits=2) for end in ends),
            str(s["alarms"]),
        ]
        for name, s in systems.items()
    ]
    head = ["system", "gap early", "middle", "late", *(f"retention at {end}" for end in ends), "alarms"]
    return write_table(head, rows)


def _write_curve(systems: dict[str, Any]) -> list[str]:
    """The absolute gap at some of the turns that were reached; all of them are in report.json."""
    at = {name: {point["turn"]: point["abs_gap"] for point in system["curve"]} for name, system in systems.items()}
    turns = [turn for turn in CURVE if any(turn in points for points in at.values())]
    rows = [[name, *(show(points.get(turn)) for turn in turns)] for name, points in at.items()]
    return [write_table(["absolute gap at turn", *map(str, turns)], rows)] if turns else []


def _write_comparisons(report: dict[str, Any]) -> list[str]:
    """All measures of the systems, and the gap alone of the ablations; nothing where one system stands alone."""
    rows = [
        [
            f"{row['system']} – {row['against']}",
            row["judge"],
            row["metric"].replace("_", " "),
            show_interval(row["difference"], row["interval"]),
            show(row["p"], 4),
            show(row["p_holm"], 4) + (" *" if row["p_holm"] is not None and row["p_holm"] < ALPHA else ""),
            str(row["conversations"]),
        ]
        for row in report["comparisons"]
        if row["metric"] == "mean_abs_gap" or row["system"] in report["systems"]
    ]
    if not rows:
        return []
    return [
        "## Comparisons",
        "System less the other, over the conversations that both have; below 0 is better, but for retention. p: permutation "
        "test; Holm: corrected over the pairs of systems, or of ablations, of one measure; *: below 0.05.",
        write_table(["pair", "judge", "measure", "difference", "p", "Holm", "conversations"], rows),
    ]


def _write_figures(systems: dict[str, Any]) -> str:
    rows: list[list[str]] = []
    for group, listed in list_figures(systems):
        rows.append([f"**{group}**", *[""] * len(systems)])
        rows += [
            [label, *(f"{figure} ({ends})" if ends else figure for figure, ends in cells)] for label, cells in listed
        ]
    return write_table(["", *systems], rows)


def _write_judged(report: dict[str, Any]) -> str:
    rows = []
    for name, system in report["systems"].items():
        for judge, found in system["judged_by"].items():
            agreement = found["agreement"] or {}
            rows.append(
                [
                    name,
                    judge,
                    show_interval(found["mean_abs_gap"], found["mean_abs_gap_interval"]),
                    show_interval(found["gap_reduction"], found["gap_reduction_interval"], share=True),
                    show_interval(agreement.get("spearman"), agreement.get("interval")),
                    str(found["judged"]),
                    str(found["failed"]),
                ]
            )
    head = [
        "system",
        "judge",
        "absolute gap",
        "gap reduction",
        f"Spearman with {report['judges'][0]}",
        "judged",
        "failed",
    ]
    return write_table(head, rows)


def _write_ablations(report: dict[str, Any]) -> str:
    meanings = report["settings"].get("ablations") or {}
    whole = report["systems"].get("experts")
    rows = [
        [
            name,
            str(meanings.get(name, "")),
            show_interval(system["mean_abs_gap"], system["mean_abs_gap_interval"]),
            show_interval(system["gap_reduction"], system["gap_reduction_interval"], share=True),
            show(system["thirds"]["late"]),
            show(system["over_share"], 1, share=True),
            show(system["under_share"], 1, share=True),
            str(system["alarms"]),
            str(system["violations"]),
        ]
        for name, system in {**({"experts": whole} if whole else {}), **report["ablations"]}.items()
    ]
    head = ["ablation", "what is different", "absolute gap", "gap reduction", "late gap", "over", "under", "alarms"]
    return write_table([*head, "violations"], rows)
