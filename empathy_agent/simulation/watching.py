"""A session as a graph, for watching it in LangGraph Studio: user, agent, emotion, and round again.

START → write_message → empathetic_chat (the agent, a subgraph) → move_emotion ─┐
             ↑──────────────────── while turns and patience last ───────────────┴→ END
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from empathy_agent.engine import EmpathyEngine, get_engine
from empathy_agent.errors import InputError
from empathy_agent.graph import build_graph
from empathy_agent.settings import Settings, _at
from empathy_agent.simulation.apps import derive_seed
from empathy_agent.simulation.emotion import START as START_EMOTION
from empathy_agent.simulation.emotion import learned_judge, move_emotion, name_outcome
from empathy_agent.simulation.personas import list_hidden, local_user, name_mood
from empathy_agent.simulation.role import find_breaks
from empathy_agent.state import EmpathyState
from empathy_agent.turns import get_turns

PERSONA = ("who", "talks", "pleases", "puts_off")


@dataclass(frozen=True, kw_only=True)
class SessionSettings(Settings):
    """Who the simulated user is, how long it talks, and every setting of the agent."""

    who: Annotated[str, _at("write_message", description="Who the user is.")] = "27, Leeds, chef on late shifts"
    wants: Annotated[str, _at("write_message", description="What the user wants from the conversation.")] = (
        "a sleep plan that fits"
    )
    talks: Annotated[str, _at("write_message", description="How the user writes.")] = "tired, short sentences"
    hides: Annotated[str, _at("write_message", description="What comes out in the third message.")] = (
        "the new job is on the line if the lateness goes on"
    )
    pleases: Annotated[str, _at("write_message", description="What pleases the user.")] = "one small step"
    puts_off: Annotated[str, _at("write_message", description="What puts the user off.")] = "lectures"
    opening: Annotated[
        str,
        _at("write_message", prompt=True, description="The first message; empty lets the model write it."),
    ] = "Home at 2, wide awake till 5, up at 10. How do I fix this?"
    task: Annotated[str, _at("move_emotion", description="What it is about, for the desired empathy.")] = (
        "health_coaching"
    )
    turns: Annotated[int, _at("move_emotion", description="Messages of the user at most.", ge=1, le=100)] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.turns, int) or not 1 <= self.turns <= 100:
            raise InputError(f"setting turns is {self.turns!r}: it must be a number from 1 to 100")
        if not self.who.strip() or not self.wants.strip():
            raise InputError("settings who and wants are empty: say who the user is and what it wants")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """In this graph the agent's settings belong to the node that the whole agent is."""
        schema: dict[str, Any] = handler.resolve_ref_schema(handler(core))
        for field in fields(Settings):
            schema["properties"][field.name]["langgraph_nodes"] = ["empathetic_chat"]
        return schema


class SessionState(EmpathyState):
    """The agent's state and the session's.

    `persona` is who the user is and how it talks, `wants` its goal; `disclosed` is what it has come out with, `hidden` what it
    still keeps to itself. `emotion` is a number from 0 to 100 at the start and after each reply, `mood` the last one in words.
    """

    persona: NotRequired[dict[str, str]]
    wants: NotRequired[str]
    disclosed: NotRequired[list[str]]
    hidden: NotRequired[list[str]]
    emotion: NotRequired[list[float]]
    mood: NotRequired[str]
    status: NotRequired[Literal["talking", "done", "left", "handed_off"]]
    out_of_role: NotRequired[list[str]]


def get_session_settings(context: SessionSettings | Mapping[str, Any] | None) -> SessionSettings:
    """Returns the run's settings; LangGraph gives None when the caller passed no context."""
    if isinstance(context, SessionSettings):
        return context
    try:
        return SessionSettings(**(asdict(context) if isinstance(context, Settings) else context or {}))
    except TypeError as error:
        raise InputError(f"{error}: known are {', '.join(SessionSettings.__dataclass_fields__)}") from None


def build_session_graph(*, engine: EmpathyEngine | None = None) -> StateGraph[SessionState, SessionSettings]:
    """Builds the graph of one session, uncompiled; start it with `{"messages": []}`, or with turns to go on from.

    Args:
        engine: The models of agent, user and judge; None takes the process's default engine.
    """
    engine = engine or get_engine()

    def write_message(state: SessionState, runtime: Runtime[SessionSettings]) -> dict[str, Any]:
        settings = get_session_settings(runtime.context)
        turns = get_turns(state["messages"])
        trajectory = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        counter = sum(turn["role"] == "user" for turn in turns)
        emotion = state.get("emotion") or [START_EMOTION]
        persona = asdict(settings)
        user = local_user(engine, persona)
        for attempt in range(2):
            seed = derive_seed(1000 * attempt + counter + 1, f"{settings.seed} user")
            written = user.write(trajectory, counter, emotion[-1], seed, attempt)
            breaks = find_breaks(written["content"], trajectory)
            if not breaks:
                break
        disclosed = list(state.get("disclosed", []))
        update: dict[str, Any] = {
            "persona": {name: persona[name] for name in PERSONA},
            "wants": settings.wants,
            "emotion": emotion,
            "mood": name_mood(emotion[-1]),
            "out_of_role": breaks,
        }
        if "empty" in breaks:
            update["status"] = "done"
        else:
            disclosed += [written["disclosed"]] if written["disclosed"] else []
            update |= {"messages": [HumanMessage(written["content"], name="simulated_user")], "status": "talking"}
        hidden = [thing for thing in list_hidden(persona) if thing not in disclosed]
        return {**update, "disclosed": disclosed, "hidden": hidden}

    def move(state: SessionState, runtime: Runtime[SessionSettings]) -> dict[str, Any]:
        settings = get_session_settings(runtime.context)
        if state.get("route") == "hand_off":
            return {"status": "handed_off"}
        turns = get_turns(state["messages"])
        trajectory = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        judged = learned_judge(engine)(trajectory, settings.task, asdict(settings))
        emotion = [
            *state.get("emotion", [START_EMOTION]),
            move_emotion(state.get("emotion", [START_EMOTION])[-1], judged),
        ]
        over = sum(turn["role"] == "user" for turn in turns) >= settings.turns
        status = name_outcome(emotion[-1]) or ("done" if over else "talking")
        return {"emotion": emotion, "mood": name_mood(emotion[-1]), "status": status}

    graph = StateGraph(SessionState, context_schema=SessionSettings)
    writes = "user message, persona, wants, disclosed, hidden"
    graph.add_node("write_message", write_message, metadata={"reads": "settings, emotion", "writes": writes})
    agent = build_graph(engine=engine).compile()
    graph.add_node("empathetic_chat", agent, metadata={"reads": "conversation, drift", "writes": "reply, drift"})
    graph.add_node("move_emotion", move, metadata={"reads": "reply", "writes": "emotion, mood, status"})
    graph.add_edge(START, "write_message")
    graph.add_conditional_edges("write_message", route_session, {"go": "empathetic_chat", "end": END})
    graph.add_edge("empathetic_chat", "move_emotion")
    graph.add_conditional_edges("move_emotion", route_session, {"go": "write_message", "end": END})
    return graph


def route_session(state: SessionState) -> Literal["go", "end"]:
    """On while both are talking."""
    return "go" if state.get("status") == "talking" else "end"
