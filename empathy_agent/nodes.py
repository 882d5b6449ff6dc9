"""The graph's eight nodes: each reads the state, asks the engine, and returns only its own keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from empathy_agent import drift, need, recognition, safety
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.measures import measure_gap
from empathy_agent.prompts import write_prompt
from empathy_agent.settings import Settings, get_settings
from empathy_agent.state import Assessment, EmpathyState
from empathy_agent.turns import Turn, check_text, get_turns

HISTORY = 40  # turns that the readings look back on; older ones weigh nothing


class Nodes:
    """The nodes over one engine. Every method is a node and takes the state and LangGraph's runtime."""

    def __init__(self, engine: EmpathyEngine):
        self.engine = engine

    def screen_message(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Checks the input and screens the last user message in its context for danger."""
        if not state["messages"] or not isinstance(state["messages"][-1], HumanMessage):
            raise InputError("the last message must be the user's: a HumanMessage, or {'role': 'user', 'content': …}")
        last = state["messages"][-1]
        text = str(last.text)
        clean = check_text(text)
        history = [*_history({"messages": state["messages"][:-1]}), Turn(role="user", content=clean)]
        (found,) = safety.screen_turns(self.engine.heads["danger"], self.engine.danger_encoder, [history])
        update: dict[str, Any] = {"safety": found, "review": get_settings(runtime.context).review}
        if clean != text.strip():
            update["messages"] = [last.model_copy(update={"content": clean})]
        return update

    def hand_off(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Answers danger with fixed words and human contacts, then waits for a person where that is set; no model writes here."""
        if isinstance(state["messages"][-1], AIMessage):
            answer = interrupt({"hand_off": state["safety"], "reply": str(state["messages"][-1].text)})
            reply = answer.get("reply") if isinstance(answer, dict) else answer
            said = [AIMessage(check_text(reply), id=str(uuid4()))] if isinstance(reply, str) and reply.strip() else []
            return {"messages": said}
        words = write_prompt(f"hand_off_{state['safety']['category']}")
        cleared = dict.fromkeys(("need", "desired", "target", "expert", "assessment"))
        message = AIMessage(words, id=str(uuid4()), response_metadata={"route": "hand_off"})
        return {"messages": [message], "route": "hand_off", "exemplars": [], "revisions": [], **cleared}

    def recognize_task(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Recognizes the task from the conversation so far; the standing one has inertia."""
        before = state.get("task")
        standing = before["label"] if before else None
        task = recognition.recognize_task(self.engine.heads["task"], self.engine.encoder, _history(state), standing)
        return {"task": task}

    def estimate_need(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Estimates the need, the target that follows from it, and the expert whose pattern is nearest."""
        settings, tasks = get_settings(runtime.context), self.engine.tasks
        found = need.read_need(self.engine.heads["need"], self.engine.encoder, _history(state))
        label, before = state["task"]["label"], state.get("drift")
        if settings.level is not None:
            desired = target = settings.level
            found["reasons"].append("target set by the host")
        else:
            desired = need.choose_target(tasks.get(label), found, settings.user_preference)
            target = drift.correct_target(desired, before)
            if before and before["alarm"] != "none":
                found["reasons"].append(f"drift alarm: {before['alarm']}-empathy in recent turns")
        if settings.expert and settings.expert not in tasks.patterns:
            raise InputError(
                f"no expert {settings.expert!r}: choose one of {', '.join(tasks.patterns)}, or leave it empty"
            )
        expert = settings.expert or tasks.choose_expert(label, target, state.get("expert"))
        return {"need": found, "desired": desired, "target": target, "expert": expert, "revisions": []}

    def retrieve_exemplars(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Retrieves exemplary turns by context, task and target; one more under a drift alarm, none where need is small."""
        from empathy_agent.exemplars import NEGLIGIBLE, build_query

        top_k, target = get_settings(runtime.context).top_k, state["target"]
        before = state.get("drift")
        if before and before["alarm"] != "none" and top_k:
            top_k += 1
        if not top_k or max(state["need"]["level"], target) < NEGLIGIBLE:
            return {"exemplars": []}
        query = build_query(self.engine.encoder, _history(state))
        return {"exemplars": self.engine.exemplars.retrieve(query, state["task"]["label"], target, top_k)}

    def generate_reply(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Writes the reply with the expert adapter, the prompted base or the bare base; tokens stream from here."""
        settings, engine = get_settings(runtime.context), self.engine
        route = {"experts": "adapter", "prompt": "prompt", "base": "base"}[settings.system]
        if route == "adapter" and state["expert"] not in engine.experts:
            route = "prompt"
        seed = settings.seed + len(state["messages"]) + 1000 * len(state["revisions"])
        if state["revisions"] and not settings.temperature:
            settings = replace(settings, temperature=0.6)  # a greedy model would only repeat its draft
        writer = engine.bind_expert(state["expert"] if route == "adapter" else None, settings, seed)
        system = write_system(state, route)
        history = [m for m in state["messages"] if m.type in ("human", "ai") and str(m.text).strip()]
        drafts = state["revisions"]
        if drafts:
            history = [m for m in history if m.id != drafts[0]["id"]]
        prompt: list[AnyMessage] = [SystemMessage(system)] if system else []
        # What a person will still edit must not reach the user's screen.
        reply = writer.invoke([*prompt, *history], {"tags": ["nostream"]} if state["review"] else None)
        answered = AIMessage(
            str(reply.text).strip() or write_prompt("no_reply"),
            id=drafts[0]["id"] if drafts else reply.id or str(uuid4()),
            usage_metadata=reply.usage_metadata,
            response_metadata={**reply.response_metadata, "route": route},
        )
        return {"messages": [answered], "route": route}

    def assess_reply(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Judges the reply; keeps the better of a draft and its revision; lets a person edit it where review is on."""
        settings = get_settings(runtime.context)
        reply, history = state["messages"][-1], _history({"messages": state["messages"][:-1]})
        assessment = self._judge(history, str(reply.text))
        drafts, miss = state["revisions"], _miss(assessment, state["target"])
        if drafts and drafts[-1]["miss"] < miss:
            reply = reply.model_copy(update={"content": drafts[-1]["content"]})
            assessment, miss = drafts[-1]["assessment"], drafts[-1]["miss"]
        draft = {"id": reply.id, "content": str(reply.text), "miss": miss, "assessment": assessment}
        update: dict[str, Any] = {"assessment": assessment, "revisions": [*drafts, draft], "messages": [reply]}
        if state["review"] and not wants_revision(update["revisions"], settings):
            answer = interrupt({"reply": str(reply.text), "assessment": assessment, "target": state["target"]})
            edited = answer.get("reply") if isinstance(answer, dict) else answer
            if isinstance(edited, str) and edited.strip():
                update["messages"] = [reply.model_copy(update={"content": check_text(edited)})]
                update["assessment"] = self._judge(history, edited)
        return update

    def track_drift(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Adds this turn's gap to the running statistics."""
        settings = get_settings(runtime.context)
        now = drift.track_drift(
            state.get("drift"),
            target=state["desired"],
            assessment=state["assessment"],
            need=state["need"],
            tolerance=settings.tolerance,
        )
        return {"drift": now}

    def _judge(self, history: list[Turn], reply: str) -> Assessment:
        from empathy_agent.judge import judge_reply

        return judge_reply(self.engine.heads["judge"], self.engine.encoder, history, reply)


def wants_revision(drafts: list[dict[str, Any]], settings: Settings) -> bool:
    """Whether the last draft misses its target and there is a revision left."""
    return drafts[-1]["miss"] > settings.tolerance and len(drafts) <= settings.max_revisions


def write_system(state: EmpathyState, route: str) -> str:
    """Writes the system prompt of a route: the plain one, with the pattern's description or exemplars where they belong."""
    parts = [write_prompt("assistant")]
    if route == "prompt":
        parts.append(write_prompt(f"pattern_{state['expert']}"))
        wishes = need.load_wishes()
        parts += [wishes[name]["hint"] for name in state["need"]["wishes"]]
        if state["revisions"]:
            direction = "less" if state["revisions"][-1]["assessment"]["level"] > state["target"] else "more"
            parts.append(write_prompt("revise", direction=direction))
    if route != "base" and state["exemplars"]:
        shown = [write_prompt("exemplar", user=e["user"], reply=e["reply"]) for e in state["exemplars"]]
        parts.append(write_prompt("exemplars", exemplars="\n".join(shown)))
    return "\n".join(parts)


def _miss(assessment: Assessment, target: float) -> float:
    """How far a reply is from its target; a dishonest one is farther than any other."""
    return round(abs(measure_gap(assessment["level"], target)) + len(assessment.get("violations", [])), 4)


def _history(state: Any) -> list[Turn]:
    return get_turns(state["messages"])[-HISTORY:]
