"""`empathy-agent evaluate`: plays systems, judges what was said, and writes report.json, report.md and report.html."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from empathy_agent.commands.chat import read_served_as, read_settings
from empathy_agent.commands.simulate import cast_users
from empathy_agent.commands.synthesize import load_chat_model, show_progress
from empathy_agent.errors import InputError


def run(options: argparse.Namespace) -> int:
    """Writes the report; exit code 1 where a system failed in every session."""
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.evaluation import ablations, evaluating, playing, scenarios, systems
    from empathy_agent.tasks import DEFAULT_TASKS

    for name in ("turns", "limit", "concurrency"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(f"--{name} is {value}: it must be at least 1")
    files, out = [Path(path) for path in options.scenarios or ()], Path(options.out)
    if not files and not options.records:
        raise InputError("give --scenarios F to play, or --records DIR to make the report of what was played")
    settings, judge = read_settings(options.set), Path(options.judge) if options.judge else None
    engine = EmpathyEngine(
        model=options.model,
        adapters=options.adapters,
        base_url=options.base_url,
        served_as=read_served_as(options.served_as),
        tasks=options.tasks or DEFAULT_TASKS,
    )
    rate = _load_rater(options.judge_model, out) if options.judge_model else None
    found = scenarios.read_scenarios(files, engine.tasks, split=options.split, limit=options.limit) if files else []
    seed, tolerance = options.seed or 0, settings.tolerance
    if options.records:
        played = evaluating.Played(*playing.read_played(Path(options.records)))
        # What is not given is as it was when they were played, so that the same report comes out.
        seed = (played.settings["session_seed"] or 0) if options.seed is None else options.seed
        if not any(item.partition("=")[0].strip() == "tolerance" for item in options.set):
            tolerance = played.settings.get("tolerance", tolerance)
    else:
        wanted, ablated = systems.list_systems(options.systems), ablations.list_ablations(options.ablations)
        with show_progress() as progress:
            bar = progress.add_task("sessions", total=len(found) * (len(wanted) + len(ablated)))

            def show(name: str, record: Mapping[str, Any]) -> None:
                progress.advance(bar)
                if record["error"]:
                    print(f"{name}: {record['id']} failed: {record['error']}", file=sys.stderr)

            played = evaluating.play(
                engine=engine,
                scenarios=found,
                systems=wanted,
                ablated=ablated,
                out=out / "records",
                settings=settings,
                turns=options.turns,
                seed=seed,
                concurrency=options.concurrency,
                patient=options.patient,
                users=cast_users(options.users, options.user_model, engine),
                judge=judge,
                files=files,
                on_record=show,
            )
    report = evaluating.evaluate(
        played,
        engine=engine,
        scenarios=found,
        files=files,
        tolerance=tolerance,
        seed=seed,
        desired_by=options.desired,
        judge=judge,
        rate=rate,
        rater=options.judge_model,
        command=["empathy-agent", *options.given],
    )
    _write(out, report)
    if options.transcripts:
        from empathy_agent.evaluation.transcripts import write_transcripts

        text = write_transcripts(report, list(played.systems)[-1])
        try:
            Path(options.transcripts).write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"cannot write {options.transcripts}: {error}") from error
    return _show_report(out, report)


def _load_rater(name: str, out: Path) -> Any:
    from empathy_agent.evaluation.remembering import remember
    from empathy_agent.generative_judge import judge_replies

    return remember(out / "ratings.jsonl", name, partial(judge_replies, load_chat_model(name, "--judge-model")))


def _write(out: Path, report: dict[str, Any]) -> None:
    """Writes the three files, each beside its place and then moved there."""
    from empathy_agent.evaluation.page import write_page
    from empathy_agent.evaluation.reading_tables import write_files
    from empathy_agent.evaluation.summary import write_summary

    texts = {
        "report.json": json.dumps(report, ensure_ascii=False) + "\n",
        "report.md": write_summary(report),
        "report.html": write_page(report),
    }
    try:
        write_files(out, texts)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}") from error


def _show_report(out: Path, report: dict[str, Any]) -> int:
    from empathy_agent.evaluation.summary import show, show_interval

    for name, system in report["systems"].items():
        reduced = f", gap reduction {show(system['gap_reduction'], 1, share=True)}" if name != "base" else ""
        gap = show_interval(system["mean_abs_gap"], system["mean_abs_gap_interval"])
        print(f"{name}: absolute gap {gap}{reduced}, {system['judged']} replies, {system['failed']} failed")
    for name in report["judges"]:
        card = report["judge_cards"].get(name)
        if card and card["independent"] is False:
            print(f"empathy-agent: the {name} judge is not independent: {'; '.join(card['reasons'])}", file=sys.stderr)
    print(f"report in {out / 'report.md'}, report.json and report.html", file=sys.stderr)
    lost = [name for name, s in report["systems"].items() if s["failed"] and s["failed"] == len(s["conversations"])]
    for name in lost:
        print(f"empathy-agent: every session of {name} failed; report.json says why", file=sys.stderr)
    return 1 if lost else 0
