"""Says by what a file of records was played, and lets a run go on with it only by the same.

The plan stands beside the records, in `NAME.plan.json`: `source`, `sessions` (id → fingerprint of who is played), `played`
(turns, seed, model, hash of the weights, who plays the users, …) and `settings` of the graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    from empathy_agent.engine import EmpathyEngine

SHOWN = 6  # differences that an error names


def describe_models(engine: EmpathyEngine) -> dict[str, Any]:
    """What of an engine decides how sessions go, for a plan: names, and hashes of weights and task table."""
    return {
        "model": engine.model,
        "adapters": engine.adapters,
        "base_url": engine.base_url,
        "weights_sha256": engine.hash_weights(),
        "tasks_sha256": fingerprint(repr(engine.tasks)),
    }


def fingerprint(value: Any) -> str:
    """Short hash of a JSON value.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, sort_keys=True).encode()).hexdigest()[:16]


def read_plan(records: Path) -> dict[str, Any]:
    """The plan beside a file of records; empty where there is none.

    Raises:
        InputError: It is damaged.
    """
    path = records.with_suffix(".plan.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; delete it with its records, or name another --out") from error


def check_plan(records: Path, plan: Mapping[str, Any]) -> None:
    """Writes the plan beside the records; where there are some already, only sessions may be added to it.

    Raises:
        InputError: The records were played otherwise, or nothing says how; or the plan cannot be written.
    """
    plan = json.loads(json.dumps(plan))
    if records.is_file() and records.stat().st_size:
        before = read_plan(records)
        if not before:
            raise InputError(f"{records} holds sessions and nothing says how they were played: name another --out")
        if changed := _list_changes(before, plan):
            raise InputError(
                f"{records} holds sessions that were played with another {'; another '.join(changed[:SHOWN])}: name another "
                "--out, or delete the file"
            )
        plan = {**plan, "sessions": {**before["sessions"], **plan["sessions"]}}
    path = records.with_suffix(".plan.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def _list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    known, new = before["sessions"], now["sessions"]
    changed = [f"session {name}" for name in sorted(known.keys() & new.keys()) if known[name] != new[name]]
    parts = [({"source": plan["source"]}, plan["played"], plan["settings"]) for plan in (before, now)]
    for old, new in zip(*parts, strict=True):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                changed.append(f"{name} ({old.get(name)!r}, not {new.get(name)!r})")
    return changed
