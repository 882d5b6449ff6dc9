"""Conversations in a SQLite file and on a real PostgreSQL server: they last, stay small, survive a kill, and are forgotten."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from empathy_agent import InputError
from empathy_agent.errors import StorageError
from empathy_agent.forgetting import forget_thread
from empathy_agent.state import EmpathyState
from empathy_agent.threads import describe_database, find_database, open_threads, prune_thread, reported

SECRET = "Quintessa Featherstonehaugh told nobody about the lighthouse"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "threads.sqlite") if request.param == "sqlite" else request.getfixturevalue("postgres")


def build(saver: Any, ask: bool = False) -> Any:
    """A graph with this package's state and a reply that needs no model."""

    def reply(state: EmpathyState) -> dict[str, Any]:
        said = interrupt("what shall I say?") if ask else f"You said: {state['messages'][-1].text}"
        exemplar = {"id": "e", "score": 0.5, "pattern": "factual", "level": 0.1, "user": "u" * 200, "reply": "r" * 200}
        return {"messages": [AIMessage(said, id=uuid4().hex)], "route": "prompt", "exemplars": [exemplar] * 2}

    graph = StateGraph(EmpathyState)
    graph.add_node("screen", lambda state: {"review": False})
    graph.add_node("reply", reply)
    graph.add_edge(START, "screen")
    graph.add_edge("screen", "reply")
    graph.add_edge("reply", END)
    return graph.compile(checkpointer=saver)


def say(graph: Any, thread: str, text: str, **more: Any) -> dict[str, Any]:
    config = {"configurable": {"thread_id": thread}}
    state = graph.invoke({"messages": [HumanMessage(text, id=uuid4().hex)]}, config, durability="exit", **more)
    prune_thread(graph.checkpointer, thread)
    return state


def count_rows(saver: Any, thread: str) -> int:
    return len(list(saver.list({"configurable": {"thread_id": thread}})))


def read_everything(database: str) -> bytes:
    """All that is stored: the bytes of the SQLite file and its log, or all rows of all tables of the server."""
    if "://" not in database:
        return b"".join(file.read_bytes() for file in Path(database).parent.glob("threads.sqlite*"))
    import psycopg

    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [row for (name,) in names for row in connection.execute(f'SELECT * FROM "{name}"')]  # type: ignore[call-overload]
    return b"\n".join(field if isinstance(field, bytes) else str(field).encode() for row in rows for field in row)


def test_a_thread_of_500_turns_stays_small_and_every_message_is_there(database: str):
    config = {"configurable": {"thread_id": "long"}}
    past = [
        kind(f"message {turn} about the garden", id=uuid4().hex)
        for turn in range(470)
        for kind in (HumanMessage, AIMessage)
    ]
    with open_threads(database) as saver:
        graph = build(saver)
        graph.update_state(config, {"messages": past}, as_node="reply")
        for turn in range(470, 500):
            state = say(graph, "long", f"message {turn} about the garden")
        assert count_rows(saver, "long") == 1
        assert measure_file(database) < 6_000_000, "with the log, which does not grow beyond 4 MB"
    with open_threads(database) as saver:  # another process would see the same
        stored = build(saver).get_state(config).values
    assert [m.text for m in stored["messages"]] == [m.text for m in state["messages"]]
    assert len({m.id for m in stored["messages"]}) == 1000
    beside = len(saver.serde.dumps_typed({k: v for k, v in stored.items() if k != "messages"})[1])
    assert beside < 4096
    assert measure_file(database) < 1_000_000


def measure_file(database: str) -> int:
    """Bytes of a SQLite file and its log; 0 for a server."""
    return sum(file.stat().st_size for file in Path(database).parent.glob("threads.sqlite*"))


