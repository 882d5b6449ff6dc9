"""`EmpathyMiddleware` in real agents of `create_agent`; the host's model is scripted, the readings are the shipped ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
    hook_config,
)
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel, Field

import empathy_agent
from empathy_agent import (
    EmpathyEngine,
    EmpathyMiddleware,
    ExpertChatModel,
    InputError,
    MissingExtraError,
    ModelError,
    Settings,
)
from empathy_agent.prompts import write_prompt

LOST = "My dad died last week and I can't stop crying"
COLD = "The clinic offers grief counselling."
WARM = (
    "Losing your dad only a week ago, and the tears keep coming. Of course they do. Whenever you want company in that, "
    "the clinic offers grief counselling. What do you miss most?"
)


class ScriptedModel(GenericFakeChatModel):
    """Says its script word by word, calls tools from it, and remembers what it was given."""

    given: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.given.append(messages)
        return super()._generate(messages, *args, **kwargs)


def script(*replies: str | AIMessage) -> ScriptedModel:
    said = iter([AIMessage(reply) if isinstance(reply, str) else reply for reply in replies])
    return ScriptedModel(messages=said)


def call(tool: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": args, "id": f"call-{tool}"}])


def expert(*replies: str) -> EmpathyEngine:
    return EmpathyEngine(chat_model=script(*replies))


def say(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def find_parcel(number: int) -> str:
    """Finds a parcel."""
    return f'{{"parcel": {number}, "place": "Leeds depot", "arrives": "Friday"}}'


# Reading


def test_a_crisis_is_answered_with_fixed_words_before_any_model_and_clears_what_is_stale():
    host = script()
    agent = create_agent(host, tools=[find_parcel], middleware=[EmpathyMiddleware(mode="polish")])
    state = agent.invoke({**say("I want to kill myself"), "structured_response": "of the last turn"})
    assert "988" in state["messages"][-1].text
    assert (state["route"], state["safety"]["category"]) == ("hand_off", "self_harm")
    assert not host.given
    assert "drift" not in state
    assert state.get("structured_response") is None


def test_a_hand_off_can_wait_for_a_person():
    middleware = EmpathyMiddleware(settings=Settings(pause_on_hand_off=True))
    agent = create_agent(script(), middleware=[middleware], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "wait"}}
    paused = agent.invoke(say("I want to kill myself"), config)
    assert "988" in paused["messages"][-1].text
    assert paused["__interrupt__"][0].value["hand_off"]["category"] == "self_harm"
    state = agent.invoke(Command(resume={"reply": "A colleague is calling you now."}), config)
    assert [m.type for m in state["messages"]] == ["human", "ai", "ai"]
    assert state["messages"][-1].text == "A colleague is calling you now."


def test_task_need_and_drift_go_on_over_turns_and_bulk_stays_private():
    agent = create_agent(
        script("Paddington 2.", "Try Airplane!", "Gladly."),
        middleware=[EmpathyMiddleware()],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "turns"}}
    for turn, text in enumerate(["A funny film please", "something from the 80s", "thanks"], 1):
        state = agent.invoke(say(text), config)
        assert state["task"]["label"] == "movie_recommendation"
        assert state["drift"]["turns"] == turn
        assert state["assessment"]["level"] < 0.5
    assert {"safety", "need", "target", "expert", "route"} <= set(state)
    assert not {"exemplars", "review", "awaits_assessment"} & set(state)


def test_drift_counts_a_user_turn_once_however_often_the_model_is_called():
    host = script(call("find_parcel", number=1), call("find_parcel", number=2), "Parcel 2 is at the Leeds depot.")
    state = create_agent(host, [find_parcel], middleware=[EmpathyMiddleware()]).invoke(say("where are my parcels"))
    assert len(host.given) == 3
    assert state["drift"]["turns"] == 1


def test_a_turn_that_another_middleware_ends_before_the_reading_is_not_assessed():
    class Guard(AgentMiddleware):
        @hook_config(can_jump_to=["end"])
        def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            return (
                {"messages": [AIMessage("Closed.")], "jump_to": "end"} if "now" in state["messages"][-1].text else None
            )

    agent = create_agent(script("Gladly."), middleware=[Guard(), EmpathyMiddleware()], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "guard"}}
    agent.invoke(say("hello there"), config)
    assert agent.invoke(say("and now?"), config)["drift"]["turns"] == 1


def test_a_picture_is_passed_on_unread_and_a_long_text_is_read_at_both_ends():
    picture = HumanMessage([{"type": "image", "url": "https://example.org/a.png"}])
    agent = create_agent(script("A cat.", "Noted."), middleware=[EmpathyMiddleware()])
    state = agent.invoke({"messages": [picture]})
    assert (state["target"], state["route"], state["messages"][-1].text) == (None, "base", "A cat.")
    long = "Please look at this log. " + "line of the log. " * 4000
    state = agent.invoke(say(long))
    assert state["messages"][0].text == long
    assert create_agent(script(), middleware=[EmpathyMiddleware()]).invoke(say(long + "I want to kill myself."))[
        "route"
    ] == "hand_off"  # fmt: skip


def test_an_empty_message_is_a_clear_error_and_half_characters_are_cleaned():
    agent = create_agent(script("Hello."), middleware=[EmpathyMiddleware()])
    with pytest.raises(InputError, match="the message is empty"):
        agent.invoke(say("  "))
    assert agent.invoke(say("a film\ud83d please"))["messages"][0].text == "a film please"


# Modes


def test_prompt_guides_every_call_behind_the_hosts_own_prompt():
    host = script(call("find_parcel", number=4711), "Parcel 4711 arrives on Friday.")
    agent = create_agent(host, [find_parcel], system_prompt="You are Bob of ACME.", middleware=[EmpathyMiddleware()])
    state = agent.invoke(say("My parcel 4711 is late for the third time and I am furious!!"))
    assert (state["route"], state["messages"][-1].text) == ("prompt", "Parcel 4711 arrives on Friday.")
    pattern = write_prompt(f"pattern_{state['expert']}")
    for messages in host.given:
        assert str(messages[0].content).startswith("You are Bob of ACME.\n\n")
        assert pattern in messages[0].content
        assert [m.type for m in messages].count("system") == 1


def test_prompt_adds_a_block_where_the_hosts_prompt_has_blocks():
    cached = {"type": "text", "text": "Rules.", "cache_control": {"type": "ephemeral"}}
    host = script("I hear you.")
    create_agent(host, system_prompt=SystemMessage([cached]), middleware=[EmpathyMiddleware()]).invoke(say(LOST))
    blocks = host.given[0][0].content
    assert blocks[0] == cached
    assert blocks[1]["type"] == "text"


def test_adapter_answers_with_the_shipped_expert_and_streams_it(engine: EmpathyEngine):
    host = script()
    middleware = EmpathyMiddleware(mode="adapter", engine=engine, settings=Settings(temperature=0, max_new_tokens=16))
    agent = create_agent(host, middleware=[middleware])
    pieces = [m.text for m, _ in agent.stream(say("A funny film please"), stream_mode="messages") if m.text]
    state = agent.invoke(say("A funny film please"))
    assert not host.given
    assert len(pieces) > 3
    assert "".join(pieces).strip() == state["messages"][-1].text.strip()
    assert state["messages"][-1].response_metadata["adapter"] == state["expert"] == "factual"
    assert state["route"] == "adapter"


def test_adapter_leaves_tools_to_the_hosts_model_and_words_what_they_found():
    host = script(call("find_parcel", number=4711), "Parcel 4711 is at the Leeds depot. It arrives on Friday.")
    warm = "A third delay would make anyone cross. Parcel 4711 is at the Leeds depot, and it arrives on Friday."
    middleware = EmpathyMiddleware(mode="adapter", engine=expert(warm), settings=Settings(tolerance=0, max_revisions=0))
    agent = create_agent(host, [find_parcel], middleware=[middleware])
    state = agent.invoke(say("My parcel 4711 is late for the third time and I am furious!!"))
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == warm
    assert state["wording"] == {"by": "expert", "attempts": 1, "changes": []}


def test_an_expert_as_the_hosts_own_model_says_who_must_call_its_tools():
    agent = create_agent(ExpertChatModel(), [find_parcel], middleware=[EmpathyMiddleware(mode="adapter")])
    with pytest.raises(InputError, match="let the host's own model call them"):
        agent.invoke(say("where is my parcel"))


async def stream(agent: Any, asynchronous: bool, text: str, config: Any = None) -> list[BaseMessage]:
    if asynchronous:
        return [m async for m, _ in agent.astream(say(text), config, stream_mode="messages")]
    return [m for m, _ in agent.stream(say(text), config, stream_mode="messages")]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_polish_shows_only_the_final_words_under_the_drafts_id(asynchronous: bool):
    writer = expert(WARM, WARM)
    draft = AIMessage(COLD, id="draft-7")
    # A fallback chosen by a middleware inside must not stream the draft either.
    agent = create_agent(
        script(),
        middleware=[EmpathyMiddleware(mode="polish", engine=writer), ModelFallbackMiddleware(script(draft))],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "polish"}}
    shown = await stream(agent, asynchronous, LOST, config)
    assert [m.text for m in shown if isinstance(m, AIMessage)] == [WARM]
    state = agent.get_state(config).values
    assert (state["messages"][-1].text, state["messages"][-1].id) == (WARM, "draft-7")
    assert (state["route"], state["wording"]["by"], state["wording"]["changes"]) == ("prompt", "expert", [])
    assert state["drift"]["turns"] == 1
    system, *_, asked = writer.chat_model.given[0]
    assert COLD in asked.content, "the draft may hold words of a tool, so it is no system prompt"
    assert COLD not in system.content


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        ("It breaks a heart to lose a dad. The clinic offers grief counselling from 9:30.", "made up 9:30"),
        ("Losing a dad, and the tears keep coming. The tide turns twice a day. What do you miss?", "lost the meaning"),
    ],
)
def test_polish_falls_back_to_the_draft_where_facts_do_not_survive(wrong: str, change: str):
    middleware = EmpathyMiddleware(mode="polish", engine=expert(wrong, wrong))
    state = create_agent(script(COLD), middleware=[middleware]).invoke(say(LOST))
    assert state["messages"][-1].text == COLD
    assert state["route"] == "base"
    assert (state["wording"]["by"], state["wording"]["attempts"]) == ("draft", 2)
    assert change in state["wording"]["changes"]


def test_a_writer_that_fails_does_not_lose_the_draft_and_one_that_is_missing_is_an_error():
    class Down(ScriptedModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("gone")

    down = EmpathyEngine(chat_model=Down(messages=iter([])))
    state = create_agent(script(COLD), middleware=[EmpathyMiddleware(mode="polish", engine=down)]).invoke(say(LOST))
    assert state["messages"][-1].text == COLD
    assert state["wording"] == {"by": "draft", "attempts": 1, "changes": ["failed with ConnectionError"]}
    nowhere = EmpathyEngine(model="/no/such/folder")
    with pytest.raises(ModelError):
        create_agent(script(COLD), middleware=[EmpathyMiddleware(mode="polish", engine=nowhere)]).invoke(say(LOST))


def test_polish_keeps_what_a_tool_returned():
    host = script(call("find_parcel", number=4711), "Parcel 4711 is in Leeds at the depot until Friday.")
    vague = "A third delay would make anyone cross. Parcel 4711 is in Leeds until Friday."
    middleware = EmpathyMiddleware(mode="polish", engine=expert(vague), settings=Settings(tolerance=0, max_revisions=0))
    state = create_agent(host, [find_parcel], middleware=[middleware]).invoke(say("my parcel is late again!!"))
    assert state["messages"][-1].text.endswith("depot until Friday.")
    assert state["wording"]["changes"] == ["lost depot"]


def test_polish_leaves_a_draft_that_meets_its_target_and_one_with_citations():
    engine = expert()
    agent = create_agent(script("Try Paddington 2."), middleware=[EmpathyMiddleware(mode="polish", engine=engine)])
    state = agent.invoke(say("A funny film please"))
    assert state["wording"] == {"by": "draft", "attempts": 0, "changes": []}
    cited = AIMessage([{"type": "text", "text": COLD, "annotations": [{"type": "citation", "url": "https://a.org"}]}])
    agent = create_agent(script(cited), middleware=[EmpathyMiddleware(mode="polish", engine=engine)])
    assert agent.invoke(say(LOST))["messages"][-1].content == cited.content


def test_polish_keeps_reasoning_beside_the_new_words():
    draft = AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": COLD}])

    class Plain(ScriptedModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    host = Plain(messages=iter([draft]), disable_streaming=True)
    state = create_agent(host, middleware=[EmpathyMiddleware(mode="polish", engine=expert(WARM))]).invoke(say(LOST))
    assert state["messages"][-1].content == [draft.content[0], {"type": "text", "text": WARM}]


def test_polish_with_the_shipped_experts_never_loses_a_fact(engine: EmpathyEngine):
    host = script(call("find_parcel", number=4711), "Parcel 4711 arrives on Friday.")
    middleware = EmpathyMiddleware(mode="polish", engine=engine, settings=Settings(max_new_tokens=24))
    state = create_agent(host, [find_parcel], middleware=[middleware]).invoke(
        say("my parcel 4711 is lost, I'm so upset")
    )
    assert "4711" in state["messages"][-1].text
    assert "Friday" in state["messages"][-1].text
    assert state["wording"]["attempts"] >= 1


# Beside other parts of an agent


class Parcel(BaseModel):
    number: int
    words: str


@pytest.mark.parametrize("mode", ["prompt", "adapter", "polish"])
def test_structured_output_is_filled_by_the_guided_hosts_model(mode: Any):
    host = script(call("Parcel", number=4711, words="It is late."))
    agent = create_agent(host, response_format=Parcel, middleware=[EmpathyMiddleware(mode=mode, engine=expert())])
    state = agent.invoke(say("My parcel is late and I am furious"))
    assert state["structured_response"] == Parcel(number=4711, words="It is late.")
    assert state["route"] == "prompt"
    assert state["assessment"] is None
    assert "drift" not in state
    assert write_prompt(f"pattern_{state['expert']}") in host.given[0][0].content


@pytest.mark.parametrize("mode", ["prompt", "polish"])
async def test_an_approval_of_a_tool_continues_the_same_turn(mode: Any):
    host = script(call("find_parcel", number=4711), "Parcel 4711 arrives on Friday.")
    agent = create_agent(
        host,
        [find_parcel],
        middleware=[
            EmpathyMiddleware(mode=mode, engine=expert(), settings=Settings(tolerance=1)),
            HumanInTheLoopMiddleware(interrupt_on={"find_parcel": True}),
        ],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": mode}}
    paused = await agent.ainvoke(say("where is parcel 4711"), config)
    assert paused["__interrupt__"]
    state = await agent.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert state["messages"][-1].text == "Parcel 4711 arrives on Friday."
    assert state["drift"]["turns"] == 1


def test_a_summary_is_not_taken_for_the_users_words():
    summary = "The user talked about wanting to kill myself in a film title."
    agent = create_agent(
        script(*["Gladly."] * 4),
        middleware=[
            EmpathyMiddleware(),
            SummarizationMiddleware(script(*[summary] * 4), trigger=("messages", 3), keep=("messages", 1)),
        ],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "long"}}
    for turn, text in enumerate(["A funny film please", "something from the 80s", "and a newer one", "thanks"], 1):
        state = agent.invoke(say(text), config)
        assert (state["safety"]["route"], state["drift"]["turns"]) == ("continue", turn)
    assert state["messages"][0].additional_kwargs["lc_source"] == "summarization"
    assert state["task"]["label"] == "movie_recommendation"


def test_a_person_can_edit_the_reply():
    middleware = EmpathyMiddleware(settings=Settings(review=True))
    agent = create_agent(script("First words."), middleware=[middleware], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "review"}}
    assert agent.invoke(say("which train goes to Lyon"), config)["__interrupt__"][0].value["reply"] == "First words."
    state = agent.invoke(Command(resume={"reply": "The 9:40."}), config)
    assert [m.text for m in state["messages"]] == ["which train goes to Lyon", "The 9:40."]
    assert state["drift"]["turns"] == 1


# Settings


@dataclass
class HostContext:
    user: str = "ann"
    empathy: dict[str, Any] = field(default_factory=dict)


def test_a_runs_context_goes_before_the_constructors_settings():
    middleware = EmpathyMiddleware(settings=Settings(level=0.9, expert="compassionate"))
    agent = create_agent(script(*["Hm."] * 4), middleware=[middleware], context_schema=HostContext)
    assert agent.invoke(say("a film please"), context=HostContext())["target"] == 0.9
    state = agent.invoke(say("a film please"), context=HostContext(empathy={"level": 0.3}))
    assert (state["target"], state["expert"]) == (0.3, "compassionate")
    with pytest.raises(InputError, match="unknown settings gushing"):
        agent.invoke(say("a film please"), context=HostContext(empathy={"gushing": 1}))
    agent = create_agent(script("Hm."), middleware=[middleware], context_schema=Settings)
    assert agent.invoke(say("a film please"), context=Settings(level=0.2, expert="factual"))["expert"] == "factual"


def test_base_leaves_the_hosts_words_alone_but_measures_them():
    host = script(COLD)
    middleware = EmpathyMiddleware(mode="polish", engine=expert(), settings=Settings(system="base"))
    state = create_agent(host, system_prompt="Rules.", middleware=[middleware]).invoke(say(LOST))
    assert host.given[0][0].content == "Rules."
    assert (state["messages"][-1].text, state["route"], state["drift"]["turns"]) == (COLD, "base", 1)


def test_an_unknown_mode_and_a_missing_langchain_name_the_cure(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="mode is 'gush': choose one of prompt, adapter, polish"):
        EmpathyMiddleware(mode="gush")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    monkeypatch.delitem(sys.modules, "empathy_agent.middleware")
    with pytest.raises(MissingExtraError, match=r"empathy-agent\[langchain\]"):
        empathy_agent.EmpathyMiddleware  # noqa: B018
