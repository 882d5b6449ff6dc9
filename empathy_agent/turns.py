"""The plain form of a conversation, `[{"role", "content"}]`, made from LangChain messages and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from typing_extensions import TypedDict

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LONGEST_MESSAGE = 20_000  # characters; far beyond what the encoder or a small model reads, and still quick to refuse
ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
}


# What a terminal would obey or a file could not hold: control characters but tab and newline, half characters, and the
# marks that make text run backwards.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


class Turn(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def get_turns(messages: Sequence[BaseMessage], last: int | None = None) -> list[Turn]:
    """Turns messages into user and assistant turns; tool traffic, system messages and empty texts are left out.

    With `last`, only that many turns at the end, and no message before them is looked at.
    """
    turns: list[Turn] = []
    for message in reversed(messages):
        if last is not None and len(turns) == last:
            break
        role, text = ROLES.get(message.type), str(message.text)[:LONGEST_MESSAGE]
        if (role == "user" or role == "assistant") and text.strip():
            turns.append(Turn(role=role, content=text))
    return turns[::-1]


def check_text(text: str) -> str:
    """Returns a user's text as `clean_text` leaves it, without outer white space.

    Raises:
        InputError: Nothing readable is left, or the text is longer than `LONGEST_MESSAGE` characters.
    """
    if len(text) > LONGEST_MESSAGE:
        raise InputError(
            f"the message has {len(text):,} characters: at most {LONGEST_MESSAGE:,} are allowed, shorten it"
        )
    clean = clean_text(text).strip()
    if not clean:
        raise InputError("the message is empty: write at least one readable character")
    return clean


def clean_text(text: str) -> str:
    r"""Returns a text that a terminal only shows and that every file can hold; tab and newline stay.

    Control characters (C0, DEL, C1), surrogates and bidirectional overrides (U+202A-202E) are left out.

    >>> clean_text("red \x1b[31malert\x07")
    'red [31malert'
    """
    return _UNSAFE.sub("", text)


def check_turns(turns: object) -> list[Turn]:
    """Checks turns that came from a file or a caller.

    Raises:
        InputError: Not a list of `{"role": "user" | "assistant" | "system", "content": text}` with a user turn.
    """
    if not isinstance(turns, list) or not turns:
        raise InputError("'turns' must be a list with at least one turn")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(f"turn {number} must be an object with 'role' and a text 'content'")
        if turn.get("role") not in ("user", "assistant", "system"):
            raise InputError(f"turn {number} has role {turn.get('role')!r:.60}: allowed are user, assistant, system")
        if any(0xD800 <= ord(c) < 0xE000 for c in turn["content"]):
            raise InputError(f"turn {number} holds half a character (a lone surrogate): write the file as UTF-8")
        if turn["role"] != "system" and not turn["content"].strip():
            raise InputError(f"turn {number} ({turn['role']}) is empty")
    if not any(turn["role"] == "user" for turn in turns):
        raise InputError("there is no user turn")
    return turns


def list_texts(turns: Sequence[Turn], role: str) -> list[str]:
    """The contents of all turns of one role, oldest first."""
    return [turn["content"] for turn in turns if turn["role"] == role]
