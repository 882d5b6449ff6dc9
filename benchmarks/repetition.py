"""How much of a prompt its conversation has been read before: with exemplars in the system prompt, and behind the history.

No model runs. The prompts are those that the graph would send for the written conversations of the checkout, each turn by the
expert that it would choose; what repeats is the longest beginning shared with an earlier turn of the same expert.
"""

from __future__ import annotations

from typing import Any

from benchmarks.measuring import main, make_table
from benchmarks.subjects import list_conversations, load_tokenizer


def measure(smallest: bool = False) -> dict[str, Any]:
    """Counts tokens of prompts, and those that repeat, for three places of the exemplars."""
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.runtime import Runtime

    from empathy_agent import EmpathyEngine, Settings
    from empathy_agent.nodes import Nodes, write_system
    from empathy_agent.prompts import write_prompt
    from empathy_agent.template import encode_prompt

    conversations = list_conversations()
    conversations = conversations[:: len(conversations) // (3 if smallest else 60)]
    nodes, runtime, tokenizer = Nodes(EmpathyEngine()), Runtime(context=Settings()), load_tokenizer()
    places = {"exemplars in the system prompt (now)": [0, 0], "behind the history": [0, 0], "no exemplars": [0, 0]}
    switches = turns_ = 0
    for conversation in conversations:
        state: dict[str, Any] = {"messages": []}
        read: dict[str, dict[str, list[list[int]]]] = {place: {} for place in places}
        for turn in conversation["turns"]:
            if turn["role"] == "assistant":
                state["messages"].append(AIMessage(turn["content"]))
                continue
            state["messages"].append(HumanMessage(turn["content"]))
            before = state.get("expert")
            for node in (nodes.recognize_task, nodes.estimate_need, nodes.retrieve_exemplars):
                state.update(node(state, runtime))
            turns_, switches = turns_ + 1, switches + (before not in (None, state["expert"]))
            with_, plain = write_system(state, "adapter", Settings()), write_prompt("assistant")
            history = [
                {"role": "user" if m.type == "human" else "assistant", "content": m.text} for m in state["messages"]
            ]
            shown = with_[len(plain) :].strip()
            last = {"role": "user", "content": f"{shown}\n{history[-1]['content']}".strip()}
            prompts = {
                "exemplars in the system prompt (now)": [{"role": "system", "content": with_}, *history],
                "behind the history": [{"role": "system", "content": plain}, *history[:-1], last],
                "no exemplars": [{"role": "system", "content": plain}, *history],
            }
            for place, prompt in prompts.items():
                ids = encode_prompt(tokenizer, prompt, 4096)
                known = read[place].setdefault(state["expert"], [])
                places[place][0] += len(ids)
                places[place][1] += max((_count_common(ids, other) for other in known), default=0)
                known.append(ids)
    rows = [[place, count / turns_, same / turns_, same / count] for place, (count, same) in places.items()]
    columns = ["place of the exemplars", "tokens a prompt", "repeating", "share"]
    return {
        "settings": {"conversations": len(conversations), "turns": turns_, "expert_switches": switches},
        "tables": [make_table("What repeats of a prompt under the same expert", columns, rows)],
        "reached": [],
    }


def _count_common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


if __name__ == "__main__":
    main(measure)
