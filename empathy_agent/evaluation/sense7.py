"""Reads tables in the shape of SENSE-7 (arXiv 2509.16437): what users desired of a task, how they rated conversations and turns.

Sheet `Tasks`: a row per conversation with `TaskId`, `PreTaskChoice`, `PreTaskDesiredEmpathy` (1 minimal to 3 high) and seven
`PostTaskEmpathy_*` (1 to 5). Sheet `Messages`: a row per turn with `TaskId`, `Role`, `Content`, and for replies
`EmpathyOverall` and the seven dimensions (1 to 5). The data set itself does not ship with this package.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError, MissingExtraError
from empathy_agent.judge import DIMENSIONS

Row = dict[str, Any]
KEYWORDS = dict(
    zip(
        ("affective", "cognitive", "response", "prosocial", "interest", "contextual", "relational"),
        DIMENSIONS,
        strict=True,
    )
)
POST = "PostTaskEmpathy_"
NEEDED = ("PreTaskChoice", "PreTaskDesiredEmpathy")


def read_sense7(path: Path, messages: Path | None = None, names: Mapping[str, str] | None = None) -> list[Row]:
    """Reads rated conversations.

    Args:
        path: A workbook with the sheets `Tasks` and `Messages`, or a CSV file of the former.
        messages: A CSV file of the latter.
        names: Task names of choices, such as `{"Movie night": "movie_recommendation"}`; others are named by their own words.

    Returns:
        Conversations `{"id", "task", "desired", "ratings", "turns"}`: `desired` in [0, 1], `ratings` dimension → 1 to 5 or
        None for the whole conversation, `turns` as `read_scenarios` takes them, with a `rating` at rated replies.

    Raises:
        InputError: A file, sheet or column is missing, or a number is out of range.
        MissingExtraError: A workbook is given and openpyxl is not installed.
    """
    workbook = path.suffix.lower() in (".xlsx", ".xlsm")
    rows = _read_sheet(path, "Tasks") if workbook else _read_csv(path)
    said = _read_sheet(path, "Messages") if workbook and messages is None else _read_csv(messages) if messages else []
    if missing := [column for column in NEEDED if rows and column not in rows[0]]:
        raise InputError(f"{path} has no column {', '.join(missing)}: it must be shaped like SENSE-7's sheet Tasks")
    if not rows:
        raise InputError(f"{path} holds no conversation")
    turns: dict[str, list[Row]] = {}
    for number, row in enumerate(said, 2):
        turn = _read_turn(row, f"Messages, row {number}")
        if turn["content"]:
            turns.setdefault(str(row.get("TaskId")), []).append(turn)
    found = []
    for number, row in enumerate(rows, 2):
        where, choice = f"{path.name}, row {number}", str(row["PreTaskChoice"] or "").strip()
        if not choice:
            raise InputError(f"{where}: PreTaskChoice is empty")
        name = str(row.get("TaskId") or number)
        post = {column[len(POST) :]: row[column] for column in row if column.startswith(POST)}
        others = {name_task(name): read_number(value, 5, f"{where}: {POST}{name}") for name, value in post.items()}
        rated = _read_dimensions(post, f"{where}, {POST}*")
        found.append(
            {
                "id": name,
                "task": (names or {}).get(choice) or name_task(choice),
                "desired": scale(read_number(row["PreTaskDesiredEmpathy"], 3, f"{where}: PreTaskDesiredEmpathy"), 3),
                "ratings": rated or others,
                "turns": turns.get(name, []),
            }
        )
    return found


def name_task(choice: str) -> str:
    """Names a task as the task table does.

    >>> name_task("Movie recommendation ")
    'movie_recommendation'
    """
    return re.sub(r"[^a-z0-9]+", "_", choice.lower()).strip("_")


def read_number(value: Any, most: int, where: str) -> float | None:
    """Reads a rating from 1 to `most`; an empty cell and "N/A" are None.

    >>> read_number("3", 5, ""), read_number("n/a", 5, "")
    (3.0, None)

    Raises:
        InputError: It is no number, or out of range.
    """
    text = str("" if value is None else value).strip()
    if text.lower() in ("", "na", "n/a", "nan", "none", "not applicable"):
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 1 <= number <= most:
        raise InputError(f"{where} is {value!r}: it must be a number from 1 to {most}, empty or N/A")
    return number


def scale(rating: float | None, most: int) -> float | None:
    """Maps a rating from 1 to `most` onto [0, 1]: (rating - 1) / (most - 1).

    >>> scale(2, 3), scale(4, 5)
    (0.5, 0.75)
    """
    return None if rating is None else round((rating - 1) / (most - 1), 6)


def average_rating(ratings: Mapping[str, float | None]) -> float | None:
    """Level in [0, 1] of a rating: the mean of its dimensions, those that do not apply left out (SENSE-7's turn-first average).

    >>> average_rating({"interest": 5, "prosocial_expression": 3, "relational_continuity": None})
    0.75
    """
    known = [value for value in ratings.values() if value is not None]
    return scale(sum(known) / len(known), 5) if known else None


def _read_turn(row: Row, where: str) -> Row:
    role = str(row.get("Role") or "").strip().lower()
    if role not in ("user", "assistant"):
        raise InputError(f"{where}: Role is {row.get('Role')!r}: it must be user or assistant")
    turn: Row = {"role": role, "content": str(row.get("Content") or "").strip()}
    if role == "assistant":
        dimensions = _read_dimensions(row, where)
        overall = read_number(row.get("EmpathyOverall"), 5, f"{where}: EmpathyOverall")
        level = average_rating(dimensions)
        if level is None:
            level = scale(overall, 5)
        if level is not None:
            turn["rating"] = {"level": level, "dimensions": dimensions or None}
    return turn


def _read_dimensions(row: Mapping[str, Any], where: str) -> dict[str, float | None]:
    """Ratings by dimension; a column belongs to the one whose keyword its name begins with."""
    return {
        name: read_number(row[column], 5, f"{where}: {column}")
        for keyword, name in KEYWORDS.items()
        for column in row
        if column.lower().startswith(keyword)
    }


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; give an .xlsx workbook or CSV in UTF-8") from error


def _read_sheet(path: Path, sheet: str) -> list[Row]:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError("reading a workbook needs: pip install 'empathy-agent[xlsx]'") from error
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged archive raises whatever its parser does
        raise InputError(f"{path} is no workbook: {error}") from error
    try:
        if sheet not in workbook.sheetnames:
            raise InputError(f"{path} has no sheet {sheet}: it has {', '.join(workbook.sheetnames)}")
        rows: Sequence[Sequence[Any]] = list(workbook[sheet].iter_rows(values_only=True))
    finally:
        workbook.close()
    head = [str(cell or "").strip() for cell in rows[0]] if rows else []
    return [dict(zip(head, row, strict=False)) for row in rows[1:] if any(cell is not None for cell in row)]
