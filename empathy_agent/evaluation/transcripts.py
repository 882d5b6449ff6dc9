"""Writes the conversations of one system of a report as Markdown, unedited, with what the graph read and aimed at."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from empathy_agent.errors import InputError


def write_transcripts(report: dict[str, Any], system: str) -> str:
    """The conversations of `system`, each turn as it was, with a line of state under every reply.

    Raises:
        InputError: The report has no such system.
    """
    if system not in report["systems"]:
        raise InputError(f"no system {system!r} in the report: it has {', '.join(report['systems'])}")
    given = [word for word in report["command"] if word]
    settings = ", ".join(
        f"{name} {value}"
        for name in ("temperature", "candidates")
        if (value := report["settings"].get(name)) is not None
    )
    parts = [
        f"# Transcripts of {system}",
        "Unedited, one conversation of each scenario, made by",
        f"    {shlex.join(given)}",
        f"Seed {report['seed']}{', ' if settings else ''}{settings}. Under a reply: the task as it was recognized, "
        "the need of the message, the target, who wrote, and the level that the judge of the report perceived.",
    ]
    for conversation in report["systems"][system]["conversations"]:
        parts.append(f"## {conversation['id']}")
        parts += _write_turns(conversation["turns"])
        if conversation["error"]:
            parts.append(f"*{conversation['status']}: {conversation['error']}*")
    return "\n\n".join(parts) + "\n"


def _write_turns(turns: list[dict[str, Any]]) -> Iterator[str]:
    for turn in turns:
        content = " ".join(turn["content"].split())
        if turn["role"] == "user":
            yield f"> {content}"
            continue
        state = [turn.get("task"), turn.get("expert"), turn.get("route")]
        numbers = [f"{name} {turn[name]:.2f}" for name in ("need", "target", "perceived") if _is_number(turn.get(name))]
        yield f"{content}<br><sub>{', '.join([str(word) for word in state if word] + numbers)}</sub>"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
