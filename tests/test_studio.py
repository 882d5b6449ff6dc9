"""`langgraph dev` serves the graph: tokens, every node's update, settings with descriptions, and the review interrupt."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket
from langgraph_sdk import get_sync_client

TOP = Path(__file__).parent.parent
ASK = {"messages": [{"role": "user", "content": "Can you suggest a funny movie for tonight?"}]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    pytest_socket.enable_socket()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("studio") / "log").open("w+")
    quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGGRAPH_NO_VERSION_CHECK": "true", "LANGSMITH_TRACING": "false"}
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    server = subprocess.Popen(command, cwd=TOP, env={**os.environ, **quiet}, stdout=log, stderr=log)
    client = get_sync_client(url=f"http://127.0.0.1:{port}")
    try:
        for _ in range(240):
            try:
                client.assistants.search()
                break
            except Exception:
                assert server.poll() is None, Path(log.name).read_text()
                time.sleep(0.5)
        yield client
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()
        client.http.client.close()
        pytest_socket.disable_socket()


@pytest.mark.enable_socket
def test_a_run_streams_tokens_and_every_node(client):
    thread = client.threads.create()
    nodes, tokens = [], 0
    for part in client.runs.stream(
        thread["thread_id"],
        "empathetic_chat",
        input=ASK,
        context={"candidates": 1, "max_revisions": 0},
        stream_mode=["updates", "messages-tuple"],
    ):
        if part.event == "updates":
            nodes += list(part.data)
        elif part.event == "messages":
            tokens += bool(part.data[0].get("content")) and part.data[1]["langgraph_node"] == "generate_reply"
        assert part.event != "error", part.data
    assert nodes == [
        "screen_message",
        "recognize_task",
        "estimate_need",
        "retrieve_exemplars",
        "generate_reply",
        "assess_reply",
        "track_drift",
    ]
    assert tokens > 3
    state = client.threads.get_state(thread["thread_id"])["values"]
    assert (state["task"]["label"], state["expert"]) == ("movie_recommendation", "factual")


@pytest.mark.enable_socket
def test_settings_are_shown_with_descriptions(client):
    (assistant,) = client.assistants.search(graph_id="empathetic_chat")
    schema = client.assistants.get_schemas(assistant["assistant_id"])["context_schema"]["properties"]
    for name in ("expert", "top_k", "tolerance", "max_revisions", "user_preference", "review"):
        assert schema[name]["description"]
    assert schema["system"]["enum"] == ["experts", "prompt", "base"]
    for name in ("assistant_prompt", "pattern_prompt"):
        assert schema[name]["langgraph_type"] == "prompt"
    assert schema["top_k"]["langgraph_nodes"] == ["retrieve_exemplars"]
    assert schema["tolerance"]["langgraph_nodes"] == ["assess_reply", "track_drift"]


@pytest.mark.enable_socket
@pytest.mark.parametrize("graph", ["empathetic_chat", "simulated_session"])
def test_every_node_says_what_it_reads_and_writes_and_every_setting_names_its_nodes(client, graph: str):
    (assistant,) = client.assistants.search(graph_id=graph)
    drawn = client.assistants.get_graph(assistant["assistant_id"])["nodes"]
    nodes = {node["id"]: node.get("metadata", {}) for node in drawn if not node["id"].startswith("__")}
    assert all({"reads", "writes"} <= set(about) for about in nodes.values())
    settings = client.assistants.get_schemas(assistant["assistant_id"])["context_schema"]["properties"]
    assert {node for about in settings.values() for node in about["langgraph_nodes"]} <= set(nodes)


@pytest.mark.enable_socket
def test_a_reply_waits_for_review_and_is_sent_as_edited(client):
    thread = client.threads.create()["thread_id"]
    context = {"review": True, "max_revisions": 0}
    client.runs.wait(thread, "empathetic_chat", input=ASK, context=context)
    state = client.threads.get_state(thread)
    (interrupt,) = state["tasks"][0]["interrupts"]
    assert interrupt["value"]["reply"]
    assert [message["type"] for message in state["values"]["messages"]] == ["human"], "nothing was sent yet"
    edited = {"resume": {"reply": "Paddington 2 (2017), 103 minutes."}}
    result = client.runs.wait(thread, "empathetic_chat", command=edited, context=context)
    assert result["messages"][-1]["content"] == "Paddington 2 (2017), 103 minutes."
    assert result["drift"]["turns"] == 1


@pytest.mark.enable_socket
def test_a_reply_is_written_again_at_the_level_that_a_person_wants(client):
    thread = client.threads.create()["thread_id"]
    context = {"review": True, "max_revisions": 0}
    client.runs.wait(thread, "empathetic_chat", input=ASK, context=context)
    for answer in (
        {"level": 3},
        '{"level": 0.3}',
    ):  # the first cannot be used and is asked again; a text box sends text
        client.runs.wait(thread, "empathetic_chat", command={"resume": answer}, context=context)
        state = client.threads.get_state(thread)
        (interrupt,) = state["tasks"][0]["interrupts"]
        assert ("error" in interrupt["value"]) == (answer == {"level": 3})
    assert interrupt["value"]["expert"] == "considerate"
    result = client.runs.wait(thread, "empathetic_chat", command={"resume": True}, context=context)
    assert (result["desired"], result["drift"]["turns"], len(result["messages"])) == (0.3, 1, 2)


@pytest.mark.enable_socket
def test_bad_input_keeps_its_message_through_the_server(client):
    thread = client.threads.create()["thread_id"]
    empty = {"messages": [{"role": "user", "content": " "}]}
    result = client.runs.wait(thread, "empathetic_chat", input=empty, raise_error=False)
    assert "the message is empty" in str(result)


@pytest.mark.enable_socket
def test_a_simulated_session_is_watched_turn_by_turn(client):
    thread = client.threads.create()["thread_id"]
    context = {"turns": 2, "max_revisions": 0, "max_new_tokens": 12, "opening": "Which film is short and funny?"}
    nodes = []
    for part in client.runs.stream(
        thread, "simulated_session", input={"messages": []}, context=context, stream_mode="updates"
    ):
        assert part.event != "error", part.data
        if part.event == "updates":
            nodes += list(part.data)
    assert nodes[:3] == ["write_message", "empathetic_chat", "move_emotion"]
    state = client.threads.get_state(thread)["values"]
    assert state["messages"][0]["content"] == "Which film is short and funny?"
    assert (state["emotion"][0], len(state["messages"])) == (40.0, 4)
    assert (state["persona"]["puts_off"], state["wants"]) == ("lectures", "a sleep plan that fits")
    assert (state["disclosed"], len(state["hidden"])) == ([], 1)
    (assistant,) = client.assistants.search(graph_id="simulated_session")
    schema = client.assistants.get_schemas(assistant["assistant_id"])["context_schema"]["properties"]
    for name in ("who", "wants", "hides", "turns", "temperature"):
        assert schema[name]["description"]
