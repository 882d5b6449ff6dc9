"""A long conversation on disk: stored bytes a turn and time outside generation, early against late in the thread.

Replies are fixed words, so that what is timed is everything else: the readings, LangGraph, and the database.

    python benchmarks/threads.py [--turns 500] [--database postgresql://…]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from empathy_agent import EmpathyEngine, Settings, build_graph
from empathy_agent.threads import open_threads, prune_thread

MESSAGES = (
    "I have been thinking about number {n} of the things my sister said, and it still hurts a little.",
    "Can you suggest film number {n} for tonight, something funny and short?",
    "My parcel {n} is late again and nobody answers the phone, which is really annoying.",
    "ok, and what about number {n}?",
)
REPLY = "That was reply number {n}: it must have stung to hear that from her. What would you like to tell her now?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument(
        "--pairs", type=int, default=25, help="turns of each thread that are timed, one after the other"
    )
    parser.add_argument("--database", help="default: a new SQLite file")
    options = parser.parse_args()
    replies = (AIMessage(REPLY.format(n=n)) for n in range(10 * options.turns))
    engine = EmpathyEngine(chat_model=GenericFakeChatModel(messages=replies))
    settings, names = Settings(max_revisions=0), {"early": uuid4().hex, "late": uuid4().hex}
    spent: dict[str, float] = {"encoder": 0.0, "database": 0.0}
    times: dict[str, list[dict[str, float]]] = {"early": [], "late": []}
    with tempfile.TemporaryDirectory() as folder, open_threads(options.database or Path(folder) / "t.sqlite") as opened:
        graph = build_graph(engine=engine).compile(checkpointer=opened)
        saver: Any = graph.checkpointer  # compiling copies it
        engine.load()
        for encoder in (engine.encoder, *engine.encoders.values()):
            encoder.encode = timed(encoder.encode, spent, "encoder")  # type: ignore[method-assign]
        for method in ("get_tuple", "put", "put_writes", "prune"):
            setattr(saver, method, timed(getattr(saver, method), spent, "database"))

        def run(which: str, n: int) -> None:
            config: Any = {"configurable": {"thread_id": names[which]}}
            message = {"role": "user", "content": MESSAGES[n % len(MESSAGES)].format(n=f"{n} {which}")}
            spent.update(encoder=0.0, database=0.0)
            start = time.perf_counter()
            graph.invoke({"messages": [message]}, config, context=settings, durability="exit")
            prune_thread(saver, names[which])
            times[which].append({"turn": time.perf_counter() - start, **spent})

        for n in range(options.turns - options.pairs):
            run("late", n)
        for n in range(10):
            run("early", n)
        for n in range(options.pairs):  # in turns, so that whatever else the machine does falls on both
            run("early", 10 + n)
            run("late", options.turns - options.pairs + n)
        state = graph.get_state({"configurable": {"thread_id": names["late"]}}).values
        dump = saver.serde.dumps_typed
        rest = len(dump({k: v for k, v in state.items() if k != "messages"})[1])
        files = sum(file.stat().st_size for file in Path(folder).glob("t.sqlite*"))
        for name in names.values() if options.database else ():
            saver.delete_thread(name)
    middle = {
        part: {which: 1e3 * statistics.median(t[part] for t in times[which][-options.pairs :]) for which in times}
        for part in ("turn", "encoder", "database")
    }
    report = {
        "turns": options.turns,
        "messages_stored": len(state["messages"]),
        "bytes_of_messages": len(dump(state["messages"])[1]),
        "bytes_of_state_beside_messages": rest,
        "bytes_of_files": files or None,
        "ratio_late_over_early": round(middle["turn"]["late"] / middle["turn"]["early"], 2),
        **{f"ms_{part}": {which: round(ms, 1) for which, ms in both.items()} for part, both in middle.items()},
    }
    print(json.dumps(report, indent=2))


def timed(function: Any, sums: dict[str, float], name: str) -> Any:
    """The same function, which adds its seconds to `sums[name]`."""

    def run(*arguments: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **more)
        finally:
            sums[name] += time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
