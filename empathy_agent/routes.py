"""Who writes a reply, and who does it instead when that fails: expert adapter, prompted base, bare base, fallback."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Literal, NamedTuple

from langchain_core.messages import AIMessage

from empathy_agent.errors import ModelError, ReplyError, UnreachableError

if TYPE_CHECKING:
    from empathy_agent.engine import EmpathyEngine

Route = Literal["adapter", "prompt", "base"]
ROUTES: tuple[Route, ...] = ("adapter", "prompt", "base")
SYSTEMS: dict[str, Route] = {"experts": "adapter", "prompt": "prompt", "base": "base"}  # by the setting `system`
TRIES = 2  # on each route, since a reply that broke off may come through the second time
LONGEST_REASON = 300  # characters of a reason that are kept in state


class Attempt(NamedTuple):
    """Who is to write: by which route, the fallback or not, and why it is not the wanted route by the wanted model."""

    route: Route
    fallback: bool
    reason: str


def plan_attempts(engine: EmpathyEngine, wanted: Route, expert: str) -> Generator[Attempt, None, None]:
    """Yields whom to ask for a reply; the error of an attempt is to be thrown in, and the next attempt comes out.

    An expert that is not there is a prompt. A server that fails on one route is asked on the next ones; where nobody answers
    there, or every route failed, the engine's fallback writes, if it has one. Asking for the first attempt may reach the server.

    Raises:
        ReplyError: Every attempt failed; the message says how each did.
        ModelError: The server serves no such model, or the local one cannot be loaded.
    """
    reasons: list[str] = []
    try:
        route = wanted
        if route == "adapter" and expert not in engine.experts:
            route = "prompt"
            reasons.append(f"there is no adapter {expert!r}")
        if not engine.base_url:
            yield Attempt(route, False, shorten_reason(*reasons))
            return
        for now in ROUTES[ROUTES.index(route) :]:
            for left in reversed(range(TRIES)):
                try:
                    yield Attempt(now, False, shorten_reason(*reasons))
                    return
                except UnreachableError:
                    raise
                except ReplyError as error:
                    if not left:
                        reasons.append(f"{now}: {error}")
        raise ReplyError("; ".join(reasons))
    except (ReplyError, ModelError) as error:
        if engine.fallback is None:
            raise
        route = "prompt" if wanted == "adapter" and expert not in engine.fallback_experts else wanted
        before = [reason for reason in reasons if reason not in str(error)]
        yield Attempt(route, True, shorten_reason(*before, f"fallback: {error}"))


def write_reply(
    engine: EmpathyEngine, wanted: Route, expert: str, ask: Callable[[Route, bool], AIMessage]
) -> tuple[AIMessage, Route, str]:
    """Writes a reply by the route that is wanted, or by the next one that works; see `plan_attempts`.

    Args:
        engine: The engine.
        wanted: The route to begin with.
        expert: Name of the expert.
        ask: Writes by a route, with the fallback if the second argument is true.

    Returns:
        The reply, its route, and why it is not the wanted one by the wanted model; empty if it is.

    Raises:
        ReplyError: Every route failed.
        ModelError: The server serves no such model, or the local one cannot be loaded.
    """
    plan = plan_attempts(engine, wanted, expert)
    attempt = next(plan)
    while True:
        try:
            return ask(attempt.route, attempt.fallback), attempt.route, attempt.reason
        except (ReplyError, ModelError) as error:
            attempt = plan.throw(error)


def shorten_reason(*reasons: str) -> str:
    """The reasons as one line for the state, at most 300 characters of it."""
    return "; ".join(reasons)[:LONGEST_REASON]
