"""Lets the experts answer the turns of written conversations, once and best of n, and measures what they write.

The histories are the written ones, so that one odd reply does not spoil the next; `evaluate` measures whole conversations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

from empathy_agent.choosing import measure_miss
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.language import list_words, measure_repetition
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of
from empathy_agent.graph import build_graph
from empathy_agent.judge import judge_reply
from empathy_agent.settings import Settings
from empathy_agent.tasks import Tasks
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from empathy_agent.heads import Head

TURNS = (1, 3, 7, 15, 31)  # indexes of the replies that are written anew, from the first to one of a long conversation
TOGETHER = 32
NEAR = 0.1  # of the desired level
RECENT = 4  # turns of a history that say what it is about


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
                    "contrasts": [contrast["content"] for contrast in turn.get("contrasts", [])],
                    "history": [Turn(role=t["role"], content=t["content"]) for t in conversation["turns"][:at]],
                }


def write_replies(engine: EmpathyEngine, cases: Sequence[Row], candidates: int, seed: int) -> list[Row]:
    """Answers each case through the graph, by its own expert at the desired level.

    Returns:
        For each case its `reply`, None where another than the expert answered, such as the crisis screen, and whether it is
        `whole`, not cut off at the longest length.
    """
    graph = build_graph(engine=engine).compile()

    def answer(case: Row) -> Row:
        settings = Settings(
            expert=case["expert"], level=case["desired"], candidates=candidates, max_revisions=0, seed=seed
        )
        state = graph.invoke({"messages": case["history"]}, context=settings)
        last = state["messages"][-1]
        reply = str(last.text) if state["route"] == "adapter" else None
        return {"reply": reply, "whole": last.response_metadata.get("finish_reason") != "length"}

    with ThreadPoolExecutor(TOGETHER) as threads:
        return list(threads.map(answer, cases))


def read_replies(
    engine: EmpathyEngine, judge: Head, cases: Sequence[Row], written: Sequence[Row], seed: int
) -> list[Row]:
    """The cases that the expert answered, with what it wrote and what can be measured of each reply.

    Arguments are those of `measure_replies`.

    Returns:
        For each such case, besides what it and its reply hold: `found`, the judge's assessment; `miss`, how far that is from the
        desired level; `on_topic`, whether the reply is nearer to its own history than to that of another conversation, None
        where there is no other; `repeated`, the share of its 4-word pieces that it had said before; and `words`.
    """
    encoder, rng = engine.encoder, random.Random(seed)
    rows = [{**case, **reply} for case, reply in zip(cases, written, strict=True) if reply["reply"] is not None]
    several = len({row["id"] for row in rows}) > 1
    for row in rows:
        row["found"] = judge_reply(judge, encoder, row["history"], row["reply"])
        row["miss"] = measure_miss(row["found"], row["desired"])
        row["on_topic"] = None
        if several:
            other = rng.choice([other for other in rows if other["id"] != row["id"]])
            reply, own, away = encoder.encode([row["reply"], _join(row), _join(other)])
            row["on_topic"] = float(own @ reply) > float(away @ reply)
        row["repeated"] = measure_repetition([row["reply"]]) or 0.0
        row["words"] = len(list_words(row["reply"]))
    return rows


def measure_replies(
    engine: EmpathyEngine, judge: Head, cases: Sequence[Row], written: Sequence[Row], name: str, seed: int
) -> Section:
    """Levels by expert, choice against the written contrasts, topic and language of what was written.

    Args:
        engine: Encoder and task table.
        judge: Head of a judge that did not choose among these replies.
        cases: From `list_cases`.
        written: From `write_replies`.
        name: Of the section.
        seed: Of the bootstrap, and of the other history that a reply's topic is compared with.
    """
    import numpy as np

    section, encoder = Section(name, seed), engine.encoder
    answered = np.asarray([row["reply"] is not None for row in written])
    section.add(
        "answered by the expert", mean_of(answered), [case["id"] for case in cases], "else by the crisis screen"
    )
    rows = read_replies(engine, judge, cases, written, seed)
    ids, owners = [row["id"] for row in rows], np.asarray([row["expert"] for row in rows])
    levels = np.asarray([row["found"]["level"] for row in rows])
    misses = np.asarray([row["miss"] for row in rows])
    means: list[tuple[float, float]] = []
    for expert in dict.fromkeys(owners.tolist()):
        own = np.flatnonzero(owners == expert)
        desired = float(np.mean([rows[i]["desired"] for i in own]))
        note = f"{desired:.3f} desired"
        found = section.add(f"perceived level, {expert}", mean_of(levels[own]), [ids[i] for i in own], note)
        means.append((desired, found.value or 0.0))
    means.sort()
    ordered = all(a[1] < b[1] for a, b in pairwise(means))
    near = all(abs(found - desired) <= NEAR for desired, found in means)
    section.add("levels strictly ordered as desired", mean_of(np.asarray([ordered])), ["all"])
    section.add(f"each within {NEAR} of what is desired", mean_of(np.asarray([near])), ["all"])
    for at in TURNS:
        if own_rows := [i for i, row in enumerate(rows) if row["at"] == at]:
            section.add(f"absolute gap at reply {at // 2 + 1}", mean_of(misses[own_rows]), [ids[i] for i in own_rows])
    pairs = [(i, contrast) for i, row in enumerate(rows) for contrast in row["contrasts"]]
    better = np.asarray(
        [
            misses[i] < measure_miss(judge_reply(judge, encoder, rows[i]["history"], contrast), rows[i]["desired"])
            for i, contrast in pairs
        ]
    )
    if pairs:
        section.add("better than a contrast written for the turn", mean_of(better), [ids[i] for i, _ in pairs], "judge")
    if len(set(ids)) > 1:
        nearer = np.asarray([row["on_topic"] for row in rows])
        section.add("nearer to its own history than to a random one", mean_of(nearer), ids, "encoder")
    section.add("not cut off", mean_of(np.asarray([row["whole"] for row in rows])), ids)
    dishonest = np.asarray([bool(row["found"]["violations"]) for row in rows])
    section.add("claims to be human or to feel", mean_of(dishonest), ids)
    repeated = np.asarray([row["repeated"] for row in rows])
    section.add("repeats its own words", mean_of(repeated), ids, "share of 4-word pieces")
    section.errors[name] = list_worst(
        [{**row, "text": row["reply"]} for row in rows],
        "error",
        lambda row: (row["desired"], row["found"]["level"], row["miss"]),
    )
    return section


def _join(row: Row) -> str:
    return "\n".join(turn["content"] for turn in row["history"][-RECENT:])
