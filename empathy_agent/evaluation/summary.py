"""Writes report.md: the tables of report.json that a reader would quote, with what they rest on beside them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

ALPHA = 0.05


def write_summary(report: dict[str, Any]) -> str:
    """Returns the report as Markdown; what is not defined is a dash."""
    scenarios, settings = report["scenarios"], report["settings"]
    parts = [
        "# Evaluation",
        f"`{shlex.join(report['command'])}`",
        f"{scenarios['conversations']} conversations ({scenarios['kind']}) from `{scenarios['file']}` "
        f"(sha256 `{str(scenarios['sha256'])[:12]}`), seed {report['seed']}, tolerance {settings['tolerance']}; desired empathy "
        f"by {settings['desired_by']}. Intervals: 95 %, bootstrap over conversations. A dash: not defined.",
        *_write_judges(report),
        "## Systems",
        _write_systems(report["systems"]),
        "## Tasks",
        _write_tasks(report["systems"]),
        "## Over the turns",
        _write_turns(report["systems"]),
        *_write_comparisons(report),
        "## Qualities",
        _write_qualities(report["systems"]),
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


def show_interval(value: float | None, interval: Sequence[float] | None, share: bool = False) -> str:
    """Shows a number with its interval.

    >>> show_interval(0.12, [0.1, 0.15])
    '0.120 [0.100, 0.150]'
    """
    digits = 1 if share else 3
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
            show(s["score_factor"], 2),
            show(s["over_share"], 1, share=True),
            show(s["under_share"], 1, share=True),
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
            *(show(s["retention"][end], 2) for end in ends),
            str(s["alarms"]),
        ]
        for name, s in systems.items()
    ]
    head = ["system", "gap early", "middle", "late", *(f"retention at {end}" for end in ends), "alarms"]
    return write_table(head, rows)


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
        "System less the other, paired by conversation; below 0 is better. p: permutation test; Holm: corrected over the pairs "
        "of systems, or of ablations, of one measure; *: below 0.05.",
        write_table(["pair", "judge", "measure", "difference", "p", "Holm", "conversations"], rows),
    ]


def _write_qualities(systems: dict[str, Any]) -> str:
    rows: list[list[str]] = []

    def add(title: str, values: Sequence[float | None], digits: int = 2) -> None:
        rows.append([title, *(show(value, digits) for value in values)])

    listed = list(systems.values())
    for part, scale in (("dimensions", "1-5"), ("mechanisms", "0-2"), ("session", "0-1")):
        for name in listed[0][part] if listed else ():
            add(f"{name.replace('_', ' ')} ({scale})", [system[part][name] for system in listed])
    if any(system["emotion"] for system in listed):
        add("emotion at the end (0-100)", [(system["emotion"] or {}).get("final") for system in listed], 1)
    add("honest-AI violations", [system["violations"] for system in listed], 0)
    for key, title in (("words", "words a reply"), ("distinct_2", "distinct-2"), ("repetition", "repetition")):
        add(title, [system["language"][key] for system in listed])
    add("seconds a reply, median", [system["seconds"]["p50"] for system in listed])
    add("seconds a reply, 95th percentile", [system["seconds"]["p95"] for system in listed])
    for side in ("input", "output"):
        add(f"{side} tokens", [system["tokens"][side] for system in listed], 0)
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
