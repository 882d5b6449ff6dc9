"""Evaluates systems: plays them, judges what was said, measures. The command line is a thin shell over these two functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.content import find_weights
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.evaluation import ablations, cards, judging, playing
from empathy_agent.evaluation.report import build_report
from empathy_agent.evaluation.scenarios import Scenario, hash_files
from empathy_agent.evaluation.systems import System, build_app, get_played_settings, picks_among_drafts
from empathy_agent.heads import CHECK, Head
from empathy_agent.settings import Settings
from empathy_agent.simulation.resuming import describe_models

if TYPE_CHECKING:
    from empathy_agent.simulation import Users

Progress = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Played:
    """What was said.

    Attributes:
        systems: Records by system.
        ablations: Records by ablation.
        picks: Whether a system chose among its drafts with its own judge.
        settings: By what it was played, for the report.
    """

    systems: Mapping[str, playing.Records]
    ablations: Mapping[str, playing.Records]
    picks: bool
    settings: Mapping[str, Any]


def play(
    *,
    engine: EmpathyEngine,
    scenarios: Sequence[Scenario],
    systems: Sequence[System],
    out: Path,
    settings: Settings,
    ablated: Sequence[str] = (),
    turns: int | None = None,
    seed: int = 0,
    concurrency: int = 32,
    users: Users | None = None,
    patient: bool = False,
    judge: Path | None = None,
    files: Sequence[Path] = (),
    on_record: Progress = lambda name, record: None,
) -> Played:
    """Plays systems and ablations against scenarios, one after the other, their sessions at once.

    Args:
        engine: The models behind the graph.
        scenarios: From `read_scenarios`.
        systems: From `list_systems`.
        out: Folder of the records; what stands there is not played again.
        settings: Of the graph.
        ablated: Names of ablations of `experts`.
        turns: User turns at most.
        seed: Of every session.
        concurrency: Sessions at once.
        users: Who plays the simulated users; None is the local `user` adapter.
        patient: Whether simulated users stay for all turns, so that long conversations are not those of survivors only.
        judge: As `evaluate` takes it, with `files`: one that it would refuse is refused before anything is played.
        files: Where the scenarios came from.
        on_record: Called with a system's name and each record as it is written.

    Raises:
        InputError: A system cannot be built, `out` holds records that were played otherwise, or `judge` is not independent.
    """
    from empathy_agent.simulation import learned_judge, local_users

    used = {system.name: get_played_settings(system, settings) for system in systems}
    changed = {name: ablations.ablate(name, engine, settings) for name in ablated}
    own = [asdict(used[system.name]) for system in systems if system.source == "graph"]
    picks = any(map(picks_among_drafts, [*own, *(asdict(other) for _, other in changed.values())]))
    head, card = choose_judge(judge, engine, hash_files(files) if files else None, picks)
    personas = any(scenario.persona for scenario in scenarios)
    users = users or local_users(engine)
    emotion_judge = learned_judge(engine, head) if personas else None
    plan = {
        "turns": turns,
        "patient": patient,
        "session_seed": seed,
        **describe_models(engine),
        # Both have a say in how a session with a simulated user goes.
        "user": users.name if personas else None,
        "judge_sha256": card["sha256"] if personas else None,
    }

    def run(name: str, app: Callable[..., Any], source: str, given: Settings, folder: Path) -> playing.Records:
        specs = playing.list_specs(
            scenarios, app, turns=turns, seed=seed, build_user=users.build, emotion_judge=emotion_judge, patient=patient
        )
        sessions = {scenario.id: scenario.fingerprint for scenario in scenarios}
        whole = {"sessions": sessions, "source": source, "played": plan, "settings": asdict(given)}
        return playing.play_system(specs, folder / f"{name}.jsonl", whole, concurrency, partial(on_record, name))

    # Everything is built before anything is played, so that a mistake does not show after hours.
    recorded = {system.name: playing.list_recorded(scenarios, turns) for system in systems if system.source == "file"}
    apps = {
        system.name: (build_app(system, engine, settings), system.source)
        for system in systems
        if system.name not in recorded
    }
    if any(source == "graph" for _, source in apps.values()):
        engine.load()  # else the first replies would seem slow
    played = {name: run(name, app, source, used[name], out) for name, (app, source) in apps.items()}
    without = {}
    for name, (other, its) in changed.items():
        app = build_app(System("experts", "graph"), other, its)
        without[name] = run(name, app, name, its, out / playing.ABLATIONS)
    found = {**recorded, **played}
    ordered = {system.name: found[system.name] for system in systems}
    shown = used.get("experts") or next((used[n] for n in sorted(used) if n in apps), settings)
    return Played(ordered, without, picks, {**asdict(shown), **plan})


def evaluate(
    played: Played,
    *,
    engine: EmpathyEngine,
    scenarios: Sequence[Scenario] = (),
    files: Sequence[Path] = (),
    tolerance: float = 0.15,
    seed: int = 0,
    desired_by: judging.DesiredBy = "task",
    judge: Path | None = None,
    rate: Callable[[list[judging.Case]], Sequence[Any]] | None = None,
    rater: str | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Judges what was played and measures it.

    Args:
        played: From `play`, or records read from files.
        engine: Encoder, heads and task table of the readings.
        scenarios: Those that were played; their `desired` and `need` are used.
        files: Where they came from.
        tolerance: Absolute gap that still counts as met, in [0, 1].
        seed: Of resamples and tests.
        desired_by: See `judging.judge_records`.
        judge: Folder of the learned judge's head, which must be independent of what it judges; None takes the
            shipped one that chooses among no drafts (`heads/check`).
        rate: A second judge, as `judging.add_ratings` takes it.
        rater: Names the second judge's model.
        command: The command line, for the report.

    Returns:
        The report of `docs/report.md`.

    Raises:
        InputError: `judge` is not independent, or nothing was played.
    """
    if not played.systems:
        raise InputError("nothing was played: name a system")
    sha256 = hash_files(files) if files else None
    head, card = choose_judge(judge, engine, sha256, played.picks)
    by_id = {scenario.id: scenario for scenario in scenarios}
    judged: dict[str, list[dict[str, Any]]] = {}
    groups = {**played.systems, **played.ablations}
    if len(groups) < len(played.systems) + len(played.ablations):
        raise InputError("a system has the name of an ablation: give it another")
    for name, records in groups.items():
        judged[name] = judging.judge_records(
            records,
            engine=engine,
            head=head,
            scenarios=by_id,
            desired_by=desired_by,
            tolerance=tolerance,
        )
    judge_cards = {judging.LEARNED: card}
    if rate:
        for conversations in judged.values():
            judging.add_ratings(conversations, judging.GENERATIVE, rate)
        judge_cards[judging.GENERATIVE] = {
            "name": rater,
            "sha256": None,
            "saw": None,
            "independent": None,
            "reasons": [],
        }
    every = [conversation for conversations in judged.values() for conversation in conversations]
    tasks = sorted({conversation["task"] for conversation in every if conversation["task"]})
    return build_report(
        systems={name: judged[name] for name in played.systems},
        ablations={name: judged[name] for name in played.ablations},
        judges=judging.list_rated(every),
        tolerance=tolerance,
        seed=seed,
        facts={
            "command": list(command),
            "settings": {
                **played.settings,
                "desired_by": desired_by,
                "ablations": {name: ablations.ABLATIONS.get(name, "") for name in played.ablations},
            },
            "scenarios": _describe(scenarios, files, sha256, played),
            "judge_cards": judge_cards,
            "tasks": {task: {"desired": engine.tasks.get(task).desired} for task in tasks},
        },
    )


