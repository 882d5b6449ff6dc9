"""`EmpathyMiddleware`: the right amount of empathy for an agent of `langchain.agents.create_agent`.

Before the agent it reads the user's message as the graph does, around each model call it sees to the words, and after the agent
it assesses the reply and tracks drift, once per user turn. The work is that of the graph's nodes. Needs the extra `langchain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, NotRequired, cast, get_args

from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from empathy_agent.engine import EmpathyEngine, get_engine
from empathy_agent.errors import InputError, MissingExtraError, ModelError, ReplyError
from empathy_agent.nodes import Nodes, write_guidance
from empathy_agent.rewording import Wording, extend_system, instruct_expert, reword_draft
from empathy_agent.routes import SYSTEMS, plan_attempts, shorten_reason
from empathy_agent.settings import Settings, get_settings
from empathy_agent.silence import silenced
from empathy_agent.spoken import is_summary, is_words, split_turn, view_state
from empathy_agent.state import Assessment, Drift, Exemplar, Need, Route, Safety, Task
from empathy_agent.telemetry import observe_node

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
    last turn and is None where nothing was read or assessed. `route_reason` says why the wanted expert did not write, and is
    empty where it did or none was wanted.
    """

    task: NotRequired[Task]
    drift: NotRequired[Drift]
    safety: NotRequired[Annotated[Safety | None, OmitFromInput]]
    need: NotRequired[Annotated[Need | None, OmitFromInput]]
    desired: NotRequired[Annotated[float | None, OmitFromInput]]
    target: NotRequired[Annotated[float | None, OmitFromInput]]
    expert: NotRequired[Annotated[str | None, OmitFromInput]]
    route: NotRequired[Annotated[Route, OmitFromInput]]
    route_reason: NotRequired[Annotated[str, OmitFromInput]]
    wording: NotRequired[Annotated[Wording | None, OmitFromInput]]
    assessment: NotRequired[Annotated[Assessment | None, OmitFromInput]]
    exemplars: NotRequired[Annotated[list[Exemplar], PrivateStateAttr]]
    review: NotRequired[Annotated[bool, PrivateStateAttr]]
    awaits_assessment: NotRequired[Annotated[bool, PrivateStateAttr]]


Request = ModelRequest[Any]
Answer = ExtendedModelResponse[Any]


@dataclass(frozen=True)
class Call:
    """A model call as the middleware wants it made; `retry` gives the call to make when this one fails with an error."""

    request: Request
    route: Route
    reason: str = ""
    retry: Callable[[Exception], Call] | None = None
    silent: bool = False
    is_draft: bool = False


