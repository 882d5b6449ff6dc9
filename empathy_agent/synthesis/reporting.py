"""The files of a run that makes conversations: one line per kept conversation, and the report of what was dropped and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from empathy_agent import __version__
from empathy_agent.errors import InputError
from empathy_agent.synthesis.corpus import read_rows
from empathy_agent.synthesis.limits import GateRow
from empathy_agent.synthesis.planning import Plan

Row = dict[str, Any]
REPORT = "report.json"


def read_unfinished(path: Path) -> list[Row]:
    """Reads the lines of an earlier run; a last line that a kill cut short is cut off the file.

    Raises:
        InputError: Another line is not a JSON object.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return read_rows(path)


def append_row(path: Path, row: Row) -> None:
    """Appends one line and waits until it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_dropped(out: Path) -> list[Row]:
    """What earlier runs into the folder dropped.

    Raises:
        InputError: Its report is not one of this command.
    """
    path = out / REPORT
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["dropped"]) if path.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a report of this command: move it away or name another --out") from error


def build_report(
    run: Row, plans: Sequence[Plan], kept: Sequence[Row], dropped: Sequence[Row], gates: Sequence[GateRow] = ()
) -> Row:
    """The report: `run` (seed, encoder, conversations that were there before) and what became of the plans."""
    present = {row["id"] for row in kept}
    return run | {
        "version": __version__,
        "asked": len(plans),
        "kept": len(kept),
        "missing": [plan.id for plan in plans if plan.id not in present],
        "reasons": dict(Counter(reason.split(":")[0] for row in dropped for reason in row["reasons"]).most_common()),
        "dropped": list(dropped),
        "gates": [asdict(row) for row in gates],
    }


def write_report(out: Path, report: Row) -> None:
    """Writes `report.json` beside its place and moves it there."""
    new = out / f"{REPORT}.unfinished"
    new.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(new, out / REPORT)
