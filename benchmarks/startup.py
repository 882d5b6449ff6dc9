"""How long a user waits before anything: `--help`, the import, the engine's models. Each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import compare, hold_to, main, make_table, time_call

TOP = Path(__file__).parent.parent
COMMANDS = {
    "python itself": ["-c", "pass"],
    "--help": ["-m", "empathy_agent.cli", "--help"],
    "import langgraph.graph": ["-c", "import langgraph.graph"],
    "import of build_graph": ["-c", "from empathy_agent import build_graph"],
    "engine ready": ["-c", "from empathy_agent import EmpathyEngine; EmpathyEngine().load()"],
}


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures with a warm disk; the first round does not count."""
    repeats = 1 if smallest else 5
    chosen = dict(list(COMMANDS.items())[:2]) if smallest else COMMANDS
    taken = compare({name: _start(arguments) for name, arguments in chosen.items()}, repeats)
    reached = [hold_to("--help, s", taken["--help"], most=0.5)]
    if not smallest:
        above = taken["import of build_graph"] - taken["import langgraph.graph"]
        reached += [
            hold_to("import of the package above langgraph.graph, s", above, most=0.15),
            hold_to("engine ready to answer, s", taken["engine ready"], most=6),
        ]
    return {
        "settings": {"repeats": repeats},
        "tables": [make_table("Start of a new process, seconds", ["", "s"], list(taken.items()))],
        "reached": reached,
    }


def _start(arguments: list[str]) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(TOP), "HF_HUB_OFFLINE": "1"}

    def run() -> None:
        subprocess.run([sys.executable, *arguments], cwd=TOP, env=environment, capture_output=True, check=True)

    return lambda: time_call(run)


if __name__ == "__main__":
    main(measure)
