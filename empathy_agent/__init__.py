"""Task-calibrated empathy for conversational agents: the right amount for what the user is doing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from empathy_agent.engine import EmpathyEngine as EmpathyEngine
    from empathy_agent.errors import EmpathyAgentError as EmpathyAgentError
    from empathy_agent.errors import InputError as InputError
    from empathy_agent.errors import MissingExtraError as MissingExtraError
    from empathy_agent.errors import ModelError as ModelError
    from empathy_agent.errors import OverloadedError as OverloadedError
    from empathy_agent.errors import ReplyError as ReplyError
    from empathy_agent.errors import StorageError as StorageError
    from empathy_agent.errors import UnreachableError as UnreachableError
    from empathy_agent.experts import ExpertChatModel as ExpertChatModel
    from empathy_agent.graph import build_graph as build_graph
    from empathy_agent.middleware import EmpathyMiddleware as EmpathyMiddleware
    from empathy_agent.settings import Settings as Settings
    from empathy_agent.state import EmpathyState as EmpathyState

_HOMES = {
    "EmpathyAgentError": "errors",
    "EmpathyEngine": "engine",
    "EmpathyMiddleware": "middleware",
    "EmpathyState": "state",
    "ExpertChatModel": "experts",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "OverloadedError": "errors",
    "ReplyError": "errors",
    "Settings": "settings",
    "StorageError": "errors",
    "UnreachableError": "errors",
    "build_graph": "graph",
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'empathy_agent' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(import_module(f"empathy_agent.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