def test_nobody_writes_while_less_is_synchronized_for_pruning(tmp_path: Path):
    class Hurried:
        """A lock that another thread has been waiting for, so that it writes as soon as the lock is let go."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if waiting:
                waiting.pop()()

    with open_threads(tmp_path / "t.sqlite") as saver:
        graph, config, lock = build(saver), {"configurable": {"thread_id": "other"}}, saver.lock
        for _ in range(2):
            say(graph, "t", "hello")
        levels: list[int] = []

        def write() -> None:
            levels.extend(saver.conn.execute("PRAGMA synchronous").fetchone())
            graph.invoke({"messages": [HumanMessage("meanwhile")]}, config, durability="exit")

        waiting, saver.lock = [write], Hurried()  # type: ignore[assignment]
        saver.prune(["t"])
        assert levels == [2], "FULL, as for every turn"
        assert len(graph.get_state(config).values["messages"]) == 2


def test_a_failing_pruning_changes_nothing_and_turns_are_synchronized_after_it(tmp_path: Path):
    with open_threads(tmp_path / "t.sqlite") as saver:
        graph = build(saver)
        for thread in ("a", "b"):
            graph.invoke({"messages": [HumanMessage("hi")]}, {"configurable": {"thread_id": thread}}, durability="sync")
        before = count_rows(saver, "a")
        fail = "BEGIN SELECT RAISE(ABORT, 'full'); END"
        saver.conn.execute(f"CREATE TRIGGER full BEFORE DELETE ON checkpoints WHEN OLD.thread_id = 'b' {fail}")
        with pytest.raises(sqlite3.IntegrityError, match="full"):
            saver.prune(["a", "b"])
        assert count_rows(saver, "a") == before > 1
        assert saver.conn.execute("PRAGMA synchronous").fetchone() == (2,)
        prune_thread(saver, "b")  # says nothing: the next turn tries again
        prune_thread(saver, "a")
        assert count_rows(saver, "a") == 1


def test_many_writers_that_prune_lose_and_cross_nothing(database: str):
    """Eight threads over two connections to one database, as two processes would have them."""
    with open_threads(database) as one, open_threads(database) as other:
        graphs = [build(one), build(other)]

        def talk(number: int) -> None:
            for turn in range(6):
                say(graphs[number % 2], f"user {number}", f"[{number}] {turn}")

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(talk, number) for number in range(8)]:
                done.result()
        for number in range(8):
            thread = f"user {number}"
            messages = graphs[0].get_state({"configurable": {"thread_id": thread}}).values["messages"]
            assert [m.text for m in messages[::2]] == [f"[{number}] {turn}" for turn in range(6)]
            assert [m.text for m in messages[1::2]] == [f"You said: [{number}] {turn}" for turn in range(6)]
            assert count_rows(one, thread) == 1


def test_pruning_keeps_what_an_interrupt_needs(database: str):
    with open_threads(database) as saver:
        for _ in range(3):
            say(build(saver), "t", "hello")
        paused = say(build(saver, ask=True), "t", "and now?")
        assert paused["__interrupt__"]
    with open_threads(database) as saver:
        graph, config = build(saver, ask=True), {"configurable": {"thread_id": "t"}}
        prune_thread(saver, "t")
        state = graph.invoke(Command(resume="the answer"), config, durability="exit")
        assert [m.text for m in state["messages"]][-2:] == ["and now?", "the answer"]
        assert len(state["messages"]) == 8


def test_pruning_one_thread_leaves_the_others(database: str):
    with open_threads(database) as saver:
        graph = build(saver)
        for thread in ("a", "b"):
            for _ in range(2):
                graph.invoke(
                    {"messages": [HumanMessage("hi")]}, {"configurable": {"thread_id": thread}}, durability="sync"
                )
        before = count_rows(saver, "b")
        prune_thread(saver, "a")
        assert (count_rows(saver, "a"), count_rows(saver, "b")) == (1, before)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_threads as t
with t.open_threads(sys.argv[2]) as saver:
    graph = t.build(saver)
    t.say(graph, "k", "first")
    t.prune_thread = lambda *_: os.kill(os.getpid(), 9)
    t.say(graph, "k", "second")
"""


def test_a_kill_between_write_and_prune_loses_nothing(database: str):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), database], check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    with open_threads(database) as saver:
        assert count_rows(saver, "k") > 1
        state = say(build(saver), "k", "third")
        assert [m.text for m in state["messages"][::2]] == ["first", "second", "third"]
        assert count_rows(saver, "k") == 1


