"""The cases that readings are measured on: the written test split, and real people's words from public files.

What `train heads` learned from is found by asking it for its examples, so that a public conversation is measured on only where it
was kept out, or is marked. Loads no model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError
from empathy_agent.synthesis.corpus import SINGLES, read_rows
from empathy_agent.training.labels import SHORTEST, TROUBLED, list_examples
from empathy_agent.turns import Turn

Row = dict[str, Any]
SOURCES = {  # public file: the task that its people came for
    "redial_valtest": "movie_recommendation",
    "multiwoz_valtest": "travel_planning",
    "cucom_ecommerce": "customer_support",
    "bridge_tutoring": "tutoring",
    "empatheticdialogues": "therapy",  # those of a troubled emotion only
    "esconv_dev": "therapy",
}
PER_SOURCE = 300  # messages of one source
FEWEST = 30  # kept-out messages below which a source is measured on all of its messages, and marked
TRAINED_SEED = 0  # of the shipped heads
USERS = ("user", "seeker")
GREETINGS = re.compile(
    r"(?:(?:hi|hello|hey|heya|hiya|howdy|yo|greetings|good|morning|afternoon|evening|day|night|there|everyone|friend|sir|madam|mam"
    r"|how|are|you|u|r|doing|today|is|it|going|your|weekend|things|ok|okay|fine|great|well|i'?m|i|am|and|thanks|thank|whats|up|sup"
    r"|nice|to|meet|what|about|yourself|been)[^a-z]+)+"
)


@dataclass(frozen=True)
class FirstMessage:
    """What a real person first said that says something; `seen` where the heads were trained on its conversation."""

    id: str
    source: str
    task: str
    text: str
    seen: bool


@dataclass(frozen=True)
class Source:
    """How the first messages of a public file were found."""

    name: str
    task: str
    conversations: int
    greetings: int
    short: int
    silent: int
    held_out: int
    seen: bool
    messages: list[FirstMessage]


def read_written(folder: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """The test split: conversations, messages of no task, messages for the crisis screen.

    Raises:
        InputError: The folder holds no test conversation, or a line cannot be read.
    """
    files = sorted(folder.glob("*.jsonl"))
    rows = {path.stem: [row for row in read_rows(path) if row.get("split") == "test"] for path in files}
    conversations = [row for name, found in rows.items() if name not in SINGLES for row in found]
    if not conversations:
        raise InputError(f"no conversations of the test split in {folder}: give conversations/ of the repository")
    return conversations, rows.get("unknown", []), rows.get("screening", [])


def list_trained(conversations: Path, data: Path | None, labels: Path | None) -> set[str]:
    """The ids of every conversation and text that `train heads` learns from, with the seed of the shipped heads."""
    examples = list_examples(conversations, data, labels, TRAINED_SEED)
    return {e.source for rows in examples.values() for e in rows if e.split == "train"}


def list_sources(data: Path | None, unseen: Path | None, trained: set[str]) -> Iterator[Source]:
    """The sources that the folders hold, each with at most `PER_SOURCE` first messages, chosen by the hash of their ids."""
    for name, task in SOURCES.items():
        paths = [folder / f"{name}.jsonl" for folder in (data, unseen) if folder]
        if path := next((path for path in paths if path.is_file()), None):
            yield find_first_messages(name, task, read_rows(path), trained)


def find_first_messages(name: str, task: str, rows: list[Row], trained: set[str]) -> Source:
    """Finds each conversation's first message that is no greeting and has `SHORTEST` words; counts what is passed over."""
    found, greetings, short, silent, asked = [], 0, 0, 0, 0
    for row in rows:
        if row.get("emotion") and name == "empatheticdialogues" and row["emotion"] not in TROUBLED:
            continue
        asked += 1
        for text in list_user_texts(row):
            if is_greeting(text):
                greetings += 1
            elif len(text.split()) < SHORTEST:
                short += 1
            else:
                found.append(FirstMessage(row["id"], name, task, text, row["id"] in trained))
                break
        else:
            silent += 1
    learned = {message.text for message in found if message.seen}
    kept_out = [message for message in found if message.text not in learned]
    marked = len(kept_out) < FEWEST
    chosen = sorted(found if marked else kept_out, key=lambda m: hashlib.sha256(m.id.encode()).digest())[:PER_SOURCE]
    return Source(name, task, asked, greetings, short, silent, len(kept_out), marked, chosen)


def list_user_texts(row: Row) -> list[str]:
    """What the person of a public conversation said, oldest first."""
    return [turn.get("content") or turn.get("text", "") for turn in row["turns"] if turn["role"] in USERS]


def is_greeting(text: str) -> bool:
    """Whether a message only greets, thanks or assents.

    >>> is_greeting("Hi, how are you doing today?"), is_greeting("Hi, any good films?"), is_greeting("16")
    (True, False, False)
    """
    return bool(GREETINGS.fullmatch(re.sub(r"^[^a-z]+", "", text.lower().replace("’", "'")) + "."))


def say(text: str) -> list[Turn]:
    """A conversation of one user turn."""
    return [Turn(role="user", content=text)]
