"""The systems that are compared, each as an app that sessions can talk with: the graph's three, any graph, any chat model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.evaluation.ablations import ABLATIONS
from empathy_agent.settings import Settings
from empathy_agent.simulation.sources import load_attribute, names_attribute

OWN = ("base", "prompt", "experts")
RECORDED = "recorded"  # the replies that the scenarios hold already
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class System:
    """A system by name, and where it comes from: `graph` for the three of `OWN`, `file` for `recorded`, else what was given."""

    name: str
    source: str


def list_systems(given: str) -> list[System]:
    """Reads `base,prompt,mine=package.module:graph,other=provider:model`.

    >>> list_systems("base,mine=graphs/my.py:graph")
    [System(name='base', source='graph'), System(name='mine', source='graphs/my.py:graph')]

    Raises:
        InputError: A name is unknown, repeated or unfit for a file, or nothing is named.
    """
    systems = []
    for part in filter(None, map(str.strip, given.split(","))):
        name, _, source = part.rpartition("=") if "=" in part else ("", "", part)
        if ":" in source:
            systems.append(System(name or re.sub(r"[^A-Za-z0-9_.-]+", "_", source), source))
        elif source in (*OWN, RECORDED) and not name:
            systems.append(System(source, "file" if source == RECORDED else "graph"))
        else:
            raise InputError(
                f"system {part!r} is unknown: choose {', '.join(OWN)} or {RECORDED}, or name a graph (NAME=module:attribute) "
                "or a chat model (NAME=provider:model)"
            )
    names = [system.name for system in systems]
    for system in systems:
        given_away = system.name in (*OWN, RECORDED, *ABLATIONS) and ":" in system.source
        if not NAME.fullmatch(system.name) or names.count(system.name) > 1 or given_away:
            raise InputError(
                f"system name {system.name!r} is repeated, reserved or not made of letters, digits, '_', '.' and '-'"
            )
    if not systems:
        raise InputError("--systems names no system")
    return systems


def build_app(system: System, engine: EmpathyEngine, settings: Settings) -> Callable[..., Any]:
    """Builds the app of a system.

    Args:
        system: Any but `recorded`.
        engine: The models behind the graph.
        settings: Of the graph; `system` in them is set by the system's name.

    Raises:
        InputError: What the source names cannot be found, or is neither a graph, a chat model nor an app.
        MissingExtraError: A chat model is named by provider and `langchain` is not installed.
    """
    from empathy_agent.simulation.apps import graph_app

    if system.source == "graph":
        from empathy_agent.graph import build_graph

        return graph_app(build_graph(engine=engine), get_played_settings(system, settings))
    return wrap_app(load_source(system.source), settings, system.source)


def get_played_settings(system: System, settings: Settings) -> Settings:
    """The settings that a system is played with.

    The baselines answer once: choosing among drafts by a judge is a part of the system that they are compared with.
    """
    if system.source != "graph":
        return settings
    plain = {} if system.name == "experts" else {"candidates": 1, "max_revisions": 0}
    return replace(settings, system=system.name, **plain)  # type: ignore[arg-type]


def picks_among_drafts(settings: Mapping[str, Any]) -> bool:
    """Whether a graph with these settings chooses by its judge what it sends."""
    return settings["max_revisions"] > 0 or (settings["candidates"] > 1 and settings["temperature"] != 0)


def load_source(source: str) -> Any:
    """Loads `package.module:attribute` or `path/to/file.py:attribute`, else the chat model `provider:model`.

    Raises:
        InputError: There is no such module, attribute or model.
        MissingExtraError: It names a provider and `langchain` is not installed.
    """
    if names_attribute(source):
        return load_attribute(source)
    from empathy_agent.commands.synthesize import load_chat_model

    return load_chat_model(source, "--systems")


def wrap_app(found: Any, settings: Settings, source: str) -> Callable[..., Any]:
    """Wraps a graph, a chat model or an app in openevals' shape; a function that needs no argument is called for one."""
    from langchain_core.language_models import BaseChatModel

    from empathy_agent.prompts import write_prompt
    from empathy_agent.simulation.apps import graph_app, model_app, openevals_app

    if isinstance(found, BaseChatModel):
        return model_app(found, write_prompt("assistant"))
    if hasattr(found, "compile") or hasattr(found, "ainvoke"):
        return graph_app(found, settings)
    if callable(found):
        parameters = inspect.signature(found).parameters.values()
        if any(parameter.name == "thread_id" for parameter in parameters):
            return openevals_app(found)
        if not any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            return wrap_app(found(), settings, source)
    raise InputError(
        f"{source} is a {type(found).__name__}: name a graph, a chat model, a function without arguments that makes one, "
        "or an app `(message, *, thread_id)`"
    )