def choose_judge(
    judge: Path | None, engine: EmpathyEngine, scenarios_sha256: str | None, picks: bool
) -> tuple[Head, dict[str, Any]]:
    """Loads the learned judge with its card: the one that is given, which must be independent, or the shipped one.

    Raises:
        InputError: `judge` holds no head, or took part in what it would judge.
    """
    folder = judge or find_weights("heads") / CHECK
    adapters = Path(engine.adapters) if engine.adapters else None if engine.model else find_weights("experts")
    head = cards.load_judge(folder, engine)
    picker = engine.heads["judge"] if picks else None
    card = cards.write_card(folder, head, scenarios_sha256=scenarios_sha256, picker=picker, adapters=adapters)
    if judge is not None:
        cards.check_independent(card)
    return head, card


def _describe(
    scenarios: Sequence[Scenario], files: Sequence[Path], sha256: str | None, played: Played
) -> dict[str, Any]:
    kind = "records" if not scenarios else "personas" if scenarios[0].persona else "scripted"
    ids = {record["id"] for records in played.systems.values() for record in records}
    lengths = [
        sum(turn["role"] == "user" for turn in record["turns"])
        for records in played.systems.values()
        for record in records
    ]
    return {
        "file": ", ".join(path.name for path in files) or None,
        "sha256": sha256,
        "kind": kind,
        "conversations": len(ids),
        "turns": max(lengths, default=0),
    }
