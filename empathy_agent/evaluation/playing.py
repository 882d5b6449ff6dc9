"""Plays systems against scenarios and keeps what was said: one file of records for each, gone on with where a run was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.evaluation.scenarios import Scenario
from empathy_agent.evaluation.systems import picks_among_drafts
from empathy_agent.simulation.resuming import check_plan, read_plan

Records = list[dict[str, Any]]
PERSONA_TURNS = 10  # user turns of a simulated user where no number is given
ABLATIONS = "ablations"  # folder of their records, within that of the systems


def list_specs(
    scenarios: Sequence[Scenario],
    app: Callable[..., Any],
    *,
    turns: int | None,
    seed: int,
    build_user: Callable[[dict[str, Any]], Callable[..., Any]],
    emotion_judge: Callable[..., Any] | None,
    patient: bool = False,
) -> list[Any]:
    """Lists the sessions of one system: a scripted user for lines, a simulated one for a persona.

    Args:
        scenarios: What is played.
        app: The system.
        turns: User turns at most; None plays scripts to their end and personas for `PERSONA_TURNS`.
        seed: Of every session.
        build_user: Makes the simulated user of a persona.
        emotion_judge: Moves a simulated user's emotion; scripted users have none.
        patient: Whether simulated users stay for all turns.
    """
    from empathy_agent.simulation import SessionSpec, lines_user

    specs = []
    for scenario in scenarios:
        persona = scenario.persona
        most = PERSONA_TURNS if persona else len(scenario.lines)
        specs.append(
            SessionSpec(
                id=scenario.id,
                app=app,
                user=build_user(persona) if persona else lines_user(scenario.lines),
                task=scenario.task,
                turns=most if turns is None else turns if persona else min(turns, most),
                seed=seed,
                persona=persona,
                judge=emotion_judge if persona else None,
                patient=patient,
            )
        )
    return specs


def play_system(
    specs: Sequence[Any], out: Path, plan: Mapping[str, Any], concurrency: int, on_record: Callable[[Any], None]
) -> Records:
    """Plays what `out` does not hold yet and returns all records, in the order of the sessions.

    Args:
        specs: The sessions.
        out: File of records. Beside it stands the plan that they were played by (see `simulation/resuming.py`).
        plan: What must be the same for records to be gone on with.
        concurrency: Sessions at once.
        on_record: Called with every record as it is written.

    Raises:
        InputError: `out` holds sessions of another plan.
    """
    from empathy_agent.simulation import read_records, simulate

    check_plan(out, plan)
    asyncio.run(simulate(specs, out=out, concurrency=concurrency, on_record=on_record))
    records = {record["id"]: record for record in read_records(out)}
    return [records[spec.id] for spec in specs]


def list_recorded(scenarios: Sequence[Scenario], turns: int | None) -> Records:
    """The conversations that the scenarios hold already, as records of the system `recorded`.

    Raises:
        InputError: The scenarios hold no replies.
    """
    records = [
        {
            "id": scenario.id,
            "task": scenario.task,
            "persona": None,
            "status": "done",
            "error": None,
            "emotion": None,
            "turns": _cut(scenario.turns, turns),
        }
        for scenario in scenarios
        if scenario.turns
    ]
    if not records:
        raise InputError("the system recorded needs scenarios whose turns hold the assistant's replies")
    return records


def read_played(path: Path) -> tuple[dict[str, Records], dict[str, Records], bool, dict[str, Any]]:
    """Reads records played before: a file, named by its stem, or the folder `records` of an evaluation.

    Returns:
        Records by system; records by ablation; whether a system chose among its drafts with its own judge, as its plan says,
        or as must be supposed of a reply that was assessed while it was written; and the settings of the plan, if there is one,
        with the `session_seed` of the records.

    Raises:
        InputError: There are none, or one file is broken.
    """
    from empathy_agent.simulation import read_records

    files = [path] if path.is_file() else sorted(path.glob("*.jsonl"))
    if not files:
        raise InputError(
            f"no records in {path}: give a file that simulate wrote, or the folder records of an evaluation"
        )
    others = sorted((path / ABLATIONS).glob("*.jsonl"))
    found = {file: _in_order(read_records(file)) for file in [*files, *others]}
    plans = {file: read_plan(file) for file in found}
    picks = any(_picked(plans[file], file, records) for file, records in found.items())
    known = [
        plan for file, plan in sorted(plans.items(), key=lambda p: p[0].stem != "experts") if plan and file in files
    ]
    own = [plan for plan in known if plan["source"] == "graph"] or known
    seeds = {record["seed"] for records in found.values() for record in records}
    settings = {**own[0]["settings"], **own[0]["played"]} if own else {}
    settings["session_seed"] = seeds.pop() if len(seeds) == 1 else None
    return {file.stem: found[file] for file in files}, {file.stem: found[file] for file in others}, picks, settings


def _picked(plan: Mapping[str, Any], file: Path, records: Records) -> bool:
    if plan:
        own = plan["source"] == "graph" or file.parent.name == ABLATIONS
        return own and picks_among_drafts(plan["settings"])
    return any((turn.get("state") or {}).get("assessment") for record in records for turn in record["turns"])


def _in_order(records: Records) -> Records:
    """Sessions end in any order; reports must not depend on it."""
    return sorted(records, key=lambda record: str(record["id"]))


def _cut(given: Sequence[dict[str, Any]], turns: int | None) -> list[dict[str, Any]]:
    kept, users = [], 0
    for turn in given:
        users += turn["role"] == "user"
        if turns is not None and users > turns:
            break
        kept.append(turn)
    return kept
