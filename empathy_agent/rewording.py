"""Words a draft in an expert's manner, and sends it only where the facts survived and the reply is nearer to its target.

Does not decide when a reply is a draft; `middleware.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from empathy_agent.errors import EmpathyAgentError, InputError, MissingExtraError, ModelError
from empathy_agent.facts import find_changes
from empathy_agent.nodes import Nodes, write_guidance, write_system
from empathy_agent.prompts import write_prompt
from empathy_agent.routes import SYSTEMS, shorten_reason, write_reply
from empathy_agent.settings import Settings
from empathy_agent.silence import silenced
from empathy_agent.state import EmpathyState, Route

SAME_MEANING = 0.45  # cosine: rewordings that add warmth lie above it, replies about something else below


class Wording(TypedDict):
    """Who worded the reply, after how many rewordings, and what the refused ones lost or made up, or how they failed."""

    by: Literal["draft", "expert"]
    attempts: int
    changes: list[str]


def reword_draft(
    nodes: Nodes,
    draft: AIMessage,
    *,
    state: EmpathyState,
    system: SystemMessage | None,
    results: Sequence[str],
    runtime: Runtime[Settings],
) -> tuple[AIMessage, Route, str, Wording]:
    """Rewords `draft` until it meets its target, at most `max_revisions` times beyond the first.

    An expert that fails is replaced as in the graph (`routes.py`); where nobody can write, the draft is sent.

    Args:
        nodes: The graph's nodes, which choose the writer and assess what it wrote.
        draft: The text to word. A draft that meets its target, or carries citations, is returned as it is.
        state: A state with target and expert, whose messages end with the user's.
        system: The system message of the agent that drafted.
        results: What the tools of this turn returned.
        runtime: Holds the settings.

    Returns:
        The draft or, with the same id, its rewording; its route, `base` for the draft; why the wanted expert did not write, empty
        if it did; and what became of the rewordings.

    Raises:
        InputError: A setting or the writer's input cannot be used.
        MissingExtraError: The writer needs an extra that is not installed.
        ModelError: The local model cannot be loaded.
    """
    settings, text = runtime.context, str(draft.text)
    quiet = runtime.override(context=replace(settings, max_revisions=0))
    said = [m for m in state["messages"] if m.type in ("human", "ai") and str(m.text).strip()]
    wording = Wording(by="draft", attempts=0, changes=[])
    best, route, reason = _assess(nodes, state, text, quiet), cast(Route, "base"), ""
    drafts = [best]
    while _is_plain(draft) and best["miss"] > settings.tolerance and wording["attempts"] <= settings.max_revisions:
        # The writer's seed moves with its own attempts; the direction of the prompt comes from the last draft, whoever wrote it.
        tried = cast(EmpathyState, {**state, "revisions": [{}] * wording["attempts"]})
        judged = cast(EmpathyState, {**state, "revisions": list(drafts)})
        wording["attempts"] += 1

        def ask(chosen: Route, fallback: bool, tried: EmpathyState = tried, judged: EmpathyState = judged) -> AIMessage:
            guide = instruct_expert(system, judged, chosen, settings)
            asked: list[AnyMessage] = [*said, HumanMessage(write_prompt("polish", draft=text))]
            with silenced():
                return nodes.bind_writer(tried, chosen, settings, fallback).invoke([guide, *asked] if guide else asked)

        try:
            written, chosen, reason = write_reply(nodes.engine, SYSTEMS[settings.system], state["expert"], ask)
        except Exception as error:
            # A mistake in the set-up, which the draft would hide; a server may be back at the next turn.
            if isinstance(error, InputError | MissingExtraError) or (
                isinstance(error, ModelError) and not nodes.engine.base_url
            ):
                raise
            failure = f"failed with {type(error).__name__}"
            # Another package's error may quote what it was sent.
            reason = shorten_reason(f"draft: {error if isinstance(error, EmpathyAgentError) else failure}")
            wording["changes"].append(failure)
            break
        words = str(written.text).strip()
        changes = find_changes(text, words, results=results, said="\n".join(str(m.text) for m in said))
        if written.response_metadata.get("finish_reason") == "length":
            changes.append("was cut off")
        meant, got = nodes.engine.encoder.encode([text, words])
        if meant @ got < SAME_MEANING:
            changes.append("lost the meaning")
        if changes:
            wording["changes"] += [change[:80] for change in changes if change[:80] not in wording["changes"]][:8]
            continue
        drafts.append(_assess(nodes, state, words, quiet))
        if drafts[-1]["miss"] < best["miss"]:
            best, route, wording["by"] = drafts[-1], chosen, "expert"
    reply = draft if wording["by"] == "draft" else _replace_text(draft, best["content"], route)
    return reply, route, reason, wording


def instruct_expert(
    system: SystemMessage | None, state: EmpathyState, route: Route, settings: Settings
) -> SystemMessage | None:
    """The system message of an expert in the host's place: the host's own with the route's guidance, or the graph's."""
    if system is None:
        return SystemMessage(write_system(state, route, settings))
    return extend_system(system, write_guidance(state, route, settings))


def extend_system(system: SystemMessage | None, guidance: Sequence[str]) -> SystemMessage | None:
    """Adds guidance to the end of the host's system message, as a block where that consists of blocks."""
    text = "\n".join(guidance)
    if not text or system is None:
        return SystemMessage(text) if text else system
    if isinstance(system.content, str):
        return system.model_copy(update={"content": f"{system.content}\n\n{text}"})
    return system.model_copy(update={"content": [*system.content, {"type": "text", "text": text}]})


def _assess(nodes: Nodes, state: EmpathyState, reply: str, runtime: Runtime[Settings]) -> dict[str, Any]:
    view = {**state, "messages": [*state["messages"], AIMessage(reply)], "revisions": [], "review": False}
    assessed: dict[str, Any] = nodes.assess_reply(cast(EmpathyState, view), runtime)["revisions"][0]
    return assessed


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or block.get("type") == "text"


def _is_plain(draft: AIMessage) -> bool:
    """Whether the text carries no citations, which point at places in it."""
    blocks = [draft.content] if isinstance(draft.content, str) else draft.content
    return not any(isinstance(b, dict) and _is_text(b) and (b.get("annotations") or b.get("citations")) for b in blocks)


def _replace_text(draft: AIMessage, text: str, route: Route) -> AIMessage:
    """The draft with another text; its id stays, and so do blocks that are not text, such as reasoning."""
    content: str | list[Any] = text
    if not isinstance(draft.content, str) and (other := [b for b in draft.content if not _is_text(b)]):
        content = [*other, {"type": "text", "text": text}]
    return draft.model_copy(
        update={"content": content, "response_metadata": {**draft.response_metadata, "route": route}}
    )
