"""`empathy-agent simulate`: lets simulated users talk with the agent, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from empathy_agent.commands.chat import read_served_as, read_settings
from empathy_agent.commands.synthesize import load_chat_model, show_progress
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.settings import Settings
from empathy_agent.simulation.personas import ADAPTER
from empathy_agent.simulation.planning import Plan, load_personas, plan_sessions
from empathy_agent.simulation.resuming import check_plan, describe_models, fingerprint
from empathy_agent.simulation.session import SessionSpec
from empathy_agent.simulation.users import Users, load_users, local_users, model_users
from empathy_agent.tasks import load_tasks

LOCAL = "local"


def run(options: argparse.Namespace) -> int:
    """Plays the sessions and prints a summary; exit code 1 where one failed."""
    settings = read_settings(options.set)
    personas = load_personas(Path(options.personas), load_tasks())
    tasks = [name.strip() for name in options.task.split(",") if name.strip()]
    count = options.sessions if options.sessions is not None else _count(personas, tasks)
    plans = plan_sessions(personas, count, options.turns, options.seed, tasks)
    given: dict[str, Any] = {
        "model": options.model,
        "adapters": options.adapters,
        "base_url": options.base_url,
        "served_as": read_served_as(options.served_as),
    }
    cast = partial(
        cast_sessions,
        **given,
        users=options.users,
        user_model=options.user_model,
        settings=settings,
        patient=options.patient,
    )
    out = Path(options.out)
    played = {
        "turns": options.turns,
        "patient": options.patient,
        "session_seed": options.seed,
        **describe_models(EmpathyEngine(**given)),
        "user": options.users or options.user_model,
    }
    sessions = {plan.id: fingerprint(plan.persona) for plan in plans}
    check_plan(out, {"source": "graph", "sessions": sessions, "played": played, "settings": asdict(settings)})
    started = perf_counter()
    with show_progress() as progress:
        bar = progress.add_task("sessions", total=len(plans))
        users: set[str] = set()

        def show(record: dict[str, Any]) -> None:
            progress.advance(bar)
            users.add(str(record["user"]))
            if record["error"]:
                progress.console.print(f"{record['id']} failed: {record['error']}", markup=False, highlight=False)

        arguments: dict[str, Any] = {"out": out, "concurrency": options.concurrency, "on_record": show}
        if options.ray:
            from empathy_agent.simulation.cluster import simulate_on_ray

            summary = simulate_on_ray(plans, cast, address=options.ray, cpus=options.ray_cpus, **arguments)
        else:
            from empathy_agent.simulation.simulating import simulate

            write = cast()
            summary = asyncio.run(simulate([write(plan) for plan in plans], **arguments))
    seconds = round(perf_counter() - started, 1)
    summary |= {"users": ", ".join(sorted(users)) or None, "seconds": seconds, "out": options.out}
    print(json.dumps(summary) if options.json else _describe(summary))
    return 1 if summary["failed"] else 0


def cast_sessions(
    *,
    model: str | None,
    adapters: str | None,
    base_url: str | None,
    settings: Settings,
    users: str | None = None,
    user_model: str = LOCAL,
    served_as: Mapping[str, str] | None = None,
    patient: bool = False,
) -> Callable[[Plan], SessionSpec]:
    """Builds the engine, and returns what makes a plan a session over it.

    Args:
        model: Folder or hub id of the base.
        adapters: Folder of its adapters.
        base_url: Server in place of a local base.
        settings: The agent's settings.
        users: Who plays the users, as `cast_users` takes it.
        user_model: The same.
        served_as: Names under which that server serves the experts.
        patient: Whether users stay for all turns.
    """
    from empathy_agent.graph import build_graph
    from empathy_agent.simulation.apps import graph_app
    from empathy_agent.simulation.emotion import learned_judge

    engine = EmpathyEngine(model=model, adapters=adapters, base_url=base_url, served_as=served_as)
    played = cast_users(users, user_model, engine)
    engine.load()
    if played.name == LOCAL and ADAPTER not in engine.experts:
        print(
            f"there is no adapter {ADAPTER!r} for this model: its base plays the users, from the persona prompt",
            file=sys.stderr,
        )
    app, judge = graph_app(build_graph(engine=engine), settings), learned_judge(engine)

    def write(plan: Plan) -> SessionSpec:
        user = played.build(plan.persona)
        return SessionSpec(plan.id, app, user, plan.task, plan.turns, plan.seed, plan.persona, judge, patient)

    return write


def cast_users(users: str | None, user_model: str, engine: EmpathyEngine) -> Users:
    """Who plays the personas.

    Args:
        users: A function or list of lines, as `load_users` takes it; None leaves it to `user_model`.
        user_model: `local`, or a chat model as `provider:model`.
        engine: Plays them where they are local.

    Raises:
        InputError: Both are given, or what is named cannot be used.
    """
    if users and user_model != LOCAL:
        raise InputError(f"--users {users} and --user-model {user_model} both say who plays the users: give one")
    if users:
        return load_users(users)
    if user_model != LOCAL:
        return model_users(load_chat_model(user_model, "--user-model"), user_model)
    return local_users(engine)


def _count(personas: list[dict[str, Any]], tasks: list[str]) -> int:
    return max(1, sum(not tasks or persona.get("task") in tasks for persona in personas))


def _describe(summary: dict[str, Any]) -> str:
    out_of_role = ", ".join(f"{kind} {count}" for kind, count in summary["out_of_role"].items()) or "none"
    return "\n".join(
        [
            f"{summary['sessions']} sessions in {summary['out']}, {summary['skipped']} of them from before",
            f"  satisfied or at the end {summary['done']}, left {summary['left']}, handed off {summary['handed_off']}, "
            f"failed {summary['failed']}",
            f"  {summary['turns']} turns; emotion at the end {summary['emotion']} of 100, from 40",
            f"  users: {summary['users'] or 'none played now'}; {summary['retries']} messages asked for again, "
            f"out of role all the same: {out_of_role}",
            f"  {summary['seconds']} s",
        ]
    )
