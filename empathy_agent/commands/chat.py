"""`empathy-agent chat`: talk with the agent and watch task, need, expert and gap turn by turn."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

from empathy_agent.errors import EmpathyAgentError, InputError
from empathy_agent.settings import Settings, get_settings
from empathy_agent.turns import check_text, clean_text

SHOWN = ("task", "need", "target", "expert", "route", "route_reason", "exemplars", "assessment", "drift", "safety")


def run(options: argparse.Namespace) -> int:
    """Answers one message (`--once`) or talks until the end of input."""
    settings = read_settings(options.set)
    once = check_text(options.once) if options.once is not None else None
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.experts import ExpertChatModel
    from empathy_agent.graph import build_graph

    engine = EmpathyEngine(
        model=options.model,
        adapters=options.adapters,
        base_url=options.base_url,
        served_as=read_served_as(options.served_as),
        fallback=ExpertChatModel() if options.fallback else None,
    )
    with ExitStack() as stack:
        checkpointer: Any = None
        if once is None or options.thread:
            from empathy_agent.threads import open_threads

            checkpointer = stack.enter_context(open_threads(options.database))
        graph: Any = build_graph(engine=engine).compile(checkpointer=checkpointer)
        config: Any = {"configurable": {"thread_id": options.thread or uuid4().hex[:8]}}
        if once is None:
            return talk(graph, config, settings, as_json=options.json, engine=engine)
        with undone_on_error(graph if checkpointer else None, config) as say:
            state = graph.invoke(say(once), config, context=settings, durability="exit" if checkpointer else None)
        if options.json:
            print(json.dumps(pick_turn(state), ensure_ascii=False))
        else:
            from empathy_agent.commands.panel import show_turn

            print(clean_text(str(state["messages"][-1].text)))
            show_turn(state)
    return 0


def talk(graph: Any, config: dict[str, Any], settings: Settings, *, as_json: bool, engine: Any) -> int:
    """Reads messages line by line until the end of input or `/quit`; a failed message leaves the conversation as it was."""
    from empathy_agent.commands.panel import Screen

    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    screen = Screen(quiet=as_json)
    with screen.wait("loading the models"):
        engine.load()
    screen.greet(config["configurable"]["thread_id"], graph.get_state(config).values.get("messages", []))
    while (line := screen.ask()) is not None:
        try:
            text = check_text(line)
            if as_json:
                with undone_on_error(graph, config) as say:
                    state = graph.invoke(say(text), config, context=settings, durability="exit")
                print(json.dumps(pick_turn(state), ensure_ascii=False), flush=True)
                continue
            with undone_on_error(graph, config) as say, screen.reply() as show:
                for mode, event in graph.stream(
                    say(text), config, context=settings, stream_mode=["messages", "updates"], durability="exit"
                ):
                    show(mode, event)
            screen.show_turn(graph.get_state(config).values)
        except EmpathyAgentError as error:
            print(clean_text(f"empathy-agent: {error}"), file=sys.stderr)
    return 0


def read_served_as(given: list[str]) -> dict[str, str]:
    """Reads `EXPERT=NAME` pairs.

    Raises:
        InputError: One has no sign in it.
    """
    if wrong := [item for item in given if "=" not in item]:
        raise InputError(f"--served-as {wrong[0]!r}: write it as EXPERT=NAME, such as compassionate=acme-warm-2")
    return dict(item.split("=", 1) for item in given)


def read_settings(given: list[str]) -> Settings:
    """Reads `NAME=VALUE` settings on top of the environment's.

    Raises:
        InputError: A setting is unknown or its value cannot be read.
    """
    values: dict[str, Any] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign:
            raise InputError(f"--set {item!r}: write it as NAME=VALUE, such as temperature=0")
        try:
            values[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            values[name.strip()] = value.strip()
    settings = get_settings(values)
    if settings.review or settings.pause_on_hand_off:
        raise InputError(
            "a command cannot resume a stopped reply: use review and pause_on_hand_off in Studio or the library"
        )
    return settings


def pick_turn(state: dict[str, Any]) -> dict[str, Any]:
    """The part of the state that `--json` prints: the reply and everything that led to it."""
    return {"reply": str(state["messages"][-1].text), **{name: state.get(name) for name in SHOWN}}


@contextmanager
def undone_on_error(graph: Any, config: Any) -> Iterator[Callable[[str], Any]]:
    """Gives a function that makes a message the graph's input; takes the message out of the thread again if its turn fails.

    Checkpoints of older turns are deleted at the end; `graph` is None where nothing is stored.

    Raises:
        StorageError: The database failed.
    """
    if not graph:
        yield lambda text: {"messages": [{"role": "user", "content": text}]}
        return
    from empathy_agent.threads import prune_thread, reported

    message = uuid4().hex
    with reported():
        try:
            yield lambda text: {"messages": [{"role": "user", "content": text, "id": message}]}
        except EmpathyAgentError:
            if any(stored.id == message for stored in graph.get_state(config).values.get("messages", [])):
                from langchain_core.messages import RemoveMessage

                graph.update_state(config, {"messages": [RemoveMessage(message)]})
            raise
        finally:
            prune_thread(graph.checkpointer, config["configurable"]["thread_id"])