class EmpathyMiddleware(AgentMiddleware[EmpathyAgentState, Any, Any]):
    """Gives an agent the right amount of empathy. Put it first: a crisis is then answered before any model is called.

    Modes:
        prompt: The host's model writes; the pattern and exemplars go into the system prompt of each of its calls.
        adapter: The expert writes in place of the host's model. Where tools are bound, which experts cannot call, the host's
            model still plans, calls them and drafts, and the expert words the draft as in `polish`. Where a server of experts
            fails and no fallback of the engine can write, the host's model does, guided as in `prompt`.
        polish: The host's model plans, calls tools and drafts, out of sight; the expert words the draft where it misses its
            target. Numbers, names, links, code and what tools returned must survive, or the draft is sent; `wording` says why.
            The words arrive whole, since they are checked first. Where no expert can write, the draft is sent.

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
        update: dict[str, Any] = dict.fromkeys(unread) | {
            "exemplars": [],
            "route": "base",
            "route_reason": "",
            "awaits_assessment": False,
        }
        said, _ = split_turn(state["messages"])
        if not said:
            return update
        update["awaits_assessment"] = True
        runtime = runtime.override(context=self._get_settings(runtime.context))
        screened = self.nodes.screen_message(view_state(state, messages=said), runtime)
        cleaned = screened.pop("messages", [])
        # A message that is more than a text, or was shortened to be read, stays as the host has it.
        messages = cleaned if said[-1] in state["messages"] else []
        said = [*said[:-1], *(cleaned or said[-1:])]
        update |= screened
        if screened["safety"]["route"] == "hand_off":
            update |= self.nodes.hand_off(view_state(state, **screened, messages=said), runtime)
            update["messages"] = [*messages, *update["messages"]]
            update["jump_to"] = "end"
            if state.get("structured_response") is not None:
                update["structured_response"] = None  # the last turn's is no answer to this one
        else:
            for read in (self.nodes.recognize_task, self.nodes.estimate_need, self.nodes.retrieve_exemplars):
                update |= read(view_state(state, **update, messages=said), runtime)
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
        while True:
            try:
                with silenced(call.silent):
                    response = handler(call.request)
                break
            except (ReplyError, ModelError) as error:
                if call.retry is None:
                    raise
                call = call.retry(error)
        return self._finish(call, response)

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[ModelResponse[Any]]]
    ) -> Answer:
        """The same around an asynchronous call; the middleware's own work is done in threads."""
        call = await asyncio.to_thread(self._prepare, request)
        while True:
            try:
                with silenced(call.silent):
                    response = await handler(call.request)
                break
            except (ReplyError, ModelError) as error:
                if call.retry is None:
                    raise
                call = await asyncio.to_thread(call.retry, error)
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
            return update | (self.nodes.hand_off(view_state(state), runtime) if waits else {})
        if not is_words(reply) or state.get("structured_response") is not None:
            return update
        spoken = [m for m in state["messages"] if not is_summary(m)]
        assessed = self.nodes.assess_reply(view_state(state, messages=spoken, revisions=[]), runtime)
        if "assessment" not in assessed:
            aimed = view_state(state, **assessed, messages=spoken[:-1])
            again = {key: assessed[key] for key in ("need", "desired", "target", "expert", "messages")}
            return again | self.nodes.retrieve_exemplars(aimed, runtime) | {"jump_to": "model"}
        update["assessment"] = assessed["assessment"]
        if assessed["messages"][0] != reply:  # a person edited it
            update["messages"] = assessed["messages"]
        return update | self.nodes.track_drift(view_state(state, **update), runtime)

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
        state = view_state(request.state, messages=request.messages, revisions=[])
        if state.get("target") is None or settings.system == "base":
            return Call(request, "base", silent=settings.review)
        system = extend_system(request.system_message, write_guidance(state, "prompt", settings))
        guided = Call(request.override(system_message=system), "prompt", silent=settings.review)
        if self.mode == "prompt" or request.response_format is not None:
            return guided
        if self.mode == "polish" or request.tools:
            return Call(request, "base", silent=True, is_draft=True)
        plan = plan_attempts(self.nodes.engine, SYSTEMS[settings.system], state["expert"])

        def swap(error: Exception | None = None) -> Call:
            """Puts the next writer in the place of the host's model, which writes itself where none is left."""
            try:
                route, fallback, reason = plan.throw(error) if error else next(plan)
            except (ReplyError, ModelError) as failure:
                if not self.nodes.engine.base_url:
                    raise
                return replace(guided, reason=shorten_reason(f"host's model: {failure}"))
            try:
                writer = self.nodes.bind_writer(state, route, settings, fallback)
            except (ReplyError, ModelError) as failure:
                return swap(failure)
            told = instruct_expert(request.system_message, state, route, settings)
            swapped = request.override(model=cast(Any, writer), model_settings={}, system_message=told)
            return Call(swapped, route, reason, swap, silent=settings.review)

        return swap()

    def _finish(self, call: Call, response: ModelResponse[Any]) -> Answer:
        update: dict[str, Any] = {"route": call.route, "route_reason": call.reason}
        said, since = split_turn(call.request.messages)
        if call.is_draft and said and response.result and is_words(draft := response.result[-1]):
            reply, update["route"], update["route_reason"], update["wording"] = reword_draft(
                self.nodes,
                draft,
                state=view_state(call.request.state, messages=said),
                system=call.request.system_message,
                results=[str(message.text) for message in since if message.type == "tool"],
                runtime=call.request.runtime.override(context=self._get_settings(call.request.runtime.context)),
            )
            response = replace(response, result=[*response.result[:-1], reply])
        return ExtendedModelResponse(response, Command(update=update))
