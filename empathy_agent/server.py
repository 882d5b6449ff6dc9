"""Experts behind an OpenAI-compatible server that serves a base and its adapters by name, such as vLLM with --lora-modules.

Importing this file needs the extra `server`. Replies are always streamed, so that a server which falls silent is noticed after
`SILENCE` seconds however long the reply, and one that dies in mid-reply is not taken for one that has finished.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import Field

from empathy_agent.control_tokens import break_control_tokens
from empathy_agent.errors import (
    EmpathyAgentError,
    InputError,
    MissingExtraError,
    ModelError,
    ReplyError,
    UnreachableError,
)
from empathy_agent.turns import clean_text

try:
    import openai
    from langchain_openai.chat_models.base import BaseChatOpenAI
except ImportError as error:
    raise MissingExtraError('--base-url needs langchain-openai: pip install "empathy-agent[server]"') from error

CONNECT = 5.0  # seconds to reach the server
SILENCE = 30.0  # seconds without a token after which it counts as stuck
LONGEST = 180.0  # seconds that one reply may take in all
RETRIES = 2  # after a refused connection, 408, 409, 429 or 5xx, with exponential back-off or as Retry-After says
BUSY = (429, 502, 503, 504)  # said by or in front of a server on which no model can answer now
UNKNOWN = 1_000_000  # tokens of context where the server does not tell; it is then asked, and refuses
SLOW = "it is overloaded, or lower max_new_tokens"
BYTES_A_TOKEN = 3  # fewer than English text has, so that a prompt that is cut to fit does fit


class ServerChatModel(BaseChatOpenAI):
    """A chat model of one server; `bind(model=name)` chooses an expert. Every failure is a `ReplyError` that says what to do."""

    contexts: dict[str, int] = Field(default_factory=dict)
    """Longest prompt and reply in tokens, by model, where the server tells it."""

    # One way through the code: the threads of BaseChatModel, instead of an asynchronous twin.
    _agenerate = BaseChatModel._agenerate
    _astream = BaseChatModel._astream

    @property
    def _llm_type(self) -> str:
        return "empathy-agent-server"

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """What is sent: no text in it spells a control token, or holds what JSON cannot."""
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        return payload | {"messages": _break_all(payload["messages"])}

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        model = kwargs.get("model") or self.model_name
        context = self.contexts.get(model) or UNKNOWN
        messages = cut_messages(messages, (context - kwargs.get("max_tokens", 0)) * BYTES_A_TOKEN)
        end, begun, finished = time.monotonic() + LONGEST, False, False
        where = f"the server at {self.openai_api_base}"
        while True:
            try:
                with clear_errors(str(self.openai_api_base), model):
                    for chunk in super()._stream(messages, stop, run_manager, **kwargs):
                        begun, finished = True, finished or bool((chunk.generation_info or {}).get("finish_reason"))
                        # LangChain gives an id of its own; those of some servers are the same for all replies.
                        chunk.message.id = None
                        yield chunk
                        if time.monotonic() > end:
                            raise UnreachableError(f"{where} wrote for {LONGEST:.0f} seconds without an end: {SLOW}")
                if not finished:
                    raise ReplyError(f"{where} broke off in the middle of a reply of {model!r}")
                return
            except UnreachableError as error:
                lost = isinstance(cause := error.__cause__, openai.APIConnectionError) and not isinstance(
                    cause, openai.APITimeoutError
                )
                if begun and lost:  # it may be back by now
                    raise ReplyError(f"{where} broke off in the middle of a reply of {model!r}: {error}") from error
                raise
            except _TooLongError as error:
                shorter = cut_messages(messages, sum(_measure(message) for message in messages) // 2)
                if len(shorter) == len(messages):
                    raise ReplyError(f"the message is longer than {model} can read: {error}") from error
                messages = shorter


class _TooLongError(Exception):
    """The server refused the prompt for its length; it is asked again with less history."""


@contextmanager
def clear_errors(base_url: str, model: str) -> Iterator[None]:
    """Turns every failure of a request into an error that names server, model and cure.

    Raises:
        UnreachableError: Nobody answers, or not in time: no other model of this server would.
        ReplyError: The server refuses or fails this request.
    """
    where = f"the server at {base_url}"
    try:
        yield
    except openai.APITimeoutError as error:
        raise UnreachableError(f"{where} said nothing for {SILENCE:.0f} seconds: it is overloaded or stuck") from error
    except openai.APIConnectionError as error:
        raise UnreachableError(
            f"{where} does not answer ({error.__cause__ or error}): start it, or correct --base-url"
        ) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise UnreachableError(
            f"{where} refuses the key ({error.status_code}): put the right one into EMPATHY_AGENT_API_KEY"
        ) from error
    except openai.NotFoundError as error:
        raise ReplyError(f"{where} does not serve {model!r}: load it there, or correct its name") from error
    except openai.BadRequestError as error:
        if "context" in str(error) and ("length" in str(error) or "window" in str(error) or "exceed" in str(error)):
            raise _TooLongError(str(error)) from error
        raise ReplyError(f"{where} refuses the request for {model!r}: {error}") from error
    except openai.APIStatusError as error:
        kind = UnreachableError if error.status_code in BUSY else ReplyError
        raise kind(f"{where} failed ({error.status_code}) for {model!r}: {error.message}") from error
    except EmpathyAgentError:
        raise
    except Exception as error:  # whatever a library makes of an answer that is no chat completion
        raise ReplyError(f"{where} answered {model!r} with something that is no chat completion: {error!r}") from error


def cut_messages(messages: Sequence[BaseMessage], room: int) -> list[BaseMessage]:
    """Leaves out the oldest messages until the rest has at most `room` bytes; system messages and the last one stay.

    What stays begins with a user's message, since many chat templates refuse another.
    """
    system = [message for message in messages[:-1] if message.type == "system"]
    rest = [message for message in messages if message not in system]
    room -= sum(_measure(message) for message in system)
    kept: list[BaseMessage] = []
    for message in reversed(rest):
        room -= _measure(message)
        if kept and room < 0:
            break
        kept.append(message)
    while len(kept) > 1 and kept[-1].type == "ai":
        kept.pop()
    return [*system, *reversed(kept)]


def _break_all(value: Any) -> Any:
    """Breaks control tokens in every text of a request; neighbouring blocks of text become one, as a template may join them."""
    if isinstance(value, str):
        return break_control_tokens(clean_text(value))
    if isinstance(value, dict):
        return {key: _break_all(part) for key, part in value.items()}
    if not isinstance(value, list):
        return value
    joined: list[Any] = []
    for part in value:
        if joined and _is_text(part) and _is_text(joined[-1]):
            joined[-1] = {**joined[-1], "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return [_break_all(part) for part in joined]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _measure(message: BaseMessage) -> int:
    return len(str(message.text).encode("utf-8", "replace")) + 8 * BYTES_A_TOKEN  # the template's own tokens


def connect_server(
    base_url: str, model: str | None, experts: Mapping[str, str]
) -> tuple[ServerChatModel, dict[str, str]]:
    """Connects to a server and asks which models it serves.

    Args:
        base_url: Address up to and with `/v1`. The key, where one is needed, is `EMPATHY_AGENT_API_KEY`.
        model: Name under which the server serves the base; None takes the first one it lists that is no adapter.
        experts: Name under which it serves each expert.

    Returns:
        A chat model, to be bound to an expert with `bind(model=name)`, and those of `experts` that the server has.

    Raises:
        InputError: `base_url` is no address.
        ModelError: The server does not answer, or does not serve `model`.
    """
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"--base-url is {base_url!r}: write it like http://localhost:8000/v1")
    chat_model = ServerChatModel(
        base_url=base_url,
        model=model or "",
        api_key=os.environ.get("EMPATHY_AGENT_API_KEY") or "none",  # type: ignore[arg-type]
        max_retries=RETRIES,
        timeout=openai.Timeout(SILENCE, connect=CONNECT),
        streaming=True,
        stream_usage=True,
    )
    try:
        with clear_errors(base_url, "its list of models"):
            listed = [dict(entry) for entry in chat_model.root_client.models.list().data]
            served = {str(entry["id"]): entry for entry in listed}
    except ReplyError as error:
        raise ModelError(f"{error} (is {base_url}/models the list of an OpenAI-compatible server?)") from error
    bases = [name for name, entry in served.items() if not entry.get("parent") and name not in experts.values()]
    if not bases or (model and model not in served):
        raise ModelError(
            f"the server at {base_url} does not serve {model or 'a base'!r}: it serves {', '.join(served) or 'nothing'}"
        )
    found = {expert: name for expert, name in experts.items() if name in served}
    contexts = {name: int(entry["max_model_len"]) for name, entry in served.items() if entry.get("max_model_len")}
    for name in found.values():  # vLLM tells it for the base only
        contexts.setdefault(name, contexts.get(model or bases[0], 0))
    return chat_model.model_copy(update={"model_name": model or bases[0], "contexts": contexts}), found
