"""Who writes a reply, and who does it instead when that fails: the expert adapter, the prompted base, the bare base."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from langchain_core.messages import AIMessage

from empathy_agent.errors import ModelError, ReplyError, UnreachableError

if TYPE_CHECKING:
    from empathy_agent.engine import EmpathyEngine

Route = Literal["adapter", "prompt", "base"]
ROUTES: tuple[Route, ...] = ("adapter", "prompt", "base")
SYSTEMS: dict[str, Route] = {"experts": "adapter", "prompt": "prompt", "base": "base"}  # by the setting `system`
TRIES = 2  # on each route, since a reply that broke off may come through the second time
LONGEST_REASON = 300  # characters of a reason that are kept in state


def write_reply(
    engine: EmpathyEngine, wanted: Route, expert: str, ask: Callable[[Route, bool], AIMessage]
) -> tuple[AIMessage, Route, str]:
    """Writes a reply by the route that is wanted, or by the next one that works.

    An expert that is not there is a prompt. A server that fails on one route is asked on the next ones; where nobody answers at
    all, the engine's fallback writes, if it has one.

    Args:
        engine: The engine.
        wanted: The route to begin with.
        expert: Name of the expert.
        ask: Writes by a route, with the fallback if the second argument is true.

    Returns:
        The reply, its route, and why it is not the wanted one by the wanted model; empty if it is.

    Raises:
        ReplyError: Every route failed.
    """
    reasons: list[str] = []
    try:
        route = wanted
        if route == "adapter" and expert not in engine.experts:
            route = "prompt"
            reasons.append(f"there is no adapter {expert!r}")
        if not engine.base_url:
            return ask(route, False), route, _join(reasons)
        for now in ROUTES[ROUTES.index(route) :]:
            for left in reversed(range(TRIES)):
                try:
                    return ask(now, False), now, _join(reasons)
                except UnreachableError:
                    raise
                except ReplyError as error:
                    if not left:
                        reasons.append(f"{now}: {error}")
        raise ReplyError("; ".join(reasons))
    except (UnreachableError, ModelError) as error:
        if engine.fallback is None:
            raise
        route = "prompt" if wanted == "adapter" and expert not in engine.fallback_experts else wanted
        return ask(route, True), route, _join([*reasons, f"fallback: {error}"])


def _join(reasons: list[str]) -> str:
    return "; ".join(reasons)[:LONGEST_REASON]
