"""OpenTelemetry spans and measures of nodes and of the worker's batches, without any text of a conversation.

Does nothing, at no cost, where `opentelemetry-api` (extra `otel`) is not installed, and next to nothing where the host set no
SDK up. Sets up no exporter itself. `EMPATHY_AGENT_TRACE_TEXT=1` adds the user's message and the reply to the spans.
See docs/observability.md for every name.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter as Total
    from opentelemetry.metrics import Histogram
    from opentelemetry.trace import Tracer

    from empathy_agent.replies import Reply

Node = TypeVar("Node", bound=Callable[..., dict[str, Any]])


@dataclass(frozen=True)
class _Instruments:
    tracer: Tracer
    turns: Total
    alarms: Total
    tokens: Total
    gap: Histogram
    rows: Histogram
    queued: Histogram
    first_token: Histogram


@lru_cache(maxsize=1)
def _find_instruments() -> _Instruments | None:
    return build_instruments() if _is_installed() else None


def _is_installed() -> bool:
    """Whether the API is there: other packages put something into its namespace, too."""
    return bool(find_spec("opentelemetry") and find_spec("opentelemetry.metrics"))


def build_instruments(tracers: Any = None, meters: Any = None) -> _Instruments:
    """Makes the tracer and the measures, from the host's global providers where none are given."""
    from opentelemetry import metrics, trace

    from empathy_agent import __version__

    meter = metrics.get_meter("empathy_agent", __version__, meters)
    return _Instruments(
        tracer=trace.get_tracer("empathy_agent", __version__, tracers),
        turns=meter.create_counter("empathy_agent.turns", "{turn}", "Replies sent"),
        alarms=meter.create_counter("empathy_agent.alarms", "{turn}", "Turns under a drift alarm"),
        tokens=meter.create_counter("empathy_agent.tokens", "{token}", "Tokens read and written"),
        gap=meter.create_histogram("empathy_agent.gap", "1", "Perceived less desired empathy"),
        rows=meter.create_histogram(
            "empathy_agent.batch.rows", "{row}", "Replies being written while prompts are read"
        ),
        queued=meter.create_histogram(
            "empathy_agent.queue.length", "{reply}", "Prompts that wait while others are read"
        ),
        first_token=meter.create_histogram("empathy_agent.time_to_first_token", "s", "From request to first token"),
    )


def observe_node(node: Node) -> Node:
    """Wraps a node in a span named after it; returns the node itself where OpenTelemetry is not installed."""
    if not _is_installed():
        return node

    @functools.wraps(node)
    def observed(state: Any, runtime: Any) -> dict[str, Any]:
        instruments = _find_instruments()
        assert instruments
        with _span(instruments, node.__name__) as span:
            update = node(state, runtime)
            span.set_attributes(describe_update(update, state))
        if node.__name__ == "track_drift":
            about = {"task": state["task"]["label"], "expert": state["expert"], "route": state["route"]}
            instruments.turns.add(1, about)
            instruments.gap.record(update["drift"]["gap"], about)
            if (alarm := update["drift"]["alarm"]) != "none":
                instruments.alarms.add(1, {**about, "alarm": alarm})
        elif update.get("route") == "hand_off":
            instruments.turns.add(1, {"route": "hand_off"})
        elif node.__name__ == "generate_reply":
            _count_tokens(instruments, _find_reply(update), state["expert"] if update["route"] == "adapter" else "base")
        return update

    return observed  # type: ignore[return-value]


