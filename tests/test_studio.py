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
        context={"max_revisions": 0},
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


@pytest.mark.enable_socket
def test_a_reply_waits_for_review_and_is_sent_as_edited(client):
    thread = client.threads.create()["thread_id"]
    context = {"review": True, "max_revisions": 0}
    client.runs.wait(thread, "empathetic_chat", input=ASK, context=context)
    state = client.threads.get_state(thread)
    (interrupt,) = state["tasks"][0]["interrupts"]
    assert interrupt["value"]["reply"]
    edited = {"resume": {"reply": "Paddington 2 (2017), 103 minutes."}}
    result = client.runs.wait(thread, "empathetic_chat", command=edited, context=context)
    assert result["messages"][-1]["content"] == "Paddington 2 (2017), 103 minutes."
    assert result["drift"]["turns"] == 1


@pytest.mark.enable_socket
def test_bad_input_keeps_its_message_through_the_server(client):
    thread = client.threads.create()["thread_id"]
    empty = {"messages": [{"role": "user", "content": " "}]}
    result = client.runs.wait(thread, "empathetic_chat", input=empty, raise_error=False)
    assert "the message is empty" in str(result)
