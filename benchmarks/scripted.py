"""An engine whose readings and replies are scripted, so that a turn of the whole graph takes milliseconds and no model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from empathy_agent import EmpathyEngine
from empathy_agent.engine import HEADS
from empathy_agent.exemplars import ExemplarIndex, build_index
from empathy_agent.heads import Group, Head
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.need import PARTS
from empathy_agent.safety import CATEGORIES

TAG = re.compile(r"\[t\d+ n\d+\]")


class Echo(BaseChatModel):
    """Repeats the tag of the message that it answers, in several chunks."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        tag = TAG.findall(str(messages[-1].text))[-1]
        for piece in ("This ", "answers ", f"{tag}", " and ", "nothing else."):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        text = "".join(str(chunk.text) for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class ScriptedEncoder:
    """Unit vectors that depend on a text alone and mean nothing."""

    dimension = 16
    fingerprint = "scripted"

    def encode(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of shape (len(texts), 16)."""
        seeds = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=64).digest() for text in texts]
        vectors = np.array([np.frombuffer(seed, np.uint32) for seed in seeds], np.float64).reshape(-1, 16) / 2**31 - 1
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def script_head(groups: list[Group], inputs: int, favour: int | None = None) -> Head:
    """A random linear head; `favour` is an output that always wins."""
    outputs = sum(len(group.labels) for group in groups)
    bias = np.zeros((1, outputs), np.float32)
    if favour is not None:
        bias[0, favour] = 20
    weights = np.random.default_rng(outputs).normal(size=(1, inputs, outputs)).astype(np.float32)
    return Head(groups, "scripted", {"w2": weights, "b2": bias})


def script_engine(chat_model: BaseChatModel | None = None, *, exemplars: bool = True) -> EmpathyEngine:
    """An engine whose readings are scripted, so that a turn takes milliseconds."""
    engine, size = EmpathyEngine(chat_model=chat_model or Echo()), ScriptedEncoder.dimension
    engine.encoder = ScriptedEncoder()  # type: ignore[assignment]
    engine.encoders = dict.fromkeys(HEADS, engine.encoder)
    engine.heads = {
        "task": script_head([Group("task", "softmax", list(engine.tasks.profiles))], size),
        "need": script_head([Group("need", "number", ["need"]), Group("emotion", "softmax", list(PARTS))], 3 * size),
        "judge": script_head(
            [
                Group("level", "number", ["level"]),
                Group("applies", "number", DIMENSIONS),
                Group("dimensions", "number", DIMENSIONS),
                Group("mechanisms", "number", MECHANISMS),
            ],
            4 * size + 6,
        ),
        "danger": script_head([Group("danger", "softmax", CATEGORIES)], size, favour=CATEGORIES.index("none")),
    }
    engine.exemplars = build_index(engine.encoder) if exemplars else ExemplarIndex([], None)  # type: ignore[arg-type]
    return engine
