"""Writes what `readings.py` measured: tables in Markdown, the report as JSON, the calibration curves as one SVG."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]
SIDE, LEFT, GAP, TOP = 240, 52, 76, 44  # of a panel of the SVG, in pixels
COLOURS = {"equal width": "#1f6feb", "adaptive": "#d1570b"}


def write_report(report: Row, out: Path) -> list[Path]:
    """Writes `readings.json`, `readings.md` and `calibration.svg` into `out`, each in one move."""
    curves = {name: curve for section in report["sections"].values() for name, curve in section["curves"].items()}
    return write_files(
        out,
        {
            "readings.json": json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n",
            "readings.md": write_tables(report),
            "calibration.svg": draw_curves(curves),
        },
    )


def write_files(out: Path, files: dict[str, str]) -> list[Path]:
    """Writes texts into a folder by name, each beside its place and then moved there."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        unfinished = out / f"{name}.unfinished"
        unfinished.write_text(content, encoding="utf-8", errors="replace")
        os.replace(unfinished, out / name)
    return [out / name for name in files]


def write_tables(report: Row, title: str = "Readings") -> str:
    """The report as Markdown: one table of figures per reading, the confusion matrix, the sources and the worst errors."""
    parts = [f"# {title}", f"`{report['command']}`", _describe(report["versions"] | {"seed": report["seed"]})]
    parts.append("Intervals are 95 %, by a bootstrap over conversations (1,000 draws).")
    for name, section in report["sections"].items():
        rows = [
            [f["measure"], _show(f["value"]), _show_interval(f), f"{f['rows']:,}", f"{f['groups']:,}", f["note"]]
            for f in section["figures"]
        ]
        head = ["measure", "value", "interval", "cases", "conversations", ""]
        parts += [f"## {name[0].upper()}{name[1:]}", _draw_table(head, rows, "lrrrrl")]
        if name == "task":
            parts += ["### Tasks as first messages are read", _draw_confusion(report["confusion"])]
            if report["sources"]:
                parts += ["### Where real people's first messages come from", _draw_sources(report["sources"])]
    parts.append("## The worst of each reading")
    for name, errors in ((n, e) for section in report["sections"].values() for n, e in section["errors"].items()):
        if errors:
            head = list(errors[0])
            rows = [[_show(v) if isinstance(v, float) else _quote(str(v)) for v in e.values()] for e in errors]
            parts += [f"### {name[0].upper()}{name[1:]}", _draw_table(head, rows, "lllrl"[: len(head)])]
    return "\n\n".join(parts) + "\n"


def draw_curves(curves: dict[str, Row]) -> str:
    """Reliability diagrams as one SVG without anything from outside: a panel per probability, dots grow with their bin."""
    width = LEFT + len(curves) * (SIDE + GAP)
    height = TOP + SIDE + 78
    body = []
    for number, (name, kinds) in enumerate(curves.items()):
        x, y = LEFT + number * (SIDE + GAP), TOP
        body.append(f'<text x="{x + SIDE / 2}" y="{y - 16}" class="t">{escape(name)}</text>')
        body.append(f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" class="f"/>')
        body.append(f'<line x1="{x}" y1="{y + SIDE}" x2="{x + SIDE}" y2="{y}" class="d"/>')
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
            at = tick * SIDE
            body.append(f'<text x="{x + at:.0f}" y="{y + SIDE + 16}" class="m">{tick:g}</text>')
            body.append(f'<text x="{x - 6}" y="{y + SIDE - at + 4:.0f}" class="e">{tick:g}</text>')
        body.append(f'<text x="{x + SIDE / 2}" y="{y + SIDE + 36}" class="m">probability that was read</text>')
        for kind, bins in kinds.items():
            dots = [(x + b["confidence"] * SIDE, y + SIDE - b["truth"] * SIDE, b["count"]) for b in bins]
            total = sum(count for *_, count in dots)
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in dots)
            body.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[kind]}" stroke-width="1.5"/>')
            body += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{2 + 6 * (count / total) ** 0.5:.1f}" fill="{COLOURS[kind]}" '
                f'fill-opacity="0.6"><title>{kind}: {count} cases</title></circle>'
                for a, b, count in dots
            ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 130
        body.append(f'<circle cx="{x + 5}" cy="{height - 16}" r="5" fill="{colour}"/>')
        body.append(f'<text x="{x + 16}" y="{height - 12}" class="l">{kind} bins</text>')
    style = (
        "text{font:12px sans-serif;fill:#333}.t,.m{text-anchor:middle}.t{font-weight:bold}.e{text-anchor:end}"
        ".f{fill:#fff;stroke:#999}.d{stroke:#bbb;stroke-dasharray:4 3}"
    )
    middle = TOP + SIDE / 2
    side = f'<text x="14" y="{middle}" class="m" transform="rotate(-90 14 {middle})">share that came true</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f'<title>Calibration curves</title><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        + side
        + "".join(body)
        + "</svg>\n"
    )


def _draw_confusion(confusion: Row) -> str:
    rows = [[name, *map(str, counts)] for name, counts in zip(confusion["labels"], confusion["counts"], strict=True)]
    return _draw_table(["was (down), read as (across)", *confusion["labels"]], rows, "l" + "r" * len(rows))


def _draw_sources(sources: list[Row]) -> str:
    head = [
        "source",
        "task",
        "conversations",
        "greetings skipped",
        "shorter than four words",
        "none left",
        "kept out",
        "measured",
        "",
    ]
    keys = ("name", "task", "conversations", "greetings", "short", "silent", "held_out", "measured")
    rows = [[*(str(s[key]) for key in keys), "TRAINED ON" if s["seen"] else "kept out of training"] for s in sources]
    return _draw_table(head, rows, "llrrrrrrl")


def _draw_table(head: list[str], rows: list[list[str]], align: str) -> str:
    line = "|".join("---:" if side == "r" else "---" for side in align)
    return "\n".join([f"| {' | '.join(head)} |", f"|{line}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _describe(values: Row) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _show(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _show_interval(figure: Row) -> str:
    return "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"


def _quote(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
