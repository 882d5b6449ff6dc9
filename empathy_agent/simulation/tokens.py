"""Counts the tokens that a turn took, drafts and thrown-away candidates included."""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult


class TokenCount(BaseCallbackHandler):
    """Adds up what every chat model under one run reports; `counted` is None while none has.

    A prompt counts once however many candidates answer it, since it is read once; what is written counts for each of them.
    """

    def __init__(self) -> None:
        self.counted: dict[str, int] | None = None
        self._lock = threading.Lock()

    def on_llm_end(self, response: LLMResult, **more: Any) -> None:
        """Adds one call: for each prompt its candidates."""
        for candidates in response.generations:
            messages = [found.message for found in candidates if isinstance(found, ChatGeneration)]
            used = [usage for message in messages if (usage := getattr(message, "usage_metadata", None))]
            if used:
                with self._lock:
                    before = self.counted or {"input": 0, "output": 0}
                    self.counted = {
                        "input": before["input"] + used[0]["input_tokens"],
                        "output": before["output"] + sum(usage["output_tokens"] for usage in used),
                    }