def test_forgetting_leaves_no_trace_and_other_threads_alone(database: str):
    with open_threads(database) as saver:
        graph = build(saver)
        for n in range(20):
            say(graph, "mine", f"{SECRET}, part {n}")
            say(graph, "yours", f"a common sentence, part {n}")
        say(graph, "mine", "a common sentence, part 3")
        say(build(saver, ask=True), "mine", "an interrupt is pending about the lighthouse keeper")
    assert SECRET.encode() in read_everything(database)
    proof = forget_thread("mine", database)
    assert proof["deleted"] > 0
    assert (proof["left"], proof["traces"]) == (0, 0)
    rest = read_everything(database)
    for trace in (SECRET.encode(), b"lighthouse", b"mine"):
        assert trace not in rest
    with open_threads(database) as saver:
        assert len(say(build(saver), "yours", "still here?")["messages"]) == 42
    with pytest.raises(InputError, match="no thread 'mine' in .*: there are yours"):
        forget_thread("mine", database)


def test_a_trace_that_is_left_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "threads.sqlite"
    with open_threads(file) as saver:
        say(build(saver), "mine", SECRET)
    (tmp_path / "threads.sqlite-journal-of-somebody").write_text(f"copied: {SECRET}")
    assert forget_thread("mine", file)["traces"] >= 1


def test_a_file_that_is_no_database_and_unknown_addresses_are_clear_errors(tmp_path: Path):
    (tmp_path / "t.sqlite").write_text("this is no database, but it is long enough to be looked at as one" * 20)
    for database, error in (
        (str(tmp_path / "t.sqlite"), "cannot open the threads in .*t.sqlite: file is not a database"),
        ("mysql://me:secret@host/db", "unknown database mysql://.*: give a path, or postgresql"),
    ):
        with pytest.raises(InputError, match=error) as raised, open_threads(database):
            pass
        assert "secret" not in str(raised.value)


def test_a_server_that_is_not_there_is_a_clear_error_without_the_password(tmp_path: Path):
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    with (
        pytest.raises(InputError, match="cannot open the threads in postgresql://me@/db: .*start the server") as raised,
        open_threads(f"postgresql://me:secret@/db?host={tmp_path}"),
    ):
        pass
    assert "secret" not in str(raised.value)


def test_a_failing_database_says_that_nothing_stored_is_lost():
    with pytest.raises(StorageError, match="disk is full; the conversation is as it was before"), reported():
        raise sqlite3.OperationalError("disk is full")


def test_the_database_is_named_by_the_environment_and_shown_without_its_password(monkeypatch: pytest.MonkeyPatch):
    assert find_database().endswith("threads.sqlite")
    monkeypatch.setenv("EMPATHY_AGENT_DATABASE", "postgresql://me:p@ss@host:5432/db?sslmode=require")
    assert describe_database() == "postgresql://me@host:5432/db"
    assert describe_database("postgresql:///db?host=/tmp&password=x") == "postgresql:///db"
    assert describe_database("/a/b.sqlite") == "/a/b.sqlite"


def test_messages_are_decoded_once_and_each_caller_has_its_own(tmp_path: Path):
    with open_threads(tmp_path / "t.sqlite") as saver:
        graph, config = build(saver), {"configurable": {"thread_id": "t"}}
        say(graph, "t", "hello")
        first, second = (graph.get_state(config).values["messages"] for _ in range(2))
        assert first == second
        first[0].content = "changed"
        assert graph.get_state(config).values["messages"][0].text == "hello"


def test_chat_and_forget_take_the_database(database: str, capsys: pytest.CaptureFixture[str]):
    from empathy_agent.cli import main

    options = ["--thread", "cli", "--database", database]
    quick = ["--set", "max_new_tokens=8", "--set", "max_revisions=0"]
    for turn in (1, 2):
        assert main(["chat", "--once", f"A funny film please, part {turn}", "--json", *options, *quick]) == 0
        assert json.loads(capsys.readouterr().out)["drift"]["turns"] == turn
    with open_threads(database) as saver:
        assert count_rows(saver, "cli") == 1
    assert main(["forget", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["traces"] == 0
    assert main(["forget", *options]) == 2
