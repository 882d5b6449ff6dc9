"""Many simulated users at once: 200 sessions of 10 turns, user and agent both local.

Users stay for all turns, since sessions that end early would flatter the figure. Run once: it takes minutes.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.measuring import hold_to, main, make_table

PERSONAS = Path(__file__).parent.parent / "conversations" / "personas.jsonl"


def measure(smallest: bool = False) -> dict[str, Any]:
    """Plays the sessions with the shipped models."""
    from empathy_agent.commands.simulate import LOCAL, cast_sessions
    from empathy_agent.settings import Settings
    from empathy_agent.simulation import load_personas, plan_sessions, simulate
    from empathy_agent.tasks import load_tasks

    sessions, turns, concurrency = (2, 1, 2) if smallest else (200, 10, 32)
    settings = Settings(max_new_tokens=4 if smallest else 60)
    write = cast_sessions(model=None, adapters=None, base_url=None, user_model=LOCAL, settings=settings, patient=True)
    specs = [write(plan) for plan in plan_sessions(load_personas(PERSONAS, load_tasks()), sessions, turns, 0)]
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        summary = asyncio.run(simulate(specs, out=Path(folder) / "out.jsonl", concurrency=concurrency))
        seconds = perf_counter() - began
    rows = [["sessions", sessions], ["turns played", summary["turns"]], ["handed off", summary["handed_off"]]]
    rows += [["failed", summary["failed"]], ["seconds", seconds], ["turns a second", summary["turns"] / seconds]]
    return {
        "settings": {"sessions": sessions, "turns": turns, "concurrency": concurrency},
        "tables": [make_table("Simulated sessions, user and agent local", ["", "figure"], rows)],
        "reached": [hold_to(f"minutes for {sessions} sessions of {turns} turns", seconds / 60, most=10)],
    }


if __name__ == "__main__":
    main(measure)
