"""`empathy-agent calibrate`: task levels and the judge's agreement from a table of people's ratings in SENSE-7's shape."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from empathy_agent.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Writes tasks.toml, calibration.json and, where the table holds messages, conversations.jsonl."""
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.evaluation.calibrating import compare_judge, measure_desired, write_tasks
    from empathy_agent.evaluation.report import list_versions
    from empathy_agent.evaluation.scenarios import hash_files
    from empathy_agent.evaluation.sense7 import read_sense7
    from empathy_agent.tasks import DEFAULT_TASKS, load_tasks

    path, out = Path(options.source), Path(options.out)
    messages = Path(options.messages) if options.messages else None
    names = dict(_read_name(given) for given in options.name)
    tasks = load_tasks(options.tasks or DEFAULT_TASKS)
    rated = read_sense7(path, messages, names)
    talks = [row for row in rated if row["turns"]]
    files = [path, *([messages] if messages else [])]
    desired = measure_desired(rated, options.seed)
    found = {
        "command": ["empathy-agent", *options.given],
        "versions": list_versions(),
        "seed": options.seed,
        "sha256": hash_files(files),
        "conversations": len(rated),
        "tasks": desired,
        "judge": compare_judge(talks, EmpathyEngine(), options.seed) if talks else None,
    }
    texts = {
        "tasks.toml": write_tasks(desired, tasks, path.name),
        "calibration.json": json.dumps(found, ensure_ascii=False, indent=1) + "\n",
    }
    if talks:
        rows = [{"id": row["id"], "task": row["task"], "turns": row["turns"]} for row in talks]
        texts["conversations.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}") from error
    print(json.dumps({"tasks": desired, "judge": found["judge"]}, indent=2))
    print(f"{len(rated)} conversations read; written to {out}: {', '.join(texts)}", file=sys.stderr)
    return 0


def _read_name(given: str) -> tuple[str, str]:
    choice, sign, task = given.rpartition("=")
    if not sign or not choice or not task:
        raise InputError(f"--name {given!r}: write it as CHOICE=TASK, such as 'Movie night=movie_recommendation'")
    return choice, task
