"""Gathers labelled examples for the heads from the written conversations and from public text.

The maps from public labels to ours are data at the top of this file; a label that maps to nothing is left out.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.training.corpus import list_conversations, read_conversations
from empathy_agent.turns import Turn

# EmpatheticDialogues and GoEmotions to the emotions of need.PARTS; ambiguous ones ("surprised", "caring") are left out.
EMOTIONS = {
    "afraid": "anxiety", "angry": "anger", "annoyed": "frustration", "anxious": "anxiety", "apprehensive": "anxiety",
    "ashamed": "shame", "devastated": "grief", "disappointed": "disappointment", "embarrassed": "shame", "excited": "joy",
    "furious": "anger", "grateful": "gratitude", "guilty": "guilt", "hopeful": "hope", "joyful": "joy", "lonely": "loneliness",
    "proud": "pride", "sad": "sadness", "terrified": "anxiety", "content": "relief", "anticipating": "hope",
    "neutral": "neutral", "curiosity": "curiosity", "amusement": "amusement", "joy": "joy", "gratitude": "gratitude",
    "pride": "pride", "optimism": "hope", "relief": "relief", "surprise": "surprise", "confusion": "confusion",
    "annoyance": "frustration", "anger": "anger", "disappointment": "disappointment", "sadness": "sadness", "grief": "grief",
    "fear": "anxiety", "nervousness": "anxiety", "embarrassment": "shame", "remorse": "guilt", "excitement": "joy",
}  # fmt: skip
TROUBLED = {"afraid", "angry", "annoyed", "anxious", "apprehensive", "ashamed", "devastated", "disappointed", "embarrassed",
            "furious", "guilty", "jealous", "lonely", "sad", "terrified"}  # fmt: skip
SOURCE_TASKS = {
    "redial_valtest": "movie_recommendation",
    "multiwoz_valtest": "travel_planning",
    "cucom_ecommerce": "customer_support",
    "bridge_tutoring": "tutoring",
    "dolly_open_qa": "information_seeking",
    "empatheticdialogues": "therapy",
    "synthetic_persona_chat": "unknown",
    "taskmaster4": "unknown",
    "chitchat_personas": "unknown",
}
INTENT_TASKS = {
    "book_flight": "travel_planning", "book_hotel": "travel_planning", "travel_suggestion": "travel_planning",
    "travel_alert": "travel_planning", "international_visa": "travel_planning", "car_rental": "travel_planning",
    "flight_status": "travel_planning", "carry_on": "travel_planning", "vaccines": "travel_planning",
    "lost_luggage": "customer_support", "damaged_card": "customer_support", "report_lost_card": "customer_support",
    "report_fraud": "customer_support", "card_declined": "customer_support", "account_blocked": "customer_support",
    "order_status": "customer_support", "replacement_card_duration": "customer_support", "definition": "information_seeking",
    "fun_fact": "information_seeking",
}  # fmt: skip
SKIPPED_INTENTS = {"exchange_rate", "nutrition_info", "calories", "oil_change_how", "jump_start", "what_song"}
PER_SOURCE = 1200  # public examples of one source at most
PER_UNKNOWN = 400  # the same for a source of `unknown`, so that it does not become the answer to everything
GREETING = re.compile(
    r"\b(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|how (?:are|r) (?:you|u)(?: doing)?(?: today)?|there|thanks?)\b",
    re.IGNORECASE,
)
PEERS = 4  # times that replies of peers are read, the only ones that are not an assistant's
SHORTEST = 4  # words of a public first message that may stand for a task: "hello" says nothing of films


@dataclass(frozen=True)
class Example:
    """A conversation up to a user turn, the reply to judge if any, and its labels by group.

    `primary` examples were written and labelled for their head; the others (public text, ordinary turns as examples of no
    danger) only fill a fixed share of every batch, so that their number does not drown the primary ones.
    """

    turns: list[Turn]
    labels: dict[str, Any]
    source: str
    split: str
    reply: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    primary: bool = True

    def list_texts(self) -> list[str]:
        """Every text that features may need."""
        return [turn["content"] for turn in self.turns] + ([self.reply] if self.reply else [])


def list_examples(conversations: Path, data: Path | None, labels: Path | None, seed: int) -> dict[str, list[Example]]:
    """Gathers the examples of every head."""
    rng = random.Random(seed)
    examples: dict[str, list[Example]] = {"task": [], "need": [], "danger": [], "judge": []}
    written = list_conversations(conversations)
    for conversation in written:
        for name, example in _read_conversation(conversation):
            examples[name].append(example)
    examples["task"] += _change_subject(written, rng)
    plain = tomllib.loads(Path(__file__).with_name("first_messages.toml").read_text(encoding="utf-8"))
    openings = [(task, text) for task, texts in plain.items() for text in texts]
    for task, text in openings * 3:  # few, and what a user types first
        examples["task"].append(Example(_say(text), {"task": task}, text, "train"))
    for row in _read_rows(conversations / "unknown.jsonl"):
        examples["task"].append(Example(_say(row["text"]), {"task": "unknown"}, row["id"], row["split"]))
    for row in _read_rows(conversations / "screening.jsonl"):
        turns = [*row["context"], *_say(row["text"])]
        extra = {"manner": row["manner"]}
        examples["danger"].append(Example(turns, {"danger": row["category"]}, row["id"], row["split"], extra=extra))
    for row in _read_rows(conversations / "peers.jsonl") * PEERS:
        for reply in row["replies"]:
            rated = _label_reply(reply)
            examples["judge"].append(Example(_say(row["text"]), rated, row["id"], row["split"], reply["content"]))
    if data:
        for name, example in _read_public(data, rng):
            examples[name].append(example)
    if labels:
        for name, example in _read_labels(labels, rng):
            examples[name].append(example)
    return examples


def _change_subject(written: list[dict[str, Any]], rng: random.Random) -> Iterator[Example]:
    """The first message of each training conversation after the first messages of one of another task."""
    train = [c for c in written if c["split"] == "train"]
    for conversation in train:
        other = rng.choice([c for c in train if c["task"] != conversation["task"]])
        before = [Turn(role=turn["role"], content=turn["content"]) for turn in other["turns"][: 2 * rng.randint(1, 3)]]
        said = _say(conversation["turns"][0]["content"])
        yield Example([*before, *said], {"task": conversation["task"]}, conversation["id"], "train")


def _read_conversation(conversation: dict[str, Any]) -> Iterator[tuple[str, Example]]:
    turns, source, split = conversation["turns"], conversation["id"], conversation["split"]
    plain = [Turn(role=turn["role"], content=turn["content"]) for turn in turns]
    users = 0
    for at, turn in enumerate(turns):
        before = plain[:at]
        if turn["role"] == "user":
            users += 1
            said = plain[: at + 1]
            if users <= 5 or users % 3 == 0:
                yield "task", Example(said, {"task": conversation["task"]}, source, split, extra={"users": users})
            need = {"need": [turn["need"]], "emotion": turn["emotion"]}
            yield "need", Example(said, need, source, split, extra={"cause": turn["cause"]})
            if turn["need"] < 0.9:
                yield "danger", Example(said, {"danger": "none"}, source, split, primary=False)
            continue
        pair = f"{source}/{at}"
        yield "judge", Example(before, _label_reply(turn["empathy"]), source, split, turn["content"], {"pair": pair})
        for contrast in turn.get("contrasts", []):
            extra = {"pair": pair, "fault": contrast["fault"]}
            yield "judge", Example(before, _label_reply(contrast["empathy"]), source, split, contrast["content"], extra)


def _label_reply(empathy: dict[str, Any]) -> dict[str, Any]:
    labels = {
        "level": [empathy["level"]],
        "mechanisms": [empathy["mechanisms"][name] / 2 for name in MECHANISMS],
    }
    if "dimensions" not in empathy:  # plain conversations are not rated by dimension
        return labels
    rated = [empathy["dimensions"][name] for name in DIMENSIONS]
    return labels | {
        "dimensions": [-1.0 if value is None else (value - 1) / 4 for value in rated],
        "applies": [float(value is not None) for value in rated],
    }


def _read_public(folder: Path, rng: random.Random) -> Iterator[tuple[str, Example]]:
    for name, task in SOURCE_TASKS.items():
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            continue
        rows = list(read_conversations(path))
        most = PER_UNKNOWN if task == "unknown" else PER_SOURCE * (3 if name == "empatheticdialogues" else 1)
        for row in rng.sample(rows, min(most, len(rows))):
            users = [turn["content"] for turn in row["turns"] if turn["role"] == "user"]
            if not users:
                continue
            while task != "unknown" and len(users) > 1 and len(GREETING.sub("", users[0]).split()) < SHORTEST:
                users = users[1:]
            emotion = row.get("emotion")
            if emotion in EMOTIONS:
                yield "need", Example(_say(users[0]), {"emotion": EMOTIONS[emotion]}, row["id"], "train", primary=False)
            if name == "empatheticdialogues":
                yield "danger", Example(_say(users[0]), {"danger": "none"}, row["id"], "train", primary=False)
                if emotion not in TROUBLED:
                    continue
            if task != "unknown" and len(GREETING.sub("", users[0]).split()) < SHORTEST:
                continue
            first = [Turn(role="user", content=text) for text in users[: rng.choice((1, 1, 2))]]
            yield "task", Example(first, {"task": task}, row["id"], "train", primary=False)


def _read_labels(folder: Path, rng: random.Random) -> Iterator[tuple[str, Example]]:
    intents = [row for row in _read_rows(folder / "clinc150_small.jsonl") if row["intent"] not in SKIPPED_INTENTS]
    for row in rng.sample(intents, min(PER_SOURCE, len(intents))):
        task = INTENT_TASKS.get(row["intent"], "unknown")
        yield "task", Example(_say(row["text"]), {"task": task}, row["text"], "train", primary=False)
    comments = [row for row in _read_rows(folder / "goemotions_dev.jsonl") if len(row["emotions"]) == 1]
    for row in comments:
        if (emotion := EMOTIONS.get(row["emotions"][0])) and (emotion != "neutral" or rng.random() < 0.5):
            yield "need", Example(_say(row["text"]), {"emotion": emotion}, row["text"], "train", primary=False)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.is_file() else []


def _say(text: str) -> list[Turn]:
    return [Turn(role="user", content=text)]
