"""What a turn costs outside generation: every node, LangGraph and SQLite, early and late in a thread.

Replies are the written ones of the checkout's conversations, so that no model writes; every text is new to the encoder.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measuring import hold_to, main, make_table
from benchmarks.subjects import list_conversations, list_exchanges

NODES = {
    "screen": "screen_message",
    "recognize": "recognize_task",
    "need": "estimate_need",
    "retrieve": "retrieve_exemplars",
    "prompt": "generate_reply",
    "assess": "assess_reply",
    "drift": "track_drift",
}


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures the median turn around turn 10 and at the end of a thread."""
    turns, width = (6, 2) if smallest else (500, 11)
    taken = _converse(turns)
    at = max(0, min(10, turns // 2) - width // 2)
    early = taken[at : at + width]
    late = taken[-width:]
    middle = {
        when: {part: 1e3 * statistics.median(turn[part] for turn in part_of) for part in taken[0]}
        for when, part_of in (("early", early), ("late", late))
    }
    parts = [*NODES, "LangGraph", "SQLite", "whole"]
    rows = [[part, middle["early"][part], middle["late"][part]] for part in parts]
    whole = middle["early"]["whole"], middle["late"]["whole"]
    return {
        "settings": {"turns": turns, "turns_measured": width},
        "tables": [
            make_table("A turn outside generation, ms (median)", ["part", "at turn 10", f"at turn {turns}"], rows)
        ],
        "reached": [
            hold_to("a turn outside generation, ms, p50", whole[1], most=25),
            hold_to(f"the same at turn {turns} against turn 10", whole[1] / whole[0], most=1.3),
            hold_to("texts that were encoded twice", sum(turn["again"] for turn in taken), most=0),
        ],
    }


def _converse(turns: int) -> list[dict[str, float]]:
    """Plays a thread of `turns` turns twice over, with and without SQLite, and returns the seconds of each turn's parts."""
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langgraph.checkpoint.memory import InMemorySaver

    from empathy_agent import EmpathyEngine, Settings, build_graph
    from empathy_agent.threads import open_threads, prune_thread

    exchanges = list_exchanges(list_conversations())
    said = [next(exchanges) for _ in range(turns)]
    settings = Settings(max_revisions=0)
    measured: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_threads(Path(folder) / "threads.sqlite") as saver,
        _watched() as seen,
    ):
        for checkpointer in (InMemorySaver(), saver):
            replies = iter([AIMessage(answered) for _, answered in said])
            engine = EmpathyEngine(chat_model=GenericFakeChatModel(messages=replies))
            engine.load()
            graph = build_graph(engine=engine).compile(checkpointer=checkpointer)
            config: Any = {"configurable": {"thread_id": "measured"}}
            for number, (asked, _) in enumerate(said):
                seen.clear()
                seen["again"] = 0.0
                start = time.perf_counter()
                turn = {"messages": [{"role": "user", "content": asked}]}
                graph.invoke(turn, config, context=settings, durability="exit")
                if checkpointer is saver:
                    prune_thread(saver, "measured")
                whole = time.perf_counter() - start
                nodes = {part: seen.get(node, 0.0) for part, node in NODES.items()}
                if checkpointer is saver:
                    before = measured[number]
                    # The nodes are those of the first time: the second time the encoder remembers every text.
                    before["SQLite"] = max(0.0, whole - sum(nodes.values()) - before["LangGraph"])
                    before["whole"] = sum(before[part] for part in (*NODES, "LangGraph", "SQLite"))
                else:
                    measured.append({**nodes, "LangGraph": whole - sum(nodes.values()), "again": seen["again"]})
    return measured


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Times every node, and counts texts that an encoder is given again, into the mapping that it yields."""
    from sentence_transformers import SentenceTransformer

    from empathy_agent.nodes import Nodes

    seen: dict[str, float] = {}
    known: set[tuple[int, str]] = set()
    originals: list[tuple[Any, str, Any]] = [(Nodes, name, getattr(Nodes, name)) for name in NODES.values()]
    originals.append((SentenceTransformer, "encode", SentenceTransformer.encode))

    def timed(name: str, node: Any) -> Any:
        @functools.wraps(node)
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return node(*arguments, **named)
            finally:
                seen[name] = seen.get(name, 0.0) + time.perf_counter() - start

        return run

    def encode(encoder: Any, texts: list[str], **named: Any) -> Any:
        keys = {(id(encoder), text) for text in texts}
        seen["again"] = seen.get("again", 0.0) + len(keys & known)
        known.update(keys)
        return originals[-1][2](encoder, texts, **named)

    for owner, name, original in originals[:-1]:
        setattr(owner, name, timed(name, original))
    SentenceTransformer.encode = encode
    try:
        yield seen
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


if __name__ == "__main__":
    main(measure)
