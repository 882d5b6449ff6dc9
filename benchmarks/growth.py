"""How a thread grows: bytes of state beside the messages, and of the SQLite file, with the number of turns."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import hold_to, main, make_table
from benchmarks.subjects import list_conversations, list_exchanges


def measure(smallest: bool = False) -> dict[str, Any]:
    """Measures a thread after several numbers of turns, stored as the command line stores it."""
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    from empathy_agent import EmpathyEngine, Settings, build_graph, threads

    marks = [2, 4] if smallest else [10, 100, 500]
    exchanges = list_exchanges(list_conversations())
    said = [next(exchanges) for _ in range(marks[-1])]
    engine = EmpathyEngine(chat_model=GenericFakeChatModel(messages=iter([AIMessage(answer) for _, answer in said])))
    config: Any = {"configurable": {"thread_id": "measured"}}
    rows, beside, file = [], 0, 0
    with tempfile.TemporaryDirectory() as folder, threads.open_threads(Path(folder) / "threads.sqlite") as saver:
        graph = build_graph(engine=engine).compile(checkpointer=saver)
        for number, (asked, _) in enumerate(said, 1):
            turn = {"messages": [{"role": "user", "content": asked}]}
            graph.invoke(turn, config, context=Settings(max_revisions=0), durability="exit")
            threads.prune_thread(saver, "measured")
            if number in marks:
                state = graph.get_state(config).values
                beside = len(saver.serde.dumps_typed({k: v for k, v in state.items() if k != "messages"})[1])
                file = sum(path.stat().st_size for path in Path(folder).iterdir())
                messages = len(saver.serde.dumps_typed(state["messages"])[1])
                rows.append([number, messages / 1024, beside / 1024, file / 2**20])
    columns = ["turns", "messages, KiB", "state beside them, KiB", "SQLite, MiB"]
    return {
        "settings": {"turns": marks[-1]},
        "tables": [make_table("A thread on disk", columns, rows)],
        "reached": [
            hold_to("state beside the messages, KiB", beside / 1024, most=4),
            hold_to(f"SQLite after {marks[-1]} turns, MiB", file / 2**20, most=10),
        ],
    }


if __name__ == "__main__":
    main(measure)
