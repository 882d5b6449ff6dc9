"""Measures every reading, through the functions that the graph calls, on conversations that it was not trained on.

Figures carry a 95 % interval by a bootstrap over conversations. Written conversations are labelled by their writers; public
ones by what their people came for, or by people's ratings. `reading_tables.py` writes what is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from empathy_agent import judge, need, recognition, safety
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation import reading_cases as cases
from empathy_agent.evaluation.assessing import encode_ahead
from empathy_agent.evaluation.reading_judge import measure_generative_judge, measure_judge
from empathy_agent.evaluation.reading_safety import measure_safety
from empathy_agent.evaluation.reading_scores import measure_spearman
from empathy_agent.evaluation.reading_section import Row, Section, list_worst, mean_of, on_rows
from empathy_agent.evaluation.reading_tasks import measure_tasks
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

TOGETHER = 32  # conversations that are encoded in one go


def measure_readings(
    engine: EmpathyEngine,
    *,
    conversations: Path,
    data: Path | None = None,
    labels: Path | None = None,
    unseen: Path | None = None,
    seed: int = 0,
    chat_model: BaseChatModel | None = None,
    pairs: int = 50,
    on_step: Callable[[str], None] = lambda name: None,
) -> Row:
    """Measures task, need, judge and crisis screen.

    Args:
        engine: The encoder, heads and task table that are measured.
        conversations: Folder of the written conversations; their test split is used.
        data: Folder of public conversations, for real people's first messages.
        labels: Folder of public labelled texts, for chats that people rated.
        unseen: Folder of public texts that nothing is trained on.
        seed: Seed of the bootstrap.
        chat_model: Judges some replies as well (`generative_judge.py`), or None. The written texts are sent to it.
        pairs: How many pairs of reply and contrast it judges.
        on_step: Called with the name of each step as it begins.

    Returns:
        `sections` by reading, each with `figures` ({measure, value, low, high, rows, groups, note}), `errors` and `curves`;
        `confusion` of the tasks; `sources` of the public first messages.
    """
    written, unknown, screening = cases.read_written(conversations)
    on_step("what the heads were trained on")
    trained = cases.list_trained(conversations, data, labels)
    on_step("conversations")
    read = read_conversations(engine, written)
    on_step("first messages")
    sources = list(cases.list_sources(data, unseen, trained))
    tasks, confusion = measure_tasks(engine, read["task"], unknown, sources, seed)
    on_step("need")
    needs = measure_needs(read["need"], seed)
    on_step("judge")
    judged = measure_judge(engine, read["reply"], labels, unseen, trained, seed)
    on_step("crisis screen")
    screened = measure_safety(engine, screening, read["ordinary"], seed)
    described = [
        {key: value for key, value in vars(s).items() if key != "messages"} | {"measured": len(s.messages)}
        for s in sources
    ]
    sections = [tasks, needs, judged, screened]
    if chat_model is not None:
        on_step("generative judge")
        sections.insert(3, measure_generative_judge(chat_model, read["reply"], pairs, seed))
    return {
        "seed": seed,
        "sections": {s.name: {"figures": s.figures, "errors": s.errors, "curves": s.curves} for s in sections},
        "confusion": confusion,
        "sources": described,
    }


def read_conversations(engine: EmpathyEngine, conversations: Sequence[Row]) -> dict[str, list[Row]]:
    """Reads every turn of written conversations as the graph does, contrasts as other replies to the same history."""
    heads, encoder = engine.heads, engine.encoder
    found: dict[str, list[Row]] = {"task": [], "need": [], "reply": [], "ordinary": []}
    for start in range(0, len(conversations), TOGETHER):
        part = conversations[start : start + TOGETHER]
        turns = [turn for conversation in part for turn in conversation["turns"]]
        answers = [t["content"] for t in turns if t["role"] == "assistant"]
        answers += [c["content"] for t in turns for c in t.get("contrasts", [])]
        encode_ahead(engine, [t["content"] for t in turns if t["role"] == "user"], answers)
        ordinary = []
        for conversation in part:
            base = {"id": conversation["id"], "task": conversation["task"]}
            plain = [Turn(role=t["role"], content=t["content"]) for t in conversation["turns"]]
            standing, users, target = None, 0, 0.0
            for at, turn in enumerate(conversation["turns"]):
                said = plain[: at + 1]
                row = base | {"at": at, "text": turn["content"]}
                if turn["role"] == "user":
                    users += 1
                    if users <= 3:
                        task = recognition.recognize_task(heads["task"], engine.encoders["task"], said, standing)
                        standing = task["label"]
                        alone = heads["task"].read(engine.encoders["task"].encode([recognition.write_view(said)]))[
                            "task"
                        ]
                        guess = alone.labels[int(alone.mean[0].argmax())]
                        found["task"].append(row | {"users": users, "found": task, "alone": guess})
                    read = need.read_need(heads["need"], encoder, said)
                    target = need.choose_target(engine.tasks.get(conversation["task"]), read, 0)
                    alone = heads["need"].read(need.build_features(encoder, said)[None])["need"]
                    row |= {"need": turn["need"], "emotion": turn["emotion"], "found": read}
                    found["need"].append(row | {"alone": float(alone.mean[0, 0])})
                    if turn["need"] < 0.9:  # the deepest need may be danger, and has no label for it
                        ordinary.append((row, said))
                    continue
                replies = [{"content": turn["content"], "empathy": turn["empathy"], "fault": None}]
                for reply in [*replies, *turn.get("contrasts", [])]:
                    assessment = judge.judge_reply(heads["judge"], encoder, plain[:at], reply["content"])
                    given = {"text": reply["content"], "fault": reply["fault"], "label": reply["empathy"]}
                    given |= {"history": plain[:at]}
                    found["reply"].append(row | given | {"found": assessment, "target": target})
        screened = safety.screen_turns(heads["danger"], engine.encoders["danger"], [said for _, said in ordinary])
        found["ordinary"] += [row | {"found": safe} for (row, _), safe in zip(ordinary, screened, strict=True)]
    return found


def measure_needs(rows: list[Row], seed: int) -> Section:
    """Rank correlation and error of the need's level, and accuracy of the emotion, on every user turn of the test split."""
    import numpy as np

    section, ids = Section("need", seed), [row["id"] for row in rows]
    truth = np.asarray([row["need"] for row in rows])
    level = np.asarray([row["found"]["level"] for row in rows])
    alone = np.asarray([row["alone"] for row in rows])
    section.add("level, Spearman, as the graph reads", partial(on_rows, measure_spearman, level, truth), ids)
    section.add("level, Spearman, head alone", partial(on_rows, measure_spearman, alone, truth), ids)
    section.add("level, mean absolute error", mean_of(np.abs(level - truth)), ids)
    for task in sorted({row["task"] for row in rows}):
        own = [i for i, row in enumerate(rows) if row["task"] == task]
        score = partial(on_rows, measure_spearman, level[own], truth[own])
        section.add(f"level within {task}, Spearman", score, [ids[i] for i in own])
    right = np.asarray([row["found"]["emotion"] == row["emotion"] for row in rows])
    section.add("emotion, accuracy", mean_of(right), ids, f"{len(need.PARTS)} emotions")
    section.errors["need"] = list_worst(
        rows,
        "error",
        lambda row: (row["need"], row["found"]["level"], abs(row["found"]["level"] - row["need"])),
    )
    return section
