"""Lets the experts answer the turns of written conversations, once and best of n, and measures what they write.

The histories are the written ones, so that one odd reply does not spoil the next; `evaluate` measures whole conversations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.language import measure_repetition
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of
from empathy_agent.graph import build_graph
from empathy_agent.honesty import find_violations
from empathy_agent.judge import judge_reply
from empathy_agent.settings import Settings
from empathy_agent.tasks import Tasks
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from empathy_agent.heads import Head

TURNS = (1, 3, 7)  # indexes of the replies that are written anew: the first, the second, and one in the middle
TOGETHER = 32
NEAR = 0.1  # of the desired level
RECENT = 4  # turns of a history that say what it is about
ENDS = (".", "!", "?", ")", '"', "”", ":")


def list_cases(conversations: Sequence[Row], tasks: Tasks) -> Iterator[Row]:
    """A case for every reply that is to be written: history, the level its task desires, the expert, the written contrasts."""
    for conversation in conversations:
        for at in TURNS:
            if at < len(conversation["turns"]):
                turn = conversation["turns"][at]
                yield {
                    "id": conversation["id"],
                    "at": at,
                    "task": conversation["task"],
                    "expert": conversation["expert"],
                    "desired": tasks.get(conversation["task"]).desired,
                    "written": turn["empathy"]["level"],
                    "contrasts": [contrast["content"] for contrast in turn.get("contrasts", [])],
                    "history": [Turn(role=t["role"], content=t["content"]) for t in conversation["turns"][:at]],
                }


def write_replies(engine: EmpathyEngine, cases: Sequence[Row], candidates: int, seed: int) -> list[str | None]:
    """Answers each case through the graph, by its own expert at the desired level; None where the crisis screen answered."""
    graph = build_graph(engine=engine).compile()

    def answer(case: Row) -> str | None:
        settings = Settings(
            expert=case["expert"], level=case["desired"], candidates=candidates, max_revisions=0, seed=seed
        )
        state = graph.invoke({"messages": case["history"]}, context=settings)
        return str(state["messages"][-1].text) if state["route"] == "adapter" else None

    with ThreadPoolExecutor(TOGETHER) as threads:
        return list(threads.map(answer, cases))


def measure_replies(
    engine: EmpathyEngine, judge: Head, cases: Sequence[Row], replies: Sequence[str | None], name: str, seed: int
) -> Section:
    """Levels by expert, choice against the written contrasts, topic and language of `replies`.

    Args:
        engine: Encoder and task table.
        judge: Head of a judge that did not choose among these replies.
        cases: From `list_cases`.
        replies: From `write_replies`.
        name: Of the section.
        seed: Of the bootstrap, and of the other history that a reply's topic is compared with.
    """
    import numpy as np

    section, encoder, rng = Section(name, seed), engine.encoder, random.Random(seed)
    rows = [{**case, "reply": reply} for case, reply in zip(cases, replies, strict=True) if reply is not None]
    engine.encoder.encode([row["reply"] for row in rows])
    ids = [row["id"] for row in rows]
    levels = np.asarray([_judge(judge, engine, row, row["reply"]) for row in rows])
    owners = np.asarray([row["expert"] for row in rows])
    means: list[tuple[float, float]] = []
    for expert in dict.fromkeys(owners.tolist()):
        own = np.flatnonzero(owners == expert)
        desired = float(np.mean([rows[i]["desired"] for i in own]))
        found = section.add(
            f"perceived level, {expert}", mean_of(levels[own]), [ids[i] for i in own], f"{desired:.3f} desired"
        )
        means.append((desired, found.value or 0.0))
    means.sort()
    ordered = all(a[1] < b[1] for a, b in pairwise(means))
    near = all(abs(found - desired) <= NEAR for desired, found in means)
    section.add("levels strictly ordered as desired", mean_of(np.asarray([ordered])), ["all"])
    section.add(f"each within {NEAR} of what is desired", mean_of(np.asarray([near])), ["all"])
    pairs = [(i, contrast) for i, row in enumerate(rows) for contrast in row["contrasts"]]
    better = np.asarray(
        [
            abs(levels[i] - rows[i]["written"]) < abs(_judge(judge, engine, rows[i], contrast) - rows[i]["written"])
            for i, contrast in pairs
        ]
    )
    section.add(
        "nearer to the level of the written reply than its contrast",
        mean_of(better),
        [ids[i] for i, _ in pairs],
        "judge",
    )
    others = [rng.choice([other for other in rows if other["id"] != row["id"]]) for row in rows]
    topics = np.asarray(
        [
            float(a @ r > b @ r)
            for r, a, b in (
                encoder.encode([row["reply"], _join(row["history"]), _join(other["history"])])
                for row, other in zip(rows, others, strict=True)
            )
        ]
    )
    section.add("nearer to its own history than to a random one", mean_of(topics), ids, "encoder")
    section.add("ends by itself", mean_of(np.asarray([row["reply"].rstrip()[-1:] in ENDS for row in rows])), ids)
    dishonest = np.asarray([bool(find_violations(row["reply"])) for row in rows])
    section.add("claims to be human or to feel", mean_of(dishonest), ids)
    repeated = np.asarray([measure_repetition([row["reply"]]) or 0.0 for row in rows])
    section.add("repeats its own words", mean_of(repeated), ids, "share of 4-word pieces")
    section.errors[name] = list_worst(
        [{**row, "text": row["reply"]} for row in rows],
        "error",
        lambda row: (row["desired"], _round(judge, engine, row), abs(_round(judge, engine, row) - row["desired"])),
    )
    return section


def _judge(judge: Head, engine: EmpathyEngine, case: Row, reply: str) -> float:
    return judge_reply(judge, engine.encoder, case["history"], reply)["level"]


def _round(judge: Head, engine: EmpathyEngine, row: Row) -> float:
    return round(_judge(judge, engine, row, row["reply"]), 3)


def _join(history: Sequence[Turn]) -> str:
    return "\n".join(turn["content"] for turn in history[-RECENT:])
