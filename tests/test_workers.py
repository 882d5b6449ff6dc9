"""Workers are shared by base and adapters, limited by their engines, and end with the last of these."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from benchmarks.scripted import script_engine
from empathy_agent import EmpathyEngine, ExpertChatModel, InputError, OverloadedError, ReplyError, build_graph
from empathy_agent import engine as engines
from empathy_agent.decoding import Decoding
from empathy_agent.models import load_model
from empathy_agent.turns import Turn
from empathy_agent.worker import Worker
from empathy_agent.workers import get_worker, release_worker


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> str:
    """A base that no other test has a worker for."""
    return str(shutil.copytree(tiny_model, tmp_path / "own"))


SHORT = Decoding(temperature=0, max_new_tokens=4)
HELLO = [Turn(role="user", content="Hello")]


def write(engine: EmpathyEngine) -> str:
    return engine.chat_model.invoke("Hello", temperature=0, max_new_tokens=4).text


def test_an_engine_that_closes_leaves_the_worker_to_the_others(own_model: str):
    one, other = EmpathyEngine(model=own_model), EmpathyEngine(model=own_model)
    text = write(one)
    worker = one.chat_model.worker
    assert other.chat_model.worker is worker
    one.close()
    one.close()
    assert write(other) == text
    with pytest.raises(InputError, match="the engine is closed: make a new one"):
        write(one)
    other.close()
    assert not worker.alive
    assert not worker._thread.is_alive()
    again = EmpathyEngine(model=own_model)
    assert again.chat_model.worker is not worker
    assert write(again) == text
    again.close()


def test_engines_on_several_threads_share_one_worker(own_model: str):
    built = [EmpathyEngine(model=own_model) for _ in range(8)]
    found: list[Worker] = []
    threads = [threading.Thread(target=lambda e=engine: found.append(e.chat_model.worker)) for engine in built]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 8
    assert len(set(found)) == 1
    for engine in built:
        assert found[0].alive
        engine.close()
    assert not found[0].alive


def test_an_engine_that_closes_while_its_worker_loads_leaves_none_behind(
    own_model: str, monkeypatch: pytest.MonkeyPatch
):
    engine, made = EmpathyEngine(model=own_model), []

    def load_and_close(*arguments: object, **limits: int) -> Worker:
        engine.close()
        made.append(get_worker(*arguments, **limits))  # type: ignore[arg-type]
        return made[0]

    monkeypatch.setattr(engines, "get_worker", load_and_close)
    with pytest.raises(InputError, match="the engine is closed"):
        _ = engine.chat_model
    assert not made[0].alive


def test_a_chat_model_without_an_engine_keeps_its_worker(own_model: str):
    model, engine = ExpertChatModel(model=own_model, temperature=0, max_new_tokens=4), EmpathyEngine(model=own_model)
    text = model.invoke("Hello").text
    assert write(engine) == text
    engine.close()
    assert model.invoke("Hello").text == text
    release_worker(None)
    with pytest.raises(ReplyError, match="the worker is closed"):
        model.invoke("Hello")


def test_an_engine_does_not_close_the_chat_model_that_a_host_gave_it(own_model: str):
    worker = Worker(load_model(own_model), max_rows=2)
    engine = EmpathyEngine(chat_model=ExpertChatModel.from_worker(worker))
    assert engine.writes_candidates
    engine.close()
    assert worker.alive
    worker.close()


def test_a_closed_engine_says_so_in_its_graph_and_is_no_default_any_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "_default", [])
    first = engines.get_engine()
    assert engines.get_engine() is first
    first.close()
    assert engines.get_engine() is not first
    scripted = script_engine()
    graph = build_graph(engine=scripted).compile()
    said = {"messages": [{"role": "user", "content": "[t1 n1] hello"}]}
    assert graph.invoke(said)["route"] == "prompt"
    scripted.close()
    with pytest.raises(InputError, match="the engine is closed"):
        graph.invoke(said)


def test_limits_reach_the_worker_through_the_engine(own_model: str):
    engine = EmpathyEngine(model=own_model, max_rows=1, max_queued=2, kept_bytes=0)
    worker = engine.chat_model.worker
    assert (worker.max_rows, worker.max_queued, worker._prefixes.limit) == (1, 2, 0)
    with worker._changed:  # nothing is taken from the queue meanwhile
        for _ in range(2):
            worker.submit(HELLO, None, SHORT)
        with pytest.raises(
            OverloadedError, match="2 requests are waiting already: try again later, or raise max_queued"
        ):
            worker.submit(HELLO, None, SHORT)
    same = EmpathyEngine(model=own_model, max_rows=1)
    assert same.chat_model.worker is worker
    with pytest.raises(InputError, match="max_rows is 4: .*own runs in this process with 1 already; give the same"):
        _ = EmpathyEngine(model=own_model, max_rows=4).chat_model
    engine.close()
    same.close()
    assert not worker.alive


@pytest.mark.parametrize(
    ("name", "limit", "least"),
    [("max_rows", 0, 1), ("max_queued", True, 1), ("kept_bytes", -1, 0), ("max_rows", 2.5, 1)],
)
def test_limits_out_of_bounds_are_refused_before_anything_is_loaded(name: str, limit: object, least: int):
    with pytest.raises(InputError, match=f"{name} is {limit}: it must be a whole number from {least}"):
        EmpathyEngine(**{name: limit})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"{name} is {limit}"):
        Worker(None, **{name: limit})  # type: ignore[arg-type]


def test_a_worker_that_somebody_closed_is_replaced_for_new_engines(own_model: str):
    first, other = EmpathyEngine(model=own_model), EmpathyEngine(model=own_model)
    text, worker = write(first), first.chat_model.worker
    worker.close()
    with pytest.raises(ReplyError, match="the worker is closed"):
        write(first)
    assert write(other) == text
    first.close()
    assert other.chat_model.worker.alive
    other.close()
