"""How an expert's replies are sampled: said by the task table, obeyed by the graph, found by `evaluate experts --grid`."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empathy_agent import EmpathyEngine, Settings, build_graph
from empathy_agent.cli import main
from empathy_agent.decoding import Decoding
from empathy_agent.errors import InputError
from empathy_agent.evaluation.ablations import ablate
from empathy_agent.evaluation.calibrating import write_tasks
from empathy_agent.evaluation.expert_grid import GRID, read_grid, sweep, write_grid
from empathy_agent.tasks import DEFAULT_TASKS, load_tasks
from empathy_agent.worker import Worker

COOL = Decoding(temperature=0.3, top_p=0.8)
SAID = {"messages": [{"role": "user", "content": "Can you suggest a funny film for tonight?"}]}


def save_table(folder: Path, line: str) -> Path:
    """Saves the shipped task table with no decoding but a line added to the pattern of the factual expert."""
    path = folder / "tasks.toml"
    text = re.sub(r"(?m)^decoding = .*\n", "", DEFAULT_TASKS.read_text(encoding="utf-8"))
    assert "\nlevel = 0.08\n" in text
    path.write_text(text.replace("\nlevel = 0.08\n", f"\nlevel = 0.08\n{line}\n", 1), encoding="utf-8")
    return path


def test_a_pattern_says_how_its_expert_is_sampled_and_other_tables_keep_it(tmp_path: Path, engine: EmpathyEngine):
    tasks = load_tasks(save_table(tmp_path, "decoding = { temperature = 0.3, top_p = 0.8 }"))
    assert tasks.get_decoding("factual") == COOL
    assert tasks.get_decoding("compassionate") == tasks.get_decoding(None) == Decoding()
    (tmp_path / "calibrated.toml").write_text(write_tasks({}, tasks, "ours"), encoding="utf-8")
    assert load_tasks(tmp_path / "calibrated.toml").decodings == {"factual": COOL}
    tuned = copy.copy(engine)
    tuned.tasks = tasks
    assert ablate("wrong_expert", tuned, Settings())[0].tasks.get_decoding("factual") == COOL


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("decoding = { heat = 1 }", "patterns.factual.decoding sets 'heat': it may set temperature, top_p, "),
        ("decoding = { seed = 1 }", "patterns.factual.decoding sets 'seed'"),
        ("decoding = { top_p = 2 }", "patterns.factual.decoding: top_p is 2: it must be float between 0.001 and 1"),
        ("decoding = 3", "is not a task table"),
    ],
)
def test_a_decoding_that_cannot_be_used_is_named(tmp_path: Path, line: str, error: str):
    with pytest.raises(InputError, match=error):
        load_tasks(save_table(tmp_path, line))


@pytest.mark.parametrize("candidates", [1, 2])
def test_the_graph_samples_as_the_pattern_says_unless_the_caller_does(
    engine: EmpathyEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: int
):
    engine.load()
    tuned = copy.copy(engine)
    tuned.tasks = load_tasks(save_table(tmp_path, "decoding = { temperature = 0.3, top_p = 0.8 }"))
    graph, asked, submit = build_graph(engine=tuned).compile(), [], Worker.submit

    def note(self: Worker, turns: Any, adapter: str | None, decoding: Decoding, n: int = 1) -> Any:
        asked.append((adapter, decoding.temperature, decoding.top_p, n))
        return submit(self, turns, adapter, decoding, n)

    monkeypatch.setattr(Worker, "submit", note)
    given: dict[str, Any] = {"candidates": candidates, "max_revisions": 0, "max_new_tokens": 2}
    for more in (
        {"expert": "factual"},
        {"expert": "factual", "temperature": 0.5},
        {"expert": "factual", "temperature": 0.0},
        {"expert": "considerate"},
        {"expert": "factual", "system": "prompt"},
    ):
        graph.invoke(SAID, context=Settings(**given, **more))
    assert asked == [
        ("factual", 0.3, 0.8, candidates),
        ("factual", 0.5, 0.8, candidates),
        ("factual", 0.0, 0.8, 1),
        ("considerate", 0.6, 0.9, candidates),
        (None, 0.6, 0.9, candidates),
    ]


def test_a_grid_is_every_combination_but_greedy_ones_that_are_the_same():
    assert len(read_grid([])) == (len(GRID["temperature"]) - 1) * 2 * 2 + 2
    found = read_grid(["temperature=0,0.5", "top_p=0.8,0.9", "no_repeat_ngram_size=0"])
    assert [(d.temperature, d.top_p, d.no_repeat_ngram_size) for d in found] == [
        (0, 0.8, 0),
        (0.5, 0.8, 0),
        (0.5, 0.9, 0),
    ]
    for wrong, error in (
        ("heat=1", "--grid 'heat=1': write NAME=A,B with a NAME of temperature, top_p"),
        ("top_p=low", "--grid 'top_p=low': its values must be numbers"),
        ("top_p=3", "top_p is 3: it must be float between"),
    ):
        with pytest.raises(InputError, match=error):
            read_grid([wrong])


def test_the_best_setting_is_the_cheapest_that_is_surely_cheaper_than_the_standing_one(
    engine: EmpathyEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import empathy_agent.evaluation.expert_grid as grid

    engine = copy.copy(engine)
    engine.tasks = load_tasks(save_table(tmp_path, ""))

    sure, lucky, bad = Decoding(temperature=0.1), Decoding(temperature=0.2), Decoding(temperature=0.3)
    misses = {Decoding(): [0.4] * 20, sure: [0.3] * 20, lucky: [0.0] * 13 + [0.9] * 7, bad: [0.1] * 20}
    cases = [
        {"id": f"c{i}", "at": 1, "expert": expert, "desired": 0.5}
        for expert in ("factual", "considerate")
        for i in range(20)
    ]
    rng = np.random.default_rng(0)

    def write(tuned: EmpathyEngine, asked: Any, candidates: int, seed: int) -> Any:
        assert (candidates, seed) == (3, 7)
        return [tuned.tasks.get_decoding(case["expert"]) for case in asked]

    def read(given: EmpathyEngine, judge: Any, asked: Any, written: Any, seed: int) -> list[dict[str, Any]]:
        assert given is engine
        rows = []
        for case, decoding in zip(asked, written, strict=True):
            miss = misses[decoding][int(case["id"][1:])] + rng.normal(0, 0.01)
            # The cheapest by its gap alone is off topic in every reply; `considerate` is the same under all settings.
            told = {"miss": miss, "on_topic": decoding != bad, "repeated": 0.0, "words": 9, "whole": True}
            if case["expert"] == "considerate":
                told |= {"miss": 0.2, "on_topic": True}
            rows.append({**case, **told, "found": {"level": 0.5 - miss}})
        return rows

    monkeypatch.setattr(grid, "write_replies", write)
    monkeypatch.setattr(grid, "read_replies", read)
    steps: list[str] = []
    found = sweep(engine, None, cases, [sure, lucky, bad], candidates=3, seed=7, show_step=steps.append)  # type: ignore[arg-type]
    assert len(steps) == 4
    rows = {row["temperature"]: row for row in found["factual"]}
    assert rows[0.2]["cost"] < rows[0.6]["cost"]
    assert rows[0.2]["high"] > 0 > rows[0.1]["high"]
    assert rows[0.3]["gap"] < rows[0.1]["gap"] < rows[0.1]["cost"] + 0.001 < rows[0.3]["cost"]
    assert [row["temperature"] for row in found["factual"] if row["best"]] == [0.1]
    assert [row["temperature"] for row in found["considerate"] if row["best"]] == [0.6]
    assert [row["temperature"] for row in found["considerate"] if row["standing"]] == [0.6]
    text = write_grid({"command": "x", "experts": found})
    assert "[patterns.factual]\ndecoding = { temperature = 0.1, top_p = 0.9, " in text


def test_the_command_sweeps_on_dev_and_its_line_fits_into_the_task_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "measured"
    command = ["evaluate", "experts", "--limit", "2", "--candidates", "1", "--out", str(out), "--grid"]
    assert main([*command, "temperature=0.3,0"]) == 0
    printed = capsys.readouterr().out
    assert printed == (out / "grid.md").read_text(encoding="utf-8") + "\n"
    report = json.loads((out / "grid.json").read_text(encoding="utf-8"))
    assert (report["split"], report["seed"], report["candidates"]) == ("dev", 0, 1)
    assert report["experts"]
    for expert, rows in report["experts"].items():
        assert [row["temperature"] for row in rows] == [0.3, 0]
        assert [row["standing"] for row in rows] == [True, False]
        assert sum(row["best"] for row in rows) == 1
        assert rows[0]["difference"] == 0
        assert all(0 <= row["level"] <= 1 and row["replies"] == rows[0]["replies"] and row["words"] > 1 for row in rows)
        assert f"## {expert}" in printed
    line = next(line for line in printed.splitlines() if line.startswith("decoding = "))
    assert load_tasks(save_table(tmp_path, line)).decodings["factual"].no_repeat_ngram_size == 6
    for wrong, error in (
        (["--grid", "--split", "test"], "--grid chooses, which the split test is kept from"),
        (["--grid", "heat=1"], "write NAME=A,B"),
        (["--grid", "--candidates", "9"], "--candidates is 9: it must lie between 1 and 8"),
    ):
        assert main(["evaluate", "experts", "--out", str(out), *wrong]) == 2
        assert error in capsys.readouterr().err
