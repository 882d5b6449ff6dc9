"""Users who follow a script. Users whom a model plays are in `personas.py`.

A user is `(trajectory, *, thread_id, turn_counter) -> text | message | None`, sync or async, as openevals calls it: `trajectory`
holds the turns so far as `{"role", "content"}`, `turn_counter` starts at 0, None ends the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from empathy_agent.simulation.calling import read_content


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
