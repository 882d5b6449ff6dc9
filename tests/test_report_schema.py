"""docs/report.md names every key of report.json, and summary and page show every figure of a system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reports import write_conversation, write_report

from empathy_agent.evaluation.figures import FIGURES
from empathy_agent.evaluation.page import write_page
from empathy_agent.evaluation.summary import write_summary

DOCUMENT = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")
WORD = re.compile(r"`\"?(\w+)\"?`")


def write_talk(name: str, level: float) -> dict[str, Any]:
    role = {"retries": 1, "breaks": [{"turn": 1, "kind": "repeats", "kept": True}]}
    found = write_conversation(name, [level, level + 0.1] * 25, emotion=[40.0, 55.0, 100.0], persona="p1", role=role)
    for turn in found["turns"][::2]:
        turn |= {"disclosed": None, "told": None}
    found["turns"][4] |= {"disclosed": "she lost her job", "told": True}
    for turn in found["turns"][1::2]:
        turn["dimensions"]["interest"] = 3.0
        turn["content"] = "Two of them are on tonight."
    return found


def write_whole() -> dict[str, Any]:
    systems = {
        name: [write_talk(f"c{at}", level) for at in range(3)] for name, level in (("base", 0.1), ("experts", 0.4))
    }
    return write_report(systems, {"no_revise": systems["base"]}, judges=["learned", "user"])


def get_part(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def list_first(text: str) -> set[str]:
    """Names in the first cells of the tables of a text."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in WORD.findall(cell)}


def test_every_key_is_documented_and_every_documented_key_is_there():
    report = write_whole()
    system = report["systems"]["experts"]
    top = DOCUMENT.partition("\n## ")[0]
    assert set(report) == list_first(top)
    own, _, users = get_part("A system").partition("`users`, over")
    assert set(system) <= list_first(own) | {"violations_by"}
    assert list_first(own) <= set(system)
    assert "`violations_by`" in own
    assert set(system["users"]) == list_first(users) | {"breaks"}
    assert "`breaks`" in users
    conversation = system["conversations"][0]
    for part, keys in (
        ("A conversation", {*conversation, *conversation["turns"][0], *conversation["turns"][1]}),
        ("A comparison", set(report["comparisons"][0])),
    ):
        assert keys <= set(WORD.findall(get_part(part))), part
    assert {row["metric"] for row in report["comparisons"]} >= {"retention_10", "retention_50"}
    assert set(system["tasks"]["therapy"]) <= set(WORD.findall(own))


def list_leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from list_leaves(part, (*path, name))
    else:
        yield path


def test_summary_and_page_show_every_figure_with_its_interval():
    report = write_whole()
    system = report["systems"]["experts"]
    apart = {"conversations", "curve", "tasks", "judged_by", "violations_by"}  # in tables and plots of their own
    figures = {name: value for name, value in system.items() if name not in apart and not name.endswith("_interval")}
    figures["users"] = {name: value for name, value in figures["users"].items() if name != "breaks"}
    assert set(list_leaves(figures)) == {path for rows in FIGURES.values() for _, _, path in rows}
    summary, page = write_summary(report), write_page(report)
    for _, rows in FIGURES.items():
        for label, _, _ in rows:
            assert f"| {label} |" in summary
            assert f'<th scope="row">{label}</th>' in page
    retained = system["retention"]["50"]
    assert retained is not None
    assert f"{retained:.2f} [" in summary
