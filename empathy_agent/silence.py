"""Keeps the words of a model, such as a draft that nobody is to see, out of every stream of the run around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.constants import TAG_NOSTREAM


@contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Within the block no model's tokens or messages reach `stream`, `astream_events` or `astream_log`; tracers still see them.

    `stream_mode="messages"` heeds the tag `nostream`; events do not, so that the callbacks that feed them are left out as well.
    With `silent` false it does nothing.
    """
    if not silent:
        yield
        return
    config = ensure_config()
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):  # as LangGraph and every Runnable hand them on
        callbacks = callbacks.copy()
        for handler in [*callbacks.handlers, *callbacks.inheritable_handlers]:
            if isinstance(handler, _StreamingCallbackHandler):
                callbacks.remove_handler(handler)
    tags = [*(config.get("tags") or []), TAG_NOSTREAM]
    token = var_child_runnable_config.set({**config, "tags": tags, "callbacks": callbacks})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
