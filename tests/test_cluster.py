"""Sessions on a local Ray cluster, with actors that die in the middle, cannot be built, or find no place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason='Ray is not installed: pip install "empathy-agent[ray]"')

# In a process of its own: Ray opens sockets and leaves threads behind.
PLAY = """
import json, os, sys, time
from pathlib import Path

import ray

from empathy_agent.errors import EmpathyAgentError, ModelError
from empathy_agent.simulation import SessionSpec, lines_user
from empathy_agent.simulation.cluster import simulate_on_ray
from empathy_agent.simulation.planning import Plan

folder = Path(sys.argv[1])
ray.init(address="local", num_cpus=2, log_to_driver=False, configure_logging=False)

def log(kind):
    (folder / f"{kind}-{time.time_ns()}").touch()
    return len([name for name in os.listdir(folder) if name.startswith(kind)])

def cast():
    async def app(message, *, thread_id):
        import asyncio
        await asyncio.sleep(0.05)
        if thread_id.startswith("s5#") and message == "two" and not any(n.startswith("death") for n in os.listdir(folder)):
            log("death")
            os._exit(1)
        return {"content": f"{os.getpid()} with {os.environ.get('OMP_NUM_THREADS')}"}
    return lambda plan: SessionSpec(plan.id, app, lines_user(["one", "two", "three"]), seed=plan.seed, persona=plan.persona)

def break_down():
    log("broken")
    raise ModelError("cannot load the model nobody/nothing: no such folder")

def die():
    log("dead")
    os._exit(1)

def attempt(cast, **more):
    try:
        return simulate_on_ray(plans, cast, **more)
    except EmpathyAgentError as error:
        return [type(error).__name__, str(error)]

plans = [Plan(f"s{i}", {"id": f"p{i}"}, 3, 0) for i in range(12)]
# What a function of __main__ closes over travels by value.
print(json.dumps({
    "first": attempt(cast, out=folder / "out.jsonl", cpus=1, concurrency=3),
    "again": attempt(cast, out=folder / "out.jsonl", cpus=1, concurrency=3),
    "broken": attempt(break_down, out=folder / "broken.jsonl", cpus=2),
    "dead": attempt(die, out=folder / "dead.jsonl", cpus=2),
    "crowded": attempt(cast, out=folder / "crowded.jsonl", cpus=3),
}))
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ray")
    done = subprocess.run(
        [sys.executable, "-c", PLAY, str(folder)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def test_nothing_is_lost_when_an_actor_dies(played: tuple[Path, dict[str, Any]]):
    folder, found = played
    assert len(list(folder.glob("death-*"))) == 1
    assert (found["first"]["sessions"], found["first"]["failed"], found["first"]["lost"]) == (12, 0, 1)
    assert found["again"]["skipped"] == 12
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(record["id"] for record in records) == sorted(f"s{i}" for i in range(12))
    assert all(len(record["turns"]) == 6 for record in records)
    replies = {turn["content"] for record in records for turn in record["turns"][1::2]}
    assert {reply.partition(" with ")[2] for reply in replies} == {"1"}, "as many threads as it has processors"


def test_models_that_cannot_be_built_are_an_error_with_its_reason_and_no_endless_restart(
    played: tuple[Path, dict[str, Any]],
):
    folder, found = played
    reason = "an actor cannot build its models: cannot load the model nobody/nothing: no such folder"
    assert found["broken"] == ["ModelError", reason]
    assert len(list(folder.glob("broken-*"))) == 1
    kind, text = found["dead"]
    assert kind == "ModelError"
    assert text.startswith(
        "4 actors died and no session was finished in between, the last so: its worker process has died"
    )
    assert len(list(folder.glob("dead-*"))) == 4


def test_an_actor_larger_than_every_machine_is_refused(played: tuple[Path, dict[str, Any]]):
    kind, text = played[1]["crowded"]
    assert (kind, text) == (
        "InputError",
        "an actor is to have 3 processors (--ray-cpus): no machine of the cluster has over 2",
    )
