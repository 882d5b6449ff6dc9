"""Many requests at once: who waits for whom, counted in the worker's steps, and that every conversation gets its own reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.scripted import script_engine, script_head
from empathy_agent import ExpertChatModel, Settings, build_graph
from empathy_agent.decoding import Decoding
from empathy_agent.heads import Group
from empathy_agent.models import load_model
from empathy_agent.replies import Reply
from empathy_agent.turns import Turn
from empathy_agent.worker import Worker
from tests.conftest import save_tiny_adapters

BETWEEN = 256  # tokens of prompts that may be read between two steps of writing
SHORT = Decoding(temperature=0, max_new_tokens=2)


def ask(text: str) -> list[Turn]:
    return [Turn(role="user", content=text)]


def long(seed: int, tokens: int = 200) -> Decoding:
    return Decoding(temperature=1, max_new_tokens=tokens, seed=seed)


class Watched:
    """A worker whose replies end at their length only, what it did, and what a test does before its next step.

    `events` holds ("read", tokens of prompts) and ("write", rows) in the order in which the worker did it.
    """

    def __init__(self, model: Path, **limits: int):
        self.worker = Worker(load_model(str(model)), **limits)
        self.worker._ends = set()
        self.events: list[tuple[str, int]] = []
        self.before: Callable[[], None] = lambda: None
        read, write = self.worker._prompts.feed, self.worker._batch.feed

        def watch_reading(parts: list[list[int]]) -> object:
            self.before()
            self.events.append(("read", sum(map(len, parts))))
            return read(parts)

        def watch_writing(tokens: list[list[int]]) -> object:
            self.before()
            self.events.append(("write", len(tokens)))
            return write(tokens)

        self.worker._prompts.feed = watch_reading  # type: ignore[method-assign, assignment]
        self.worker._batch.feed = watch_writing  # type: ignore[method-assign, assignment]

    @property
    def written(self) -> int:
        return sum(kind == "write" for kind, _ in self.events)

    def submit(self, count: int, tokens: int = 200) -> list[Reply]:
        """Asks for `count` long replies at once."""
        with self.worker._changed:
            return [self.worker.submit(ask(f"number {i}"), None, long(i, tokens)) for i in range(count)]


@pytest.fixture
def watch(tiny_model: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(**limits: int) -> Watched:
        made.append(Watched(tiny_model, **limits))
        return made[-1]

    yield make
    for watched in made:
        watched.worker.close()


def test_a_short_reply_among_fifteen_long_ones_waits_for_its_own_reading_alone(watch: Callable[..., Watched]):
    watched, joined = watch(kept_bytes=0), []
    began = 0

    def join() -> None:
        nonlocal began
        if watched.written == 20 and not joined:
            began = len(watched.events)
            joined.append(watched.worker.submit(ask("Shall I take the early train?"), None, SHORT))
        if joined and joined[0].first_token and len(joined) == 1:
            joined.append(len(watched.events))
            joined.append([reply.finish_reason for reply in others])

    watched.before = join
    others = watched.submit(15)
    for reply in others:
        "".join(reply)
    short, had, ends = joined
    waited = watched.events[began:had]
    assert sum(tokens for kind, tokens in waited if kind == "read") == len(short.prompt)
    assert sum(kind == "write" for kind, _ in waited) <= 3
    assert ends == [""] * 15, "no long one has ended"
    rows = [count for kind, count in watched.events if kind == "write"]
    assert rows.count(16) == 1, "it wrote its second token beside them and left"
    assert [reply.usage["output_tokens"] for reply in others] == [200] * 15


def test_reading_long_prompts_holds_up_no_reply_in_the_making(watch: Callable[..., Watched]):
    watched = watch(kept_bytes=0)
    asked: list[Reply] = []

    def flood() -> None:
        if watched.written == 5 and not asked:
            asked.extend(watched.worker.submit(ask(f"{i} word " * 90), None, SHORT) for i in range(12))

    watched.before = flood
    for reply in watched.submit(4, tokens=60):
        "".join(reply)
    for reply in asked:
        "".join(reply)
    prompts = sum(len(reply.prompt) for reply in asked)
    assert prompts > 12 * BETWEEN
    between = [0]
    during = watched.events[watched.events.index(("write", 4)) :]
    for kind, count in during:
        if kind == "read":
            between[-1] += count
        else:
            assert count >= 4, "every reply in the making gets a token in every step"
            between.append(0)
    assert sum(between) == prompts
    assert max(between) == BETWEEN
    assert sum(map(bool, between)) >= prompts / BETWEEN


@pytest.mark.parametrize("at", [10, 11])
def test_cancelling_a_reply_gives_its_place_to_the_next_one_within_a_step(watch: Callable[..., Watched], at: int):
    watched, cancelled = watch(max_rows=2), []

    def cancel() -> None:
        if watched.written == at and not cancelled:
            cancelled.append(len(watched.events))
            first.cancel()

    watched.before = cancel
    first, other, waiting = watched.submit(3, tokens=40)
    for reply in (first, other, waiting):
        "".join(reply)
    (then,) = cancelled
    # The step that was being taken, then the next one's prompt, then both in one batch.
    assert watched.events[then : then + 3] == [("write", 2), ("read", len(waiting.prompt)), ("write", 2)]
    assert [reply.finish_reason for reply in (first, other, waiting)] == ["cancelled", "length", "length"]
    assert first.usage["output_tokens"] == at + 2  # the first comes from reading, the last from the step being taken
    assert all(count <= 2 for kind, count in watched.events if kind == "write")


def test_a_prompt_that_nobody_waits_for_any_more_is_read_no_further(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("empathy_agent.worker.READ_ALONE", 50)
    watched = watch(max_rows=1)

    def cancel() -> None:
        if len(watched.events) == 2:
            asked.cancel()

    watched.before = cancel
    with watched.worker._changed:
        asked = watched.worker.submit(ask("word " * 90), None, SHORT)
        after = watched.worker.submit(ask("Hello"), None, SHORT)
    assert len(asked.prompt) > 150
    assert "".join(asked) == ""
    "".join(after)
    assert (asked.finish_reason, asked.usage["output_tokens"]) == ("cancelled", 0)
    # The third part was being read.
    assert watched.events == [("read", 50)] * 3 + [("read", len(after.prompt)), ("write", 1)]


LEVELS = {"factual": 0.05, "considerate": 0.35, "encouraging": 0.6, "compassionate": 0.9}
THREADS = 64
TURNS = 2


@pytest.fixture(scope="module")
def experts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_adapters(tiny_model, tmp_path_factory.mktemp("four"), tuple(LEVELS))


class Conversations:
    """One graph over one worker, and many threads, each of which wants the empathy of one of four experts."""

    def __init__(self, model: Path, adapters: Path, **limits: int):
        self.worker = Worker(load_model(str(model), adapters), **limits)
        engine = script_engine(ExpertChatModel.from_worker(self.worker))
        tasks = list(engine.tasks.profiles)
        group = Group("task", "softmax", tasks)
        # `unknown` would never get the compassionate expert.
        engine.heads["task"] = script_head([group], engine.encoder.dimension, favour=tasks.index("tutoring"))
        self.graph = build_graph(engine=engine).compile(checkpointer=InMemorySaver())

    @staticmethod
    def ask(thread: int, turn: int) -> dict[str, Any]:
        """What `invoke` and `ainvoke` take for one turn of a thread."""
        level = list(LEVELS.values())[thread % 4]
        text = f"[t{thread} n{turn}] " + f"{thread * 7919 % 1000} and then? " * (1 + thread % 7)
        return {
            "input": {"messages": [{"role": "user", "content": text}]},
            "config": {"configurable": {"thread_id": f"user {thread}"}},
            "context": Settings(level=level, temperature=0, max_new_tokens=8 + thread % 5, max_revisions=0),
        }

    def talk(self, thread: int) -> None:
        for turn in range(TURNS):
            self.graph.invoke(**self.ask(thread, turn))

    async def talk_asynchronously(self, thread: int) -> None:
        for turn in range(TURNS):
            await self.graph.ainvoke(**self.ask(thread, turn))

    def read(self) -> dict[int, dict[str, Any]]:
        """The state of every thread; messages as pairs of who said what."""
        states = {}
        for thread in range(THREADS):
            values = self.graph.get_state({"configurable": {"thread_id": f"user {thread}"}}).values
            said = [(m.type, m.text, m.response_metadata.get("adapter")) for m in values["messages"]]
            drafts = [{**draft, "id": ""} for draft in values["revisions"]]  # ids of messages are random
            states[thread] = {**values, "messages": said, "revisions": drafts}
        return states


@pytest.fixture(scope="module")
def alone(tiny_model: Path, experts: Path) -> Iterator[dict[int, dict[str, Any]]]:
    """What every thread becomes where one speaks at a time and nothing is remembered for it."""
    one = Conversations(tiny_model, experts, max_rows=1, kept_bytes=0)
    for thread in range(THREADS):
        one.talk(thread)
    yield one.read()
    one.worker.close()


@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_64_threads_on_four_experts_of_one_graph_become_what_each_becomes_alone(
    way: str, tiny_model: Path, experts: Path, alone: dict[int, dict[str, Any]]
):
    many = Conversations(tiny_model, experts, max_rows=24)
    rows: list[int] = []
    write = many.worker._batch.feed
    many.worker._batch.feed = lambda tokens: (rows.append(len(tokens)), write(tokens))[1]  # type: ignore[method-assign]
    if way == "threads":
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(many.talk, thread) for thread in range(THREADS)]:
                done.result()
    else:

        async def talk_all() -> None:
            await asyncio.gather(*map(many.talk_asynchronously, range(THREADS)))

        asyncio.run(talk_all())
    found = many.read()
    many.worker.close()
    assert max(rows) > 4, "replies were written together"
    for thread, state in found.items():
        assert state == alone[thread]
        expert = list(LEVELS)[thread % 4]
        assert (state["route"], state["expert"], state["drift"]["turns"]) == ("adapter", expert, TURNS)
        assert [adapter for who, _, adapter in state["messages"] if who == "ai"] == [expert] * TURNS
        own = [text for who, text, _ in state["messages"] if who == "human"]
        assert [text.split("]")[0] for text in own] == [f"[t{thread} n{turn}" for turn in range(TURNS)]
    replies = {tuple(text for who, text, _ in state["messages"] if who == "ai") for state in found.values()}
    assert len(replies) > THREADS / 2, "replies of another thread would be seen"
