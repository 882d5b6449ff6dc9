from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from empathy_agent.cli import main
from empathy_agent.errors import InputError
from empathy_agent.evaluation.calibrating import measure_desired, write_tasks
from empathy_agent.evaluation.sense7 import read_sense7
from empathy_agent.tasks import load_tasks

DIMENSIONS = ("Affective", "Cognitive", "Response", "Prosocial", "Interest", "Contextual", "Relational")
WARM = "I am so sorry. It sounds unbearably lonely to set that plate, and of course you cry. Will you tell me of him?"
TALKS = {
    "t1": ("Therapy", 3, 5, [("My dad died last week.", WARM, 5), ("I set two plates.", WARM, 4)]),
    "t2": ("Therapy", 2, 2, [("I cannot sleep since she left.", "Ok.", 1), ("Still awake.", "Noted.", 2)]),
    "t3": ("Movie night", 1, 1, [("A funny film?", "The Nice Guys, 116 minutes.", 1)]),
    "t4": ("Movie night", 1, 2, [("A short film?", "Duck Soup, 69 minutes.", 2)]),
    "t5": (
        "Gardening advice",
        2,
        3,
        [("My roses died, all of them.", "That hurts after a year of care. Which rose?", 4)],
    ),
}


def list_rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tasks, messages = [], []
    for name, (choice, desired, post, turns) in TALKS.items():
        rated = {f"PostTaskEmpathy_{dimension}": post for dimension in DIMENSIONS} | {
            "PostTaskEmpathy_Relational": "N/A"
        }
        tasks.append({"TaskId": name, "PreTaskChoice": choice, "PreTaskDesiredEmpathy": desired, **rated})
        for user, reply, rating in turns:
            messages.append({"TaskId": name, "Role": "user", "Content": user})
            dimensions = {dimension: rating for dimension in DIMENSIONS} | {"Interest": None}
            messages.append({"TaskId": name, "Role": "assistant", "Content": reply, "EmpathyOverall": 3, **dimensions})
    return tasks, messages


def write_workbook(path: Path) -> Path:
    workbook = Workbook()
    for sheet, rows in zip(("Tasks", "Messages"), list_rows(), strict=True):
        page = workbook.create_sheet(sheet)
        head = list(dict.fromkeys(key for row in rows for key in row))
        page.append(head)
        for row in rows:
            page.append([row.get(key) for key in head])
    workbook.remove(workbook["Sheet"])
    workbook.save(path)
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_workbook_and_its_csv_files_say_the_same(tmp_path: Path):
    rows, messages = list_rows()
    names = {"Movie night": "movie_recommendation"}
    book = read_sense7(write_workbook(tmp_path / "s.xlsx"), names=names)
    pages = read_sense7(write_csv(tmp_path / "t.csv", rows), write_csv(tmp_path / "m.csv", messages), names)
    assert book == pages
    first = book[0]
    assert (first["id"], first["task"], first["desired"]) == ("t1", "therapy", 1.0)
    assert first["ratings"]["relational_continuity"] is None
    assert first["turns"][1]["rating"]["level"] == 1.0
    assert first["turns"][1]["rating"]["dimensions"]["interest"] is None
    assert book[2]["task"] == "movie_recommendation"
    assert read_sense7(tmp_path / "t.csv")[0]["turns"] == []


def test_levels_are_means_with_intervals_and_make_a_task_table(tmp_path: Path):
    rated = read_sense7(write_workbook(tmp_path / "s.xlsx"), names={"Movie night": "movie_recommendation"})
    desired = measure_desired(rated, seed=0)
    assert desired["therapy"] == {"desired": 0.75, "interval": [0.5, 1.0], "conversations": 2}
    assert desired["movie_recommendation"]["desired"] == 0
    assert desired["gardening_advice"]["interval"] is None
    (tmp_path / "tasks.toml").write_text(write_tasks(desired, load_tasks(), 'a "table"'))
    table = load_tasks(tmp_path / "tasks.toml")
    assert table.get("therapy").desired == 0.75
    assert table.get("therapy").source == 'a "table", 2 conversations'
    assert table.get("gardening_advice").expert == "encouraging"
    assert table.get("tutoring") == load_tasks().get("tutoring")
    assert table.patterns == load_tasks().patterns


def test_the_command_writes_levels_agreement_and_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_workbook(tmp_path / "s.xlsx")
    out = tmp_path / "out"
    assert (
        main(
            [
                "calibrate",
                "--in",
                str(tmp_path / "s.xlsx"),
                "--out",
                str(out),
                "--name",
                "Movie night=movie_recommendation",
            ]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    found = json.loads((out / "calibration.json").read_text())
    assert printed["judge"] == found["judge"]
    level = found["judge"]["conversations"]["level"]
    assert level["pairs"] == 5
    assert level["spearman"] > 0.5
    assert found["judge"]["turns"]["level"]["pairs"] == 7
    assert found["judge"]["turns"]["interest"] == {"spearman": None, "interval": None, "pairs": 0}
    assert "gardening_advice" in tomllib.loads((out / "tasks.toml").read_text())["tasks"]
    given = ["evaluate", "--scenarios", str(out / "conversations.jsonl"), "--systems", "recorded", "--out", str(out)]
    assert main([*given, "--tasks", str(out / "tasks.toml")]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["judges"] == ["learned", "user"]
    assert report["tasks"]["therapy"]["desired"] == 0.75
    assert report["systems"]["recorded"]["judged_by"]["user"]["agreement"]["replies"] == 7


@pytest.mark.parametrize(
    ("column", "value", "error"),
    [
        ("PreTaskDesiredEmpathy", 4, "row 2: PreTaskDesiredEmpathy is '4': it must be a number from 1 to 3"),
        ("PostTaskEmpathy_Interest", "much", "PostTaskEmpathy_Interest is 'much'|Interest is 'much'"),
        ("PreTaskChoice", "", "row 2: PreTaskChoice is empty"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, column: str, value: Any, error: str):
    rows, _ = list_rows()
    rows[0][column] = value
    with pytest.raises(InputError, match=error):
        read_sense7(write_csv(tmp_path / "t.csv", rows))


def test_tables_of_another_shape_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match="no column PreTaskChoice, PreTaskDesiredEmpathy"):
        read_sense7(write_csv(tmp_path / "t.csv", [{"a": 1}]))
    with pytest.raises(InputError, match="cannot read"):
        read_sense7(tmp_path / "none.csv")
    (tmp_path / "x.xlsx").write_bytes(b"no zip")
    with pytest.raises(InputError, match="is no workbook"):
        read_sense7(tmp_path / "x.xlsx")
    book = Workbook()
    book.save(tmp_path / "y.xlsx")
    with pytest.raises(InputError, match="has no sheet Tasks: it has Sheet"):
        read_sense7(tmp_path / "y.xlsx")
    rows, messages = list_rows()
    messages[0]["Role"] = "robot"
    with pytest.raises(InputError, match="Messages, row 2: Role is 'robot'"):
        read_sense7(write_csv(tmp_path / "t.csv", rows), write_csv(tmp_path / "m.csv", messages))
    assert main(["calibrate", "--in", str(tmp_path / "t.csv"), "--out", str(tmp_path), "--name", "x"]) == 2
    assert "write it as CHOICE=TASK" in capsys.readouterr().err
