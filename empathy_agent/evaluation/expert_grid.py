"""Sweeps decoding settings over the experts on written histories, and names the best of each expert by a stated rule."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from empathy_agent.choosing import REPETITION_WEIGHT, TOPIC_WEIGHT, UNFINISHED
from empathy_agent.decoding import Decoding
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.evaluation.expert_replies import read_replies, write_replies
from empathy_agent.evaluation.reading_scores import bootstrap
from empathy_agent.evaluation.reading_section import Row, mean_of
from empathy_agent.evaluation.summary import show, write_table
from empathy_agent.tasks import SAMPLED, write_decoding

if TYPE_CHECKING:
    from empathy_agent.heads import Head

GRID: dict[str, list[Any]] = {
    "temperature": [0.0, 0.3, 0.6, 0.9],
    "top_p": [0.8, 0.95],
    "repetition_penalty": [1.0, 1.15],
}
MEASURED = ("level", "gap", "on_topic", "repeated", "words", "whole", "cost")
RULE = (
    f"The cost of a reply is its gap + {TOPIC_WEIGHT} off topic + {REPETITION_WEIGHT} × repeated + {UNFINISHED} cut off, the "
    "weights by which a reply is chosen among candidates; a dishonest reply adds 1 to its gap. The best setting is the one of "
    "least mean cost among those that cost less than the standing one with a 95 % interval, paired by reply, that lies below 0; "
    "where there is none, the standing one stays."
)


def read_grid(given: Sequence[str]) -> list[Decoding]:
    """Reads `NAME=A,B` lists into every combination of their values; nothing is `GRID`.

    Of combinations that are greedy, which draw nothing, one for each penalty is kept.

    >>> [(d.temperature, d.top_p) for d in read_grid(["temperature=0,0.6", "top_p=0.8,0.9"])]
    [(0, 0.8), (0.6, 0.8), (0.6, 0.9)]

    Raises:
        InputError: A name or a value cannot be used.
    """
    lists: dict[str, list[Any]] = {}
    for item in given:
        name, _, values = item.partition("=")
        if name not in SAMPLED:
            raise InputError(f"--grid {item!r}: write NAME=A,B with a NAME of {', '.join(SAMPLED)}")
        try:
            lists[name] = [json.loads(value) for value in values.split(",")]
        except ValueError:
            raise InputError(f"--grid {item!r}: its values must be numbers, such as {name}=0.5,1") from None
    lists = lists or GRID
    found: dict[tuple[Any, ...], Decoding] = {}
    for combined in product(*lists.values()):
        chosen: dict[str, Any] = dict(zip(lists, combined, strict=True))
        decoding = Decoding(**chosen)
        key = tuple(getattr(decoding, n) for n in SAMPLED if decoding.temperature or n != "top_p")
        found.setdefault(key, decoding)
    return list(found.values())


def sweep(
    engine: EmpathyEngine,
    judge: Head,
    cases: Sequence[Row],
    grid: Sequence[Decoding],
    *,
    candidates: int,
    seed: int,
    show_step: Callable[[str], None],
) -> dict[str, list[Row]]:
    """Answers every case once with each setting, through the graph, and measures the replies.

    Args:
        engine: Models and task table, whose decodings are the standing settings; they are measured, too.
        judge: Head of a judge that did not choose among these replies.
        cases: From `expert_replies.list_cases`.
        grid: The settings.
        candidates: Replies among which the graph chooses one.
        seed: Of sampling and bootstrap, the same for every setting.
        show_step: Told what begins.

    Returns:
        By expert a row for each setting: its values under their names, `MEASURED` as means over the expert's replies, how many
        `replies` these are, `standing` and `best`, and the `difference` of its cost to the standing one's with `low` and `high`.
    """
    engine.load()  # so that the copies share what is loaded
    experts = list(dict.fromkeys(case["expert"] for case in cases))
    standing = {expert: engine.tasks.get_decoding(expert) for expert in experts}
    answered: dict[Decoding, list[Row]] = {}
    for decoding in dict.fromkeys([*standing.values(), *grid]):
        tuned = copy.copy(engine)
        tuned.tasks = replace(engine.tasks, decodings=dict.fromkeys(engine.tasks.patterns, decoding))
        show_step(f"{len(cases)} replies, best of {candidates}, {write_decoding(decoding)}")
        answered[decoding] = read_replies(engine, judge, cases, write_replies(tuned, cases, candidates, seed), seed)
    found = {}
    for expert in experts:
        own = {decoding: [row for row in rows if row["expert"] == expert] for decoding, rows in answered.items()}
        if own[standing[expert]]:  # else the crisis screen answered every case
            found[expert] = _compare(own, standing[expert], seed)
    return found


def _compare(answered: dict[Decoding, list[Row]], standing: Decoding, seed: int) -> list[Row]:
    import numpy as np

    rows: list[Row] = []
    # The crisis screen answers the same cases under every setting, so that the others can be paired.
    usual = np.asarray([_measure_cost(row) for row in answered[standing]])
    for decoding, replies in answered.items():
        costs = np.asarray([_measure_cost(row) for row in replies])
        measured: list[Any] = [
            [row["found"]["level"] for row in replies],
            [row["miss"] for row in replies],
            [row["on_topic"] is not False for row in replies],
            [row["repeated"] for row in replies],
            [row["words"] for row in replies],
            [row["whole"] for row in replies],
            costs,
        ]
        groups = [row["id"] for row in replies]
        found = bootstrap(mean_of(costs - usual), groups, seed)
        if len(set(groups)) == 1:  # whose interval would have no width
            found = found._replace(low=None, high=None)
        rows.append(
            {name: getattr(decoding, name) for name in SAMPLED}
            | {name: round(float(np.mean(values)), 4) for name, values in zip(MEASURED, measured, strict=True)}
            | {"replies": len(replies), "desired": round(float(np.mean([row["desired"] for row in replies])), 4)}
            | {"standing": decoding == standing}
            | dict(zip(("difference", "low", "high"), (None if v is None else round(v, 4) for v in found), strict=True))
        )
    better = [row for row in rows if row["standing"] or (row["high"] is not None and row["high"] < 0)]
    best = min(better, key=lambda row: row["cost"])
    return [row | {"best": row is best} for row in rows]


def _measure_cost(row: Row) -> float:
    return float(
        row["miss"]
        + TOPIC_WEIGHT * (row["on_topic"] is False)
        + REPETITION_WEIGHT * row["repeated"]
        + UNFINISHED * (not row["whole"])
    )


def write_grid(report: Row) -> str:
    """The sweep as Markdown: a table of settings for each expert, and the line of the task table that takes over the best."""
    parts = ["# Decoding of the experts", f"`{report['command']}`", RULE]
    for expert, rows in report["experts"].items():
        head = [
            "setting",
            "level",
            "gap",
            "on topic",
            "repeated",
            "words",
            "whole",
            "cost",
            "against the standing one",
            "",
        ]
        differ = [name for name in SAMPLED if len({row[name] for row in rows}) > 1] or SAMPLED
        lines = []
        for row in rows:
            marks = [name for name in ("standing", "best") if row[name]]
            shares = {name: show(row[name], 1, share=True) for name in ("on_topic", "repeated", "whole")}
            interval = f"{show(row['difference'])} [{show(row['low'])}, {show(row['high'])}]"
            numbers = [
                show(row["level"]),
                show(row["gap"]),
                shares["on_topic"],
                shares["repeated"],
                show(row["words"], 1),
            ]
            name = ", ".join(f"{name} {row[name]:g}" for name in differ)
            lines.append([name, *numbers, shares["whole"], show(row["cost"]), interval, ", ".join(marks)])
        best = Decoding(**{name: row[name] for row in rows if row["best"] for name in SAMPLED})
        desired, count = rows[0]["desired"], rows[0]["replies"]
        parts += [f"## {expert}", f"{desired:.3f} desired, {count} replies.", write_table(head, lines)]
        parts.append(f"```toml\n[patterns.{expert}]\n{write_decoding(best)}\n```")
    return "\n\n".join(parts) + "\n"
