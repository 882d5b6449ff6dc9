"""`EmpathyMiddleware`: the right amount of empathy for an agent of `langchain.agents.create_agent`.

Before the agent it reads the user's message as the graph does, around each model call it sees to the words, and after the agent
it assesses the reply and tracks drift, once per user turn. The work is that of the graph's nodes. Needs the extra `langchain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, NotRequired, TypeGuard, cast, get_args

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.runtime import Runtime
from langgraph.types import Command

from empathy_agent.engine import EmpathyEngine, get_engine
from empathy_agent.errors import InputError, MissingExtraError
from empathy_agent.nodes import Nodes, write_guidance
from empathy_agent.rewording import Wording, extend_system, instruct_expert, reword_draft
from empathy_agent.settings import Settings, get_settings
from empathy_agent.state import Assessment, Drift, EmpathyState, Exemplar, Need, Route, Safety, Task
from empathy_agent.telemetry import observe_node
from empathy_agent.turns import LONGEST_MESSAGE

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        hook_config,
    )
    from langchain.agents.middleware.types import OmitFromInput, PrivateStateAttr
except ImportError as error:
    raise MissingExtraError('EmpathyMiddleware needs langchain: pip install "empathy-agent[langchain]"') from error

Mode = Literal["prompt", "adapter", "polish"]


OBSERVED = (
    "screen_message",
    "hand_off",
    "recognize_task",
    "estimate_need",
    "retrieve_exemplars",
    "assess_reply",
    "track_drift",
)


class EmpathyAgentState(AgentState[Any]):
    """What the middleware adds to the agent's state.

    `task` and `drift` last over turns, and are also taken from a host graph that declares them. Everything else speaks of the
    last turn and is None where nothing was read or assessed.
    """

    task: NotRequired[Task]
    drift: NotRequired[Drift]
    safety: NotRequired[Annotated[Safety | None, OmitFromInput]]
    need: NotRequired[Annotated[Need | None, OmitFromInput]]
    desired: NotRequired[Annotated[float | None, OmitFromInput]]
    target: NotRequired[Annotated[float | None, OmitFromInput]]
    expert: NotRequired[Annotated[str | None, OmitFromInput]]
    route: NotRequired[Annotated[Route, OmitFromInput]]
    wording: NotRequired[Annotated[Wording | None, OmitFromInput]]
    assessment: NotRequired[Annotated[Assessment | None, OmitFromInput]]
    exemplars: NotRequired[Annotated[list[Exemplar], PrivateStateAttr]]
    review: NotRequired[Annotated[bool, PrivateStateAttr]]
    awaits_assessment: NotRequired[Annotated[bool, PrivateStateAttr]]


Request = ModelRequest[Any]
Answer = ExtendedModelResponse[Any]


@dataclass(frozen=True)
class Call:
    """A model call as the middleware wants it made."""

    request: Request
    route: Route
    silent: bool = False
    is_draft: bool = False


class EmpathyMiddleware(AgentMiddleware[EmpathyAgentState, Any, Any]):
    """Gives an agent the right amount of empathy. Put it first: a crisis is then answered before any model is called.

    Modes:
        prompt: The host's model writes; the pattern and exemplars go into the system prompt of each of its calls.
        adapter: The expert writes in place of the host's model. Where tools are bound, which experts cannot call, the host's
            model still plans, calls them and drafts, and the expert words the draft as in `polish`.
        polish: The host's model plans, calls tools and drafts, out of sight; the expert words the draft where it misses its
            target. Numbers, names, links, code and what tools returned must survive, or the draft is sent; `wording` says why.
            The words arrive whole, since they are checked first.

    Structured output is filled by the host's model, guided as in `prompt`. The setting `system="base"` leaves the host's words
    alone, as a baseline; `max_revisions` counts rewordings beyond the first, and words that have been streamed are not revised.

    Args:
        mode: Who writes.
        engine: The models behind it; None takes the process's default engine. Nothing is loaded until the first message.
        settings: Settings of every run. A run's `context` goes before them where it is a `Settings`, or has a field `empathy`
            that holds a `Settings` or a mapping with the settings to change.

    Raises:
        InputError: There is no such mode.
        MissingExtraError: langchain is not installed.
    """

    state_schema = EmpathyAgentState

    def __init__(
        self, *, mode: Mode = "prompt", engine: EmpathyEngine | None = None, settings: Settings | None = None
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise InputError(f"mode is {mode!r}: choose one of {', '.join(get_args(Mode))}")
        self.mode: Mode = mode
        self.nodes = Nodes(engine or get_engine())
        for name in OBSERVED:
            setattr(self.nodes, name, observe_node(getattr(self.nodes, name)))
        self.settings = settings

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: EmpathyAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Reads the last user message: danger ends the turn with fixed words, else task, need, target and exemplars."""
        unread = ("safety", "need", "desired", "target", "wording", "assessment")
        update: dict[str, Any] = dict.fromkeys(unread) | {"exemplars": [], "route": "base", "awaits_assessment": False}
        said, _ = _split_turn(state["messages"])
        if not said:
            return update
        update["awaits_assessment"] = True
        runtime = runtime.override(context=self._get_settings(runtime.context))
        screened = self.nodes.screen_message(_view(state, messages=said), runtime)
        cleaned = screened.pop("messages", [])
        # A message that is more than a text, or was shortened to be read, stays as the host has it.
        messages = cleaned if said[-1] in state["messages"] else []
        said = [*said[:-1], *(cleaned or said[-1:])]
        update |= screened
        if screened["safety"]["route"] == "hand_off":
            update |= self.nodes.hand_off(_view(state, **screened, messages=said), runtime)
            update["messages"] = [*messages, *update["messages"]]
            update["jump_to"] = "end"
            if state.get("structured_response") is not None:
                update["structured_response"] = None  # the last turn's is no answer to this one
        else:
            for read in (self.nodes.recognize_task, self.nodes.estimate_need, self.nodes.retrieve_exemplars):
                update |= read(_view(state, **update, messages=said), runtime)
            if messages:
                update["messages"] = messages
        del update["revisions"]
        return update

    async def abefore_agent(self, state: EmpathyAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """The same in a thread."""
        return await asyncio.to_thread(self.before_agent, state, runtime)

    def wrap_model_call(self, request: Request, handler: Callable[[Request], ModelResponse[Any]]) -> Answer:
        """Guides or replaces the model of a call, or words its draft."""
        call = self._prepare(request)
        with _silence(call.silent):
            response = handler(call.request)
        return self._finish(call, response)

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[ModelResponse[Any]]]
    ) -> Answer:
        """The same around an asynchronous call; the middleware's own work is done in threads."""
        call = await asyncio.to_thread(self._prepare, request)
        with _silence(call.silent):
            response = await handler(call.request)
        return await asyncio.to_thread(self._finish, call, response)

    @hook_config(can_jump_to=["model"])
    def after_agent(self, state: EmpathyAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Assesses the reply and tracks drift; waits for a person where the settings say so.

        A person who changes the aim instead of the words has the reply written again.
        """
        if not state.get("awaits_assessment"):
            return None
        settings = self._get_settings(runtime.context)
        runtime = runtime.override(context=replace(settings, max_revisions=0))
        update: dict[str, Any] = {"awaits_assessment": False}
        reply = state["messages"][-1]
        if state["route"] == "hand_off":
            waits = settings.pause_on_hand_off and isinstance(reply, AIMessage)
            return update | (self.nodes.hand_off(_view(state), runtime) if waits else {})
        if not _is_words(reply) or state.get("structured_response") is not None:
            return update
        spoken = [m for m in state["messages"] if not _is_summary(m)]
        assessed = self.nodes.assess_reply(_view(state, messages=spoken, revisions=[]), runtime)
        if "assessment" not in assessed:
            aimed = _view(state, **assessed, messages=spoken[:-1])
            again = {key: assessed[key] for key in ("need", "desired", "target", "expert", "messages")}
            return again | self.nodes.retrieve_exemplars(aimed, runtime) | {"jump_to": "model"}
        update["assessment"] = assessed["assessment"]
        if assessed["messages"][0] != reply:  # a person edited it
            update["messages"] = assessed["messages"]
        return update | self.nodes.track_drift(_view(state, **update), runtime)

    async def aafter_agent(self, state: EmpathyAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The same in a thread."""
        return await asyncio.to_thread(self.after_agent, state, runtime)

    def _get_settings(self, context: Any) -> Settings:
        if isinstance(context, Settings):
            return context
        given = context.get("empathy") if isinstance(context, Mapping) else getattr(context, "empathy", None)
        if isinstance(given, Settings):
            return given
        own = get_settings(self.settings)
        return get_settings({**asdict(own), **given}) if given else own

    def _prepare(self, request: Request) -> Call:
        settings = self._get_settings(request.runtime.context)
        state = _view(request.state, messages=request.messages, revisions=[])
        if state.get("target") is None or settings.system == "base":
            return Call(request, "base", silent=settings.review)
        if self.mode == "prompt" or request.response_format is not None:
            system = extend_system(request.system_message, write_guidance(state, "prompt", settings))
            return Call(request.override(system_message=system), "prompt", silent=settings.review)
        if self.mode == "polish" or request.tools:
            return Call(request, "base", silent=True, is_draft=True)
        route, writer = self.nodes.choose_writer(state, settings)
        system = instruct_expert(request.system_message, state, route, settings)
        swapped = request.override(model=cast(Any, writer), model_settings={}, system_message=system)
        return Call(swapped, route, silent=settings.review)

    def _finish(self, call: Call, response: ModelResponse[Any]) -> Answer:
        update: dict[str, Any] = {"route": call.route}
        said, since = _split_turn(call.request.messages)
        if call.is_draft and said and response.result and _is_words(draft := response.result[-1]):
            reply, update["route"], update["wording"] = reword_draft(
                self.nodes,
                draft,
                state=_view(call.request.state, messages=said),
                system=call.request.system_message,
                results=[str(message.text) for message in since if message.type == "tool"],
                runtime=call.request.runtime.override(context=self._get_settings(call.request.runtime.context)),
            )
            response = replace(response, result=[*response.result[:-1], reply])
        return ExtendedModelResponse(response, Command(update=update))


def _view(state: Mapping[str, Any], **changes: Any) -> EmpathyState:
    """The agent's state as the graph's nodes read it."""
    return cast(EmpathyState, {**state, **changes})


def _split_turn(messages: Sequence[AnyMessage]) -> tuple[list[AnyMessage], list[AnyMessage]]:
    """Splits a conversation behind the last message with text of the user, which is read at both ends where it is long."""
    spoken = [message for message in messages if not _is_summary(message)]
    asked = [i for i, message in enumerate(spoken) if isinstance(message, HumanMessage)]
    if not asked:
        return [], spoken
    last, since = spoken[asked[-1]], spoken[asked[-1] + 1 :]
    text, half = str(last.text), LONGEST_MESSAGE // 2 - 1
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:half]}\n{text[-half:]}"
    elif isinstance(last.content, str):
        return spoken[: asked[-1] + 1], since
    said: list[AnyMessage] = [*spoken[: asked[-1]], HumanMessage(text, id=last.id)]
    return (said if text.strip() else []), since


def _is_summary(message: BaseMessage) -> bool:
    """Whether `SummarizationMiddleware` wrote a message in the user's name."""
    return message.additional_kwargs.get("lc_source") == "summarization"


def _is_words(message: BaseMessage) -> TypeGuard[AIMessage]:
    """Whether a message speaks to the user, and calls no tool."""
    return isinstance(message, AIMessage) and not message.tool_calls and bool(str(message.text).strip())


@contextmanager
def _silence(silent: bool) -> Iterator[None]:
    """Keeps the tokens of every model called inside out of `stream_mode="messages"`, whichever model another middleware takes."""
    config = ensure_config()
    tags = [*(config.get("tags") or []), *([TAG_NOSTREAM] if silent else [])]
    token = var_child_runnable_config.set({**config, "tags": tags})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
