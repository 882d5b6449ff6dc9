"""Who plays simulated users: the local adapter, a chat model, any function in openevals' shape, or a list of lines.

A user is `(trajectory, *, thread_id, turn_counter) -> text | message | None`, sync or async, as openevals calls it: `trajectory`
holds the turns so far as `{"role", "content"}`, `turn_counter` starts at 0, None ends the session.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError
from empathy_agent.simulation.calling import read_content
from empathy_agent.simulation.personas import local_user, model_user
from empathy_agent.simulation.sources import load_attribute

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from empathy_agent.engine import EmpathyEngine


@dataclass(frozen=True)
class Users:
    """Who plays personas: `build(persona)` makes the user of one, `name` says what plays it."""

    name: str
    build: Callable[[dict[str, Any]], Callable[..., Any]]


def local_users(engine: EmpathyEngine) -> Users:
    """Users whom the engine's base plays, through its adapter `user` where it has one."""
    return Users("local", partial(local_user, engine))


def model_users(chat_model: BaseChatModel, name: str) -> Users:
    """Users whom a chat model plays, given by its name."""
    return Users(name, partial(model_user, chat_model))


def load_users(source: str) -> Users:
    """Loads what the command line names: a file of lines (`said.txt`, a message a line), or `module:attribute`.

    The attribute, which may be in `path/to/file.py` too, is a function in openevals' shape or a list of lines. A function with a
    parameter `persona` is given the session's.

    Raises:
        InputError: There is no such file or attribute, or it is neither.
    """
    if source.endswith(".txt"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the lines in {source}: {error}") from error
        return _say(source, [line.strip() for line in text.splitlines() if line.strip()])
    found = load_attribute(source)
    if isinstance(found, list | tuple):
        return _say(source, found)
    if callable(found):
        known = inspect.signature(found).parameters
        if {"thread_id", "turn_counter"} <= set(known) or any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return Users(source, lambda persona: found)
    raise InputError(
        f"{source} is {type(found).__name__}: name a function `(trajectory, *, thread_id, turn_counter)`, or a list of lines"
    )


def _say(source: str, lines: Sequence[Any]) -> Users:
    if not lines:
        raise InputError(f"{source} holds no line: give at least one message")
    return Users(source, lambda persona: lines_user(lines))


def lines_user(lines: Sequence[str | Mapping[str, Any]]) -> Callable[..., Any]:
    """A user who says `lines` one after the other, whatever is answered, and then ends.

    Args:
        lines: Texts, or messages whose content is said.
    """
    said = [read_content(line) for line in lines]

    async def user(trajectory: list[dict[str, str]], *, thread_id: str, turn_counter: int) -> str | None:
        return said[turn_counter] if turn_counter < len(said) else None

    user.name = "lines"  # type: ignore[attr-defined]
    user.scripted = True  # type: ignore[attr-defined]  # a script may repeat itself: it is not held to its role
    return user
