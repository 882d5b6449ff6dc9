"""Spans and measures, collected in memory, and that no text of a conversation is among them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.scripted import script_engine
from empathy_agent import EmpathyMiddleware, ExpertChatModel, Settings, build_graph, telemetry
from empathy_agent.decoding import Decoding
from empathy_agent.errors import ReplyError
from empathy_agent.models import load_model
from empathy_agent.turns import Turn
from empathy_agent.worker import Worker
from tests.test_threat_model import Recorder, say

SECRET, TOLD = "Quintessa", "Marmaduke"
QUICK = Settings(max_revisions=0)


class Collected:
    """What an SDK received."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def read_measures(self) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {
            m.name: [(getattr(p, "value", getattr(p, "sum", None)), dict(p.attributes)) for p in m.data.data_points]
            for m in metrics
        }

    def read_everything(self) -> str:
        return "".join(span.to_json() for span in self.exporter.get_finished_spans()) + str(self.read_measures())


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    found = Collected()
    instruments = telemetry.build_instruments(found.tracers, found.meters)
    monkeypatch.setattr(telemetry, "_find_instruments", lambda: instruments)
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


def run(text: str = f"My cat {SECRET} is ill", **settings: Any) -> Any:
    model = Recorder(reply=f"Poor {TOLD}.")
    context = Settings(**{"max_revisions": 0, **settings})
    return build_graph(engine=script_engine(model)).compile().invoke(say(text), context=context)


def test_every_node_has_a_span_with_what_it_decided(collected: Collected):
    state = run()
    assert list(collected.spans) == [
        "screen_message",
        "recognize_task",
        "estimate_need",
        "retrieve_exemplars",
        "generate_reply",
        "assess_reply",
        "track_drift",
    ]
    attributes = {name: dict(span.attributes) for name, span in collected.spans.items()}
    assert attributes["recognize_task"]["empathy_agent.task"] == state["task"]["label"]
    assert attributes["estimate_need"]["empathy_agent.expert"] == state["expert"]
    assert attributes["generate_reply"]["empathy_agent.route"] == "prompt"
    assert attributes["track_drift"]["empathy_agent.gap"] == state["drift"]["gap"]
    assert attributes["track_drift"]["empathy_agent.alarm"] == state["drift"]["alarm"]


def test_turns_gaps_and_alarms_are_counted_by_task_expert_and_route(collected: Collected):
    state = run()
    about = {"task": state["task"]["label"], "expert": state["expert"], "route": "prompt"}
    measures = collected.read_measures()
    assert measures["empathy_agent.turns"] == [(1, about)]
    assert measures["empathy_agent.gap"] == [(pytest.approx(state["drift"]["gap"]), about)]
    graph = build_graph(engine=script_engine(Recorder())).compile(checkpointer=InMemorySaver())
    for _ in range(8):
        graph.invoke(say("hm"), {"configurable": {"thread_id": "t"}}, context=Settings(level=0.0, max_revisions=0))
        graph.invoke(say("hm"), {"configurable": {"thread_id": "u"}}, context=Settings(level=1.0, max_revisions=0))
    alarms = collected.read_measures()["empathy_agent.alarms"]
    assert {about["alarm"] for _, about in alarms} & {"over", "under"}


def test_a_hand_off_is_counted_without_its_category(collected: Collected):
    run("I want to kill myself")
    assert collected.read_measures()["empathy_agent.turns"] == [(1, {"route": "hand_off"})]
    assert "self_harm" not in collected.read_everything()


