"""The graph's eight nodes: each reads the state, asks the engine, and returns only its own keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.runnables import Runnable
from langgraph.runtime import Runtime

from empathy_agent import drift, need, recognition, review, safety
from empathy_agent.choosing import measure_costs, measure_miss
from empathy_agent.engine import EmpathyEngine
from empathy_agent.errors import InputError
from empathy_agent.honesty import remove_claims
from empathy_agent.prompts import write_prompt
from empathy_agent.routes import SYSTEMS, write_reply
from empathy_agent.settings import Settings, get_settings
from empathy_agent.silence import silenced
from empathy_agent.state import Assessment, EmpathyState, Need, Route
from empathy_agent.turns import LONGEST_MESSAGE, Turn, check_text, clean_text, get_turns

HISTORY = 40  # turns that the readings look back on; older ones weigh nothing
PROMPTED = 400  # messages that a writer is offered; it takes as many of them as its context holds


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
        (found,) = safety.screen_turns(self.engine.heads["danger"], self.engine.encoders["danger"], [history])
        if self.engine.screen:
            found = safety.add_opinion(found, *self.engine.screen(history))
        update: dict[str, Any] = {"safety": found, "review": get_settings(runtime.context).review}
        if clean != text.strip():
            update["messages"] = [last.model_copy(update={"content": clean})]
        return update

    def hand_off(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Answers danger with fixed words and human contacts, then waits for a person where that is set; no model writes here."""
        if isinstance(state["messages"][-1], AIMessage):
            question = {"hand_off": state["safety"], "reply": str(state["messages"][-1].text)}
            reply = review.ask_person(question, review.read_hand_off)
            return {"messages": [AIMessage(reply, id=str(uuid4()))] if reply else []}
        words = write_prompt(f"hand_off_{state['safety']['category']}")
        cleared = dict.fromkeys(("need", "desired", "target", "expert", "assessment"))
        message = AIMessage(words, id=str(uuid4()), response_metadata={"route": "hand_off"})
        return {
            "messages": [message],
            "route": "hand_off",
            "route_reason": "",
            "exemplars": [],
            "revisions": [],
            **cleared,
        }

    def recognize_task(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Recognizes the task from the conversation so far; the standing one has inertia."""
        before = state.get("task")
        standing = before["label"] if before else None
        task = recognition.recognize_task(
            self.engine.heads["task"], self.engine.encoders["task"], _history(state), standing
        )
        return {"task": task}

    def estimate_need(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Estimates the need, the target that follows from it, and the expert whose pattern is nearest."""
        settings, before = get_settings(runtime.context), state.get("drift")
        found = need.read_need(self.engine.heads["need"], self.engine.encoder, _history(state))
        if settings.level is not None:
            found["reasons"].append("target set by the host")
        elif before and before["alarm"] != "none" and settings.correct_drift:
            found["reasons"].append(f"drift alarm: {before['alarm']}-empathy in recent turns")
        return self._aim(state, found, settings, settings.level)

    def retrieve_exemplars(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Retrieves exemplary turns by context, task and target; one more under a drift alarm, none where need is small."""
        from empathy_agent.exemplars import NEGLIGIBLE

        settings, target = get_settings(runtime.context), state["target"]
        top_k, before = settings.top_k, state.get("drift") if settings.correct_drift else None
        if before and before["alarm"] != "none" and top_k:
            top_k += 1
        if not top_k or max(state["need"]["level"], target) < NEGLIGIBLE:
            return {"exemplars": []}
        task, encoder = state["task"]["label"], self.engine.encoder
        return {"exemplars": self.engine.exemplars.recall(encoder, _history(state), task, target, top_k)}

    def generate_reply(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Writes the reply with the expert adapter, the prompted base or the bare base.

        Tokens stream from here where nothing can replace the reply any more; else it is a draft, which no stream shows.
        """
        settings, engine = get_settings(runtime.context), self.engine
        is_draft = state["review"] or settings.max_revisions > 0
        recent, drafts = state["messages"][-PROMPTED:], state["revisions"]
        history = [m for m in recent if m.type in ("human", "ai") and str(m.text).strip()]
        # A message that was refused for its length may still be in the thread of a host that does not take it out.
        history = [m for m in history if m.type == "ai" or len(str(m.text)) <= LONGEST_MESSAGE]

        def ask(route: Route, fallback: bool) -> AIMessage:
            adapter = state["expert"] if route == "adapter" else None
            system = write_system(state, route, settings)
            prompt: list[AnyMessage] = [SystemMessage(system)] if system else []
            varied = self._vary(settings, state, adapter)
            several = varied.candidates > 1 and varied.temperature and engine.writes_candidates and not fallback
            with silenced(is_draft or bool(several)):
                if several:
                    written = engine.write_candidates([*prompt, *history], adapter, varied)
                    return self._choose(_history(state), written, state["target"])
                return engine.bind_expert(adapter, varied, varied.seed, fallback).invoke([*prompt, *history])

        reply, route, reason = write_reply(engine, SYSTEMS[settings.system], state["expert"], ask)
        answered = AIMessage(
            remove_claims(clean_text(str(reply.text)).strip()) or write_prompt("no_reply"),
            id=drafts[0]["id"] if drafts else reply.id or str(uuid4()),
            usage_metadata=reply.usage_metadata,
            response_metadata={**reply.response_metadata, "route": route},
        )
        about = {"route": route, "route_reason": reason}
        if is_draft:
            kept = answered.model_dump(include={"id", "content", "usage_metadata", "response_metadata"})
            return {"draft": kept, **about}
        return {"messages": [answered], "draft": None, **about}

    def bind_writer(
        self, state: EmpathyState, route: Route, settings: Settings, fallback: bool = False
    ) -> Runnable[Any, AIMessage]:
        """The model that writes by a route, with this draft's own seed."""
        adapter = state["expert"] if route == "adapter" else None
        settings = self._vary(settings, state, adapter)
        return self.engine.bind_expert(adapter, settings, settings.seed, fallback)

    def assess_reply(self, state: EmpathyState, runtime: Runtime[Settings]) -> dict[str, Any]:
        """Judges the reply; keeps the better of a draft and its revision; lets a person edit it or its aim where review is on."""
        settings, waiting = get_settings(runtime.context), state.get("draft")
        reply: AnyMessage = AIMessage(**waiting) if waiting else state["messages"][-1]
        history = _history(state if waiting else {"messages": state["messages"][:-1]})
        assessment = self._judge(history, str(reply.text))
        drafts, miss = state["revisions"], measure_miss(assessment, state["target"])
        if drafts and drafts[-1]["miss"] < miss:
            reply = reply.model_copy(update={"content": drafts[-1]["content"]})
            assessment, miss = drafts[-1]["assessment"], drafts[-1]["miss"]
        draft = {"id": reply.id, "content": str(reply.text), "miss": miss, "assessment": assessment}
        update: dict[str, Any] = {"assessment": assessment, "revisions": [*drafts, draft], "draft": None}
        if wants_revision(update["revisions"], settings):
            return update
        update["messages"] = [reply]
        if state["review"]:
            shown = ("need", "target", "expert")
            question = {"reply": str(reply.text), "assessment": assessment, **{name: state.get(name) for name in shown}}
            answer = review.ask_person(question, review.read_review)
            if "reply" in answer:
                update["messages"] = [reply.model_copy(update={"content": answer["reply"]})]
                update["assessment"] = self._judge(history, answer["reply"])
            elif answer:  # another aim: the draft goes, and an empty `revisions` asks for a new one
                found = review.change_need(state["need"], answer.get("need", {}))
                update = self._aim(state, found, settings, answer.get("level"))
                update |= {"draft": None} if waiting else {"messages": [RemoveMessage(str(reply.id))]}
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

    def _aim(self, state: EmpathyState, found: Need, settings: Settings, level: float | None) -> dict[str, Any]:
        """What follows from a need, or from a `level` that somebody wants instead: desired level, target and expert."""
        tasks, label = self.engine.tasks, state["task"]["label"]
        if level is None:
            profile = tasks.get(label)
            usual: Need = {**found, "level": profile.usual_need, "wishes": []}
            desired = need.choose_target(profile, found if settings.use_need else usual, settings.user_preference)
            target = drift.correct_target(desired, state.get("drift") if settings.correct_drift else None)
        else:
            desired = target = level
        if settings.expert and settings.expert not in tasks.patterns:
            raise InputError(
                f"no expert {settings.expert!r:.80}: choose one of {', '.join(tasks.patterns)}, or leave it empty"
            )
        expert = settings.expert or tasks.choose_expert(label, target, state.get("expert"))
        return {"need": found, "desired": desired, "target": target, "expert": expert, "revisions": []}

    def _choose(self, history: list[Turn], written: list[AIMessage], target: float) -> AIMessage:
        """The candidate of least cost."""
        texts = [str(message.text).strip() or write_prompt("no_reply") for message in written]
        whole = [message.response_metadata.get("finish_reason") != "length" for message in written]
        likely = [float(message.response_metadata.get("mean_logprob", 0.0)) for message in written]
        costs = measure_costs(self.engine.heads["judge"], self.engine.encoder, history, texts, whole, likely, target)
        return written[costs.index(min(costs))]

    def _vary(self, settings: Settings, state: EmpathyState, adapter: str | None) -> Settings:
        """The settings of one draft of `adapter`: every turn and every revision has a seed of its own."""
        seed = (settings.seed + len(state["messages"]) + 1001 * len(state["revisions"])) % 2**31
        usual = self.engine.tasks.get_decoding(adapter).temperature
        temperature = usual if settings.temperature is None else settings.temperature
        # A greedy model would only repeat its draft.
        return replace(settings, seed=seed, temperature=temperature or (0.6 if state["revisions"] else 0.0))

    def _judge(self, history: list[Turn], reply: str) -> Assessment:
        from empathy_agent.judge import judge_reply

        return judge_reply(self.engine.heads["judge"], self.engine.encoder, history, reply)


def wants_revision(drafts: list[dict[str, Any]], settings: Settings) -> bool:
    """Whether the last draft misses its target and there is a revision left."""
    return drafts[-1]["miss"] > settings.tolerance and len(drafts) <= settings.max_revisions


def write_system(state: EmpathyState, route: Route, settings: Settings) -> str:
    """Writes the system prompt of a route: the plain one, and its guidance."""
    return "\n".join([settings.assistant_prompt or write_prompt("assistant"), *write_guidance(state, route, settings)])


def write_guidance(state: EmpathyState, route: Route, settings: Settings) -> list[str]:
    """Writes what a route adds to a system prompt: the pattern's description or exemplars where they belong."""
    parts = []
    if route == "prompt":
        parts.append(settings.pattern_prompt or write_prompt(f"pattern_{state['expert']}"))
        wishes = need.load_wishes()
        parts += [wishes[name]["hint"] for name in state["need"]["wishes"]]
        if state["revisions"]:
            direction = "less" if state["revisions"][-1]["assessment"]["level"] > state["target"] else "more"
            parts.append(write_prompt("revise", direction=direction))
    if route != "base" and state["exemplars"]:
        shown = [write_prompt("exemplar", user=e["user"], reply=e["reply"]) for e in state["exemplars"]]
        parts.append(write_prompt("exemplars", exemplars="\n".join(shown)))
    return parts


def _history(state: Any) -> list[Turn]:
    return get_turns(state["messages"], HISTORY)
