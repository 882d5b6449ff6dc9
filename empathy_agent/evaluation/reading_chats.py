"""Measures the judge against people who rated the chatbot that they had talked with (iEval)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from empathy_agent import judge, need
from empathy_agent.engine import EmpathyEngine
from empathy_agent.evaluation.reading_scores import measure_spearman
from empathy_agent.evaluation.reading_section import Row, Section, on_rows
from empathy_agent.state import Assessment
from empathy_agent.turns import Turn, list_texts

if TYPE_CHECKING:
    import numpy as np

FOLDS = 10


def measure_chats(engine: EmpathyEngine, section: Section, rows: list[Row], trained: set[str]) -> None:
    """The judge against the person who chatted (iEval): its mean over a chat's replies, and what can be learned from it.

    What is learned is measured on workers that the learner has not seen. EU is "understood my emotions", ER "responded
    appropriately"; the empathy score is their mean.
    """
    import numpy as np

    flat = [
        ([Turn(role=t["role"], content=t["content"]) for t in row["turns"][:at]], turn["content"], number)
        for number, row in enumerate(rows)
        for at, turn in enumerate(row["turns"])
        if turn["role"] == "assistant"
    ]
    judged = judge_many(engine, [(turns, reply) for turns, reply, _ in flat])
    by_chat: list[list[Assessment]] = [[] for _ in rows]
    for (*_, number), assessment in zip(flat, judged, strict=True):
        by_chat[number].append(assessment)
    seen = any(row["id"] in trained for row in rows)
    note = "TRAINED ON, not cross-validated" if seen else "zero-shot; people's ratings of their own chats"
    people = [row["id"].split("/")[1].split("-")[0] for row in rows]
    ratings = {key: np.asarray([float(row["ratings"][key]) for row in rows]) for key in ("EU", "ER")}
    ratings["mean of EU and ER"] = (ratings["EU"] + ratings["ER"]) / 2
    wanted: list[tuple[str, str, Any]] = [
        ("level", "mean of EU and ER", lambda a: a["level"]),
        ("affective_understanding", "EU", lambda a: a["dimensions"]["affective_understanding"]),
        ("response_appropriateness", "ER", lambda a: a["dimensions"]["response_appropriateness"]),
    ]
    for name, rating, get in wanted:
        values = [[value for a in chat if (value := get(a)) is not None] for chat in by_chat]
        own = [i for i, given in enumerate(values) if given]
        mean = np.asarray([np.mean(values[i]) for i in own])
        score = partial(on_rows, measure_spearman, mean, ratings[rating][own])
        section.add(f"iEval, {name} and {rating}, Spearman", score, [people[i] for i in own], note)
    if len(set(people)) < FOLDS:
        return
    learned = fit_unseen_people(build_chat_features(engine, rows, by_chat), ratings["mean of EU and ER"], people)
    score = partial(on_rows, measure_spearman, learned, ratings["mean of EU and ER"])
    section.add(
        "iEval, learned from the judge and the words, and mean of EU and ER, Spearman",
        score,
        people,
        f"cross-validated by worker, {FOLDS} folds; ridge, support vectors and trees",
    )


def build_chat_features(
    engine: EmpathyEngine, rows: Sequence[Row], by_chat: Sequence[Sequence[Assessment]]
) -> np.ndarray:
    """Features of each chat: its replies as the judge reads them and by form, the person's need, and embeddings of both sides."""
    import numpy as np

    features = []
    for row, assessments in zip(rows, by_chat, strict=True):
        turns = [Turn(role=turn["role"], content=turn["content"]) for turn in row["turns"]]
        said, answered = (list_texts(turns, role) for role in ("user", "assistant"))
        judged = [
            [a["level"], *((value or 3) / 5 for value in a["dimensions"].values()), *a["mechanisms"].values()]
            for a in assessments
        ]
        form = [judge.measure_form(text) for text in (*answered, *said)]
        inputs = [
            need.build_features(engine.encoder, turns[: at + 1]) for at, t in enumerate(turns) if t["role"] == "user"
        ]
        needed = np.concatenate([group.mean for group in engine.heads["need"].read(np.stack(inputs)).values()], axis=1)
        users, replies = engine.encoder.encode(said), engine.encoder.encode(answered)
        close = float(np.mean([u @ r for u, r in zip(users, replies, strict=False)]))
        whole = [close, len(set(answered)) / len(answered), len(said)]
        reads = [*_ends(judged), *_ends(needed), np.mean(form[: len(answered)], 0), *_ends(form[len(answered) :])]
        features.append(np.concatenate([whole, *reads, *_ends(replies), *_ends(users)]))
    return np.stack(features).astype(np.float32)


def _ends(rows: Any) -> list[np.ndarray]:
    """Mean and last of some rows of numbers."""
    import numpy as np

    return [np.mean(rows, axis=0), np.asarray(rows[-1])]


def fit_unseen_people(features: np.ndarray, ratings: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Predicts each rating by learners that saw no chat of the same person: the mean of three, standardized."""
    import numpy as np
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    found = np.zeros(len(ratings))
    for train, test in GroupKFold(FOLDS).split(features, ratings, people):
        learners = (
            make_pipeline(StandardScaler(), Ridge(2000.0)),
            make_pipeline(StandardScaler(), SVR()),
            ExtraTreesRegressor(400, min_samples_leaf=3, max_features=0.3, random_state=0, n_jobs=1),
        )
        for learner in learners:
            guess = learner.fit(features[train], ratings[train]).predict(features[test])
            found[test] += (guess - guess.mean()) / guess.std()
    return found


def judge_many(engine: EmpathyEngine, cases: list[tuple[list[Turn], str]]) -> list[Assessment]:
    """Judges each reply; texts are encoded in full batches beforehand, in parts that the encoder remembers."""
    found = []
    for start in range(0, len(cases), 1024):
        part = cases[start : start + 1024]
        engine.encoder.encode([text for turns, reply in part for text in (*(t["content"] for t in turns), reply)])
        found += [judge.judge_reply(engine.heads["judge"], engine.encoder, turns, reply) for turns, reply in part]
    return found