def test_no_text_leaves_by_default(collected: Collected, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EMPATHY_AGENT_TRACE_TEXT", raising=False)
    run()
    monkeypatch.setenv("EMPATHY_AGENT_TRACE_TEXT", "yes please")  # only 1 opts in
    run()
    shown = collected.read_everything()
    assert "recognize_task" in shown
    assert SECRET not in shown
    assert TOLD not in shown


def test_no_text_leaves_from_drafts_edits_exemplars_agents_or_the_worker(
    collected: Collected, tiny_model: Path, tiny_adapters: Path
):
    writer = ExpertChatModel(model=str(tiny_model), adapters=str(tiny_adapters))
    revised = Settings(max_revisions=1, tolerance=0.0, level=1.0, candidates=2, max_new_tokens=8)
    state = build_graph(engine=script_engine(writer)).compile().invoke(say(SECRET), context=revised)
    drafts = [draft["content"] for draft in state["revisions"]]
    writer.worker.close()
    engine = script_engine(Recorder(reply=f"Poor {TOLD}."))
    graph = build_graph(engine=engine).compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    waiting = Settings(review=True, max_revisions=0, level=1.0)
    recalled = graph.invoke(say(SECRET), thread, context=waiting)["exemplars"]
    for answer in ({"reply": 3}, f"{TOLD} is fine."):  # the first one is refused, and asked again with the reason
        graph.invoke(Command(resume=answer), thread, context=waiting)
    agent = create_agent(Recorder(reply=f"Poor {TOLD}."), middleware=[EmpathyMiddleware(engine=engine)])
    agent.invoke(say(f"I want to kill {SECRET}"))
    names = [span.name for span in collected.exporter.get_finished_spans()]
    assert names.count("generate_reply") == 3
    assert names.count("assess_reply") == 6
    assert "read_prompts" in names
    shown = collected.read_everything()
    assert recalled
    for text in (SECRET, TOLD, *drafts, *(e["user"] for e in recalled), *(e["reply"] for e in recalled)):
        assert text not in shown


def test_tokens_of_a_model_elsewhere_are_counted_too(collected: Collected):
    usage = {"input_tokens": 40, "output_tokens": 7, "total_tokens": 47}

    class Remote(Recorder):
        def _generate(self, *_: Any, **__: Any) -> Any:
            message = AIMessage("Here.", usage_metadata=usage, response_metadata={"finish_reason": "stop"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    context = Settings(max_revisions=1, tolerance=0.0, level=1.0)
    build_graph(engine=script_engine(Remote())).compile().invoke(say("A film please"), context=context)
    about = {"adapter": "base", "finish_reason": "stop"}
    expected = [(80, {**about, "type": "input"}), (14, {**about, "type": "output"})]
    assert collected.read_measures()["empathy_agent.tokens"] == expected, "both drafts count"
    assert collected.spans["generate_reply"].attributes["empathy_agent.tokens.output"] == 7


def test_text_is_added_where_it_was_asked_for(collected: Collected, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMPATHY_AGENT_TRACE_TEXT", "1")
    run()
    assert collected.spans["generate_reply"].attributes["empathy_agent.reply"] == f"Poor {TOLD}."
    assert SECRET in collected.spans["screen_message"].attributes["empathy_agent.message"]


def test_an_error_is_named_by_its_kind_and_not_by_its_words(collected: Collected):
    class Failing(Recorder):
        def _generate(self, messages: Any, *_: Any, **__: Any) -> Any:
            raise RuntimeError(f"the provider refused {messages[-1].text}")

    with pytest.raises(RuntimeError, match=SECRET):
        build_graph(engine=script_engine(Failing())).compile().invoke(say(SECRET), context=QUICK)
    span = collected.spans["generate_reply"]
    assert (span.attributes["error.type"], span.status.description, span.events) == ("RuntimeError", "RuntimeError", ())
    assert SECRET not in collected.read_everything()


def test_a_reply_that_waits_for_a_person_is_no_error(collected: Collected):
    graph = build_graph(engine=script_engine(Recorder())).compile(checkpointer=InMemorySaver())
    context = Settings(review=True, max_revisions=0)
    graph.invoke(say("A film please"), {"configurable": {"thread_id": "t"}}, context=context)
    span = collected.spans["assess_reply"]
    assert span.attributes["empathy_agent.interrupted"] is True
    assert span.status.is_ok or span.status.status_code.name == "UNSET"


def test_batches_are_linked_to_who_asked_and_tokens_are_counted(
    collected: Collected, tiny_model: Path, tiny_adapters: Path
):
    worker = Worker(load_model(str(tiny_model), tiny_adapters))
    try:
        with collected.tracers.get_tracer("host").start_as_current_span("host") as host:
            decoding = Decoding(temperature=0, max_new_tokens=4)
            replies = [
                worker.submit([Turn(role="user", content=SECRET)], adapter, decoding) for adapter in (None, "factual")
            ]
        for reply in replies:
            "".join(reply)
    finally:
        worker.close()
    readings = [span for span in collected.exporter.get_finished_spans() if span.name == "read_prompts"]
    linked = {link.context.span_id for span in readings for link in span.links}
    assert linked == {host.get_span_context().span_id}
    mix = {entry for span in readings for entry in span.attributes["empathy_agent.adapters"]}
    assert mix == {"base:1", "factual:1"}
    read = sum(span.attributes["empathy_agent.tokens.input"] for span in readings)
    assert read == sum(len(reply.prompt) for reply in replies)
    measures = collected.read_measures()
    written = {
        about["adapter"]: value for value, about in measures["empathy_agent.tokens"] if about["type"] == "output"
    }
    assert written == {"base": replies[0].usage["output_tokens"], "factual": replies[1].usage["output_tokens"]}
    assert all(value > 0 for value, _ in measures["empathy_agent.time_to_first_token"])
    assert {"empathy_agent.batch.rows", "empathy_agent.queue.length"} <= set(measures)
    assert SECRET not in collected.read_everything()


def test_a_failing_batch_names_the_kind_of_its_error(
    collected: Collected, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    worker = Worker(load_model(str(tiny_model)))

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(worker._prompts, "feed", fail)
    with pytest.raises(ReplyError):
        "".join(worker.submit([Turn(role="user", content="hi")], None, Decoding()))
    worker.close()
    assert collected.spans["read_prompts"].attributes["error.type"] == "MemoryError"


def test_without_the_package_nodes_are_not_wrapped_and_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    telemetry._find_instruments.cache_clear()

    def node(state: Any, runtime: Any) -> dict[str, Any]:
        return {}

    assert telemetry.observe_node(node) is node
    with telemetry.observe_reading([], 0, 0, 0):
        pass
    assert telemetry.find_caller() is None
    assert run()["messages"]
    telemetry._find_instruments.cache_clear()


def test_the_sdk_is_never_imported():
    code = (
        "import sys, langgraph.graph, langchain_core.language_models; before = set(sys.modules)\n"
        "import empathy_agent.worker; from empathy_agent import build_graph, telemetry\n"
        "build_graph().compile(); telemetry.build_instruments()\n"
        "print([name for name in set(sys.modules) - before if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
