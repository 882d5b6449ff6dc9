"""Many sessions: plans, records on disk, going on, concurrency."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from empathy_agent import InputError
from empathy_agent.simulation import (
    SessionSpec,
    lines_user,
    load_personas,
    plan_sessions,
    read_records,
    simulate,
    summarize,
)
from empathy_agent.tasks import load_tasks

TOP = Path(__file__).parent.parent
PERSONAS = TOP / "conversations" / "personas.jsonl"


async def answer(message: str, *, thread_id: str) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"content": f"{message}? Fine."}


def build_specs(count: int, app: Any = answer) -> list[SessionSpec]:
    return [SessionSpec(f"s{i}", app, lines_user(["one", "two"]), seed=1) for i in range(count)]


async def test_every_session_is_written_once_and_a_second_run_goes_on(tmp_path: Path):
    out, seen = tmp_path / "new" / "out.jsonl", []
    summary = await simulate(build_specs(3), out=out, concurrency=2, on_record=lambda r: seen.append(r["id"]))
    assert (summary["sessions"], summary["done"], summary["turns"], summary["skipped"]) == (3, 3, 6, 0)
    with out.open("ab") as file:
        file.write(b'{"schema": 1, "id": "s3", "tur')  # torn by a kill
    summary = await simulate(build_specs(5), out=out, concurrency=2, on_record=lambda r: seen.append(r["id"]))
    assert (summary["sessions"], summary["skipped"]) == (5, 3)
    assert sorted(r["id"] for r in read_records(out)) == ["s0", "s1", "s2", "s3", "s4"] == sorted(seen)
    assert summarize(read_records(out))["turns"] == summary["turns"] == 10


async def test_a_file_of_something_else_or_of_another_seed_is_refused_and_left_as_it_is(tmp_path: Path):
    out = tmp_path / "out.jsonl"
    await simulate(build_specs(1), out=out)
    other = [SessionSpec("s0", answer, lines_user(["x"]), seed=2)]
    with pytest.raises(InputError, match="holds session s0 with seed 1, not 2: name another file"):
        await simulate(other, out=out)
    before = out.read_bytes()
    out.write_bytes(b'{"id": "mine"}\n' + before)
    with pytest.raises(InputError, match="line 1 is no record of schema 1"):
        await simulate(build_specs(1), out=out)
    assert out.read_bytes() == b'{"id": "mine"}\n' + before
    with pytest.raises(InputError, match="two sessions have the same id"):
        await simulate([*build_specs(1), *build_specs(1)], out=out)
    with pytest.raises(InputError, match="concurrency is 0"):
        await simulate(build_specs(1), out=tmp_path / "else.jsonl", concurrency=0)


async def test_as_many_sessions_as_asked_for_are_in_flight_though_their_apps_block(tmp_path: Path):
    together = threading.Barrier(40)  # more than asyncio's own executor has threads on two processors

    def block(message: str, *, thread_id: str) -> dict[str, Any]:
        if message == "one":
            together.wait(timeout=60)
        return {"content": "fine"}

    summary = await simulate(build_specs(40, block), out=tmp_path / "out.jsonl", concurrency=40)
    assert summary["done"] == 40


async def test_a_failed_session_stops_no_other(tmp_path: Path):
    async def fail_one(message: str, *, thread_id: str) -> dict[str, Any]:
        if thread_id.startswith("s1#"):
            raise ValueError("no")
        return {"content": "fine"}

    summary = await simulate(build_specs(3, fail_one), out=tmp_path / "out.jsonl", concurrency=3)
    assert (summary["done"], summary["failed"]) == (2, 1)


def test_plans_depend_on_the_seed_alone_and_a_longer_run_goes_on():
    personas = load_personas(PERSONAS, load_tasks())
    few, many = (plan_sessions(personas, count, 10, 7) for count in (20, 450))
    assert many[:20] == few
    assert len({plan.id for plan in many}) == 450
    assert {plan.id.rsplit("-", 1)[0] for plan in many[:200]} == {persona["id"] for persona in personas}
    assert plan_sessions(personas, 20, 10, 8) != few
    assert {plan.task for plan in plan_sessions(personas, 60, 10, 7, ["therapy", "tutoring"])} == {
        "therapy",
        "tutoring",
    }
    with pytest.raises(InputError, match="no persona has the task cooking: there are career_advice"):
        plan_sessions(personas, 1, 10, 7, ["cooking"])
    with pytest.raises(InputError, match="turns is 0"):
        plan_sessions(personas, 1, 0, 7)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"id": "a", "who": "x"}, "persona 1: add wants"),
        ({"id": "a", "who": "x", "wants": ["y"]}, "wants must be text"),
        ({"id": "a", "who": "x", "wants": "y", "task": "cooking"}, "no task 'cooking', known are"),
        ({"id": "a", "who": "x", "wants": "y", "hides": {"a": 1}}, "hides must be text or a list of texts"),
        ({"id": "a", "who": "x", "wants": "y", "discloses_at": 0}, "discloses_at is 0"),
    ],
)
def test_a_persona_that_cannot_be_played_is_named(row: dict[str, Any], error: str, tmp_path: Path):
    path = tmp_path / "personas.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(InputError, match=error):
        load_personas(path, load_tasks())
