"""Sessions on a local Ray cluster, with an actor that dies in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason='Ray is not installed: pip install "empathy-agent[ray]"')

# In a process of its own: Ray opens sockets and leaves threads behind.
PLAY = """
import json, os, sys, time
from pathlib import Path
from empathy_agent.simulation import SessionSpec, lines_user
from empathy_agent.simulation.cluster import simulate_on_ray
from empathy_agent.simulation.planning import Plan

folder, deaths = Path(sys.argv[1]), int(sys.argv[2])

def cast():
    async def app(message, *, thread_id):
        import asyncio
        await asyncio.sleep(0.05)
        if thread_id.startswith("s5#") and message == "two":
            if len(os.listdir(folder / "deaths")) < deaths:
                (folder / "deaths" / str(time.time_ns())).touch()
                os._exit(1)
        return {"content": str(os.getpid())}
    return lambda plan: SessionSpec(plan.id, app, lines_user(["one", "two", "three"]), seed=plan.seed, persona=plan.persona)

(folder / "deaths").mkdir()
plans = [Plan(f"s{i}", {"id": f"p{i}"}, 3, 0) for i in range(12)]
# What a function of __main__ closes over travels by value.
summary = simulate_on_ray(plans, cast, out=folder / "out.jsonl", actors=2, concurrency=3)
again = simulate_on_ray(plans, cast, out=folder / "out.jsonl", actors=2, concurrency=3)
print(json.dumps([summary, again]))
"""


@pytest.mark.parametrize(("deaths", "failed"), [(1, 0)])
def test_nothing_is_lost_when_an_actor_dies(deaths: int, failed: int, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PLAY, str(tmp_path), str(deaths)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary, again = json.loads(done.stdout.splitlines()[-1])
    assert len(list((tmp_path / "deaths").iterdir())) == deaths
    assert (summary["sessions"], summary["failed"], summary["lost"]) == (12, failed, deaths)
    assert again["skipped"] == 12
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(record["id"] for record in records) == sorted(f"s{i}" for i in range(12))
    assert all(len(record["turns"]) == 6 for record in records)
    assert len({turn["content"] for record in records for turn in record["turns"][1::2]}) >= 2, (
        "an actor and the one that took over"
    )
