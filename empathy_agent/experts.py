"""`ExpertChatModel`: the local experts as a LangChain chat model, for anything that takes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import ensure_config
from pydantic import ConfigDict, Field, PrivateAttr

from empathy_agent.decoding import Decoding
from empathy_agent.errors import InputError
from empathy_agent.replies import Reply
from empathy_agent.turns import ROLES, Turn
from empathy_agent.worker import Worker

SAMPLING = {"temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "seed", "stop"}


class ExpertChatModel(BaseChatModel):
    """Chat model over a base with LoRA expert adapters; all instances on one engine share its batching worker.

    `ExpertChatModel()` serves the embedded default. Every field but `model` and `adapters` can also be given per call
    or through `bind`, as in `model.bind(adapter="compassionate", temperature=0)`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str | None = None
    """Folder or hub id of the base; None is `empathy-nano`."""
    adapters: str | None = None
    """Folder with one adapter per expert; None takes the shipped ones for the shipped base."""
    adapter: str | None = None
    """Expert that answers; None is the bare base."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=1)
    no_repeat_ngram_size: int = Field(default=6, ge=0)
    max_new_tokens: int = Field(default=160, ge=1)
    seed: int = 0
    stop: list[str] | None = None
    _worker: Worker | None = PrivateAttr(default=None)

    @classmethod
    def from_worker(cls, worker: Worker, **fields: Any) -> ExpertChatModel:
        """Builds a chat model over a worker that exists already."""
        chat_model = cls(model=worker.local.name, **fields)
        chat_model._worker = worker
        return chat_model

    @property
    def worker(self) -> Worker:
        """The worker, shared by all chat models of one base and adapter folder in this process."""
        if self._worker is None:
            from empathy_agent.workers import get_worker

            self._worker = get_worker(self.model, self.adapters)
        return self._worker

    @property
    def _llm_type(self) -> str:
        return "empathy-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # All that a reply depends on: LangChain's cache tells models apart by it.
        return {"model": self.model or "empathy-nano", **self.model_dump(include={"adapters", "adapter", *SAMPLING})}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider="empathy-agent",
            ls_model_type="chat",
            ls_model_name=kwargs.get("model") or self.model or "empathy-nano",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_new_tokens", self.max_new_tokens),
        )

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Accepts no tools: a small local model would not call them soundly.

        Raises:
            InputError: Tools were given. Let the host's own model call them.
        """
        if tools:
            raise InputError("ExpertChatModel calls no tools: let the host's own model call them")
        return self

    def generate_candidates(self, messages: LanguageModelInput, n: int, **given: Any) -> list[AIMessage]:
        """Writes `n` different replies to the same messages in one batch; the prompt is read once.

        Their tokens do not stream, since all but one will be thrown away.

        Args:
            messages: As for `invoke`.
            n: How many; at temperature 0 there can be only one.
            **given: Any field for this call, as in `generate_candidates(messages, 4, adapter="compassionate", seed=7)`.

        Raises:
            InputError: `n` does not fit in a batch, or the temperature is 0.
        """
        prompt, config = self._convert_input(messages), _get_config()
        result = self.generate_prompt([prompt], n=n, **config, **given)
        return [cast(AIMessage, cast(ChatGeneration, found).message) for found in result.generations[0]]

    async def agenerate_candidates(self, messages: LanguageModelInput, n: int, **given: Any) -> list[AIMessage]:
        """The same as `generate_candidates`, without blocking the event loop."""
        prompt, config = self._convert_input(messages), _get_config()
        result = await self.agenerate_prompt([prompt], n=n, **config, **given)
        return [cast(AIMessage, cast(ChatGeneration, found).message) for found in result.generations[0]]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _cancelling(self._submit(messages, stop, kwargs)) as reply:
            return self._make_result([(each, "".join(each)) for each in reply.candidates])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _cancelling(await self._asubmit(messages, stop, kwargs)) as reply:
            return self._make_result([(each, "".join([text async for text in each])) for each in reply.candidates])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with _cancelling(self._submit(messages, stop, kwargs)) as reply:
            for text in reply:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
                if run_manager:
                    run_manager.on_llm_new_token(text, chunk=chunk)
                yield chunk
            yield self._make_last(reply)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with _cancelling(await self._asubmit(messages, stop, kwargs)) as reply:
            async for text in reply:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
                if run_manager:
                    await run_manager.on_llm_new_token(text, chunk=chunk)
                yield chunk
            yield self._make_last(reply)

    def _make_result(self, written: list[tuple[Reply, str]]) -> ChatResult:
        return ChatResult(
            generations=[
                ChatGeneration(
                    message=AIMessage(
                        text,
                        usage_metadata=cast(UsageMetadata, reply.usage),
                        response_metadata=self._describe(reply),
                    )
                )
                for reply, text in written
            ]
        )

    def _make_last(self, reply: Reply) -> ChatGenerationChunk:
        last = AIMessageChunk(
            content="",
            usage_metadata=cast(UsageMetadata, reply.usage),
            response_metadata=self._describe(reply),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=last)

    def _submit(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Reply:
        def value(name: str) -> Any:
            return given[name] if given.get(name) is not None else getattr(self, name)

        decoding = Decoding(
            temperature=value("temperature"),
            top_p=value("top_p"),
            repetition_penalty=value("repetition_penalty"),
            no_repeat_ngram_size=value("no_repeat_ngram_size"),
            max_new_tokens=value("max_new_tokens"),
            seed=value("seed"),
            stop=tuple(stop or value("stop") or ()),
        )
        adapter = given.get("adapter", self.adapter) or None
        return self.worker.submit(_get_prompt(messages), adapter, decoding, given.get("n") or 1)

    async def _asubmit(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Reply:
        """Submits from a thread, since the first use loads the model; a caller that gives up meanwhile cancels."""
        submitting = asyncio.ensure_future(asyncio.to_thread(self._submit, messages, stop, given))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel_result)
            raise

    def _describe(self, reply: Reply) -> dict[str, Any]:
        return {
            "model_name": self.model or "empathy-nano",
            "adapter": reply.adapter,
            "finish_reason": reply.finish_reason,
            "model_provider": "empathy-agent",
            **(
                {"mean_logprob": round(reply.logprob / max(1, reply.usage["output_tokens"]), 4)}
                if len(reply.candidates) > 1
                else {}
            ),
        }


@contextmanager
def _cancelling(reply: Reply) -> Iterator[Reply]:
    """Whatever ends the block ends the reply and its other candidates, so that nobody writes what nobody reads."""
    try:
        yield reply
    finally:
        for each in reply.candidates:
            each.cancel()


def _cancel_result(submitting: asyncio.Future[Reply]) -> None:
    if not submitting.cancelled() and not submitting.exception():
        for each in submitting.result().candidates:
            each.cancel()


def _get_config() -> dict[str, Any]:
    """The surrounding run's callbacks and metadata, as `invoke` passes them on, less the streaming."""
    config = ensure_config()
    tags = [*(config.get("tags") or []), "nostream"]
    return {
        "callbacks": config.get("callbacks"),
        "metadata": config.get("metadata"),
        "tags": tags,
        "stream": False,
    }


def _get_prompt(messages: Sequence[BaseMessage]) -> list[Turn]:
    """System messages first and as one, tool results as user turns, neighbours of one role joined."""
    system = "\n\n".join(str(m.text) for m in messages if m.type == "system")
    turns: list[Turn] = [Turn(role="system", content=system)] if system else []
    for message in messages:
        text, role = str(message.text), ROLES.get(message.type, "user")
        if role == "system" or not text.strip():
            continue
        if role == "assistant" and not any(turn["role"] == "user" for turn in turns):
            continue  # a greeting before the first question, which many chat templates refuse
        if turns and turns[-1]["role"] == role:
            turns[-1] = Turn(role=turns[-1]["role"], content=f"{turns[-1]['content']}\n{text}")
        else:
            turns.append(Turn(role="assistant" if role == "assistant" else "user", content=text))
    if not any(turn["role"] == "user" for turn in turns):
        raise InputError("there is no user message with text to answer")
    return turns