def describe_update(update: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The attributes of a node's span: names and numbers of what it wrote, and text only where that was asked for."""
    found: dict[str, Any] = {
        "task": (update.get("task") or {}).get("label"),
        "task.confidence": (update.get("task") or {}).get("confidence"),
        "safety": (update.get("safety") or {}).get("route"),
        "need": (update.get("need") or {}).get("level"),
        "target": update.get("target"),
        "expert": update.get("expert"),
        "route": update.get("route"),
        "exemplars": len(update["exemplars"]) if "exemplars" in update else None,
        "perceived": (update.get("assessment") or {}).get("level"),
        "drafts": len(update["revisions"]) if update.get("revisions") else None,
        **{name: (update.get("drift") or {}).get(name) for name in ("gap", "alarm", "turns")},
    }
    reply = _find_reply(update)
    for name in ("input", "output"):
        found[f"tokens.{name}"] = (reply.get("usage_metadata") or {}).get(f"{name}_tokens")
    if os.environ.get("EMPATHY_AGENT_TRACE_TEXT") == "1":
        found["message"] = next((str(m.text) for m in reversed(state["messages"]) if m.type == "human"), None)
        found["reply"] = reply.get("content")
    return {f"empathy_agent.{name}": value for name, value in found.items() if value is not None}


def _find_reply(update: Mapping[str, Any]) -> dict[str, Any]:
    """What a node wrote as the reply, be it a message or a draft; empty where it wrote none."""
    if draft := update.get("draft"):
        return dict(draft)
    reply = next((m for m in update.get("messages", []) if m.type == "ai"), None)
    return {**reply.model_dump(), "content": str(reply.text)} if reply else {}


def _count_tokens(instruments: _Instruments, reply: Mapping[str, Any], adapter: str) -> None:
    """Counts the tokens of a reply that no worker of this process wrote; those are counted by `count_reply`, drafts included."""
    about = reply["response_metadata"]
    if about.get("model_provider") == "empathy-agent":
        return
    for name in ("input", "output"):
        if count := (reply["usage_metadata"] or {}).get(f"{name}_tokens"):
            reason = str(about.get("finish_reason", ""))
            instruments.tokens.add(count, {"adapter": adapter, "finish_reason": reason, "type": name})


@contextmanager
def observe_reading(replies: Sequence[Reply], tokens: int, rows: int, queued: int) -> Iterator[None]:
    """A span over one step of reading prompts, linked to the spans that asked for the replies.

    Args:
        replies: The replies whose prompts are read.
        tokens: Tokens that are read in this step.
        rows: Replies that are being written meanwhile.
        queued: Prompts that still wait.
    """
    if not (instruments := _find_instruments()):
        yield
        return
    from opentelemetry.trace import Link

    mix = Counter(reply.adapter or "base" for reply in replies)
    about: dict[str, Any] = {
        "empathy_agent.batch.reading": len(replies),
        "empathy_agent.batch.rows": rows,
        "empathy_agent.queue.length": queued,
        "empathy_agent.tokens.input": tokens,
        "empathy_agent.adapters": [f"{name}:{count}" for name, count in sorted(mix.items())],
    }
    instruments.rows.record(rows)
    instruments.queued.record(queued)
    links = [Link(reply.asked_by) for reply in replies if reply.asked_by]
    with _span(instruments, "read_prompts", links=links, attributes=about):
        yield


def find_caller() -> Any:
    """The context of the span that a reply is asked for in, for `observe_reading`; None where nothing is traced."""
    if not _find_instruments():
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return context if context.is_valid else None


def count_reply(reply: Reply) -> None:
    """Counts the tokens of a reply that has ended and how long its first one took."""
    if not (instruments := _find_instruments()):
        return
    about = {"adapter": reply.adapter or "base", "finish_reason": reply.finish_reason}
    for name in ("input", "output"):
        instruments.tokens.add(reply.usage[f"{name}_tokens"], {**about, "type": name})
    if reply.first_token:
        instruments.first_token.record(reply.first_token - reply.asked_at, {"adapter": about["adapter"]})


@contextmanager
def _span(instruments: _Instruments, name: str, **about: Any) -> Iterator[Any]:
    """A span that names the kind of an error but not its message, which may hold text of a conversation."""
    from opentelemetry.trace import Status, StatusCode

    with instruments.tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **about
    ) as span:
        try:
            yield span
        except BaseException as error:
            from langgraph.errors import GraphBubbleUp

            if isinstance(error, GraphBubbleUp):
                span.set_attribute("empathy_agent.interrupted", True)
            else:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
