"""`empathy-agent simulate` as its user runs it: who plays the users, going on after a kill, Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from empathy_agent.cli import main
from empathy_agent.simulation import read_records

TOP = Path(__file__).parent.parent
PERSONAS = TOP / "conversations" / "personas.jsonl"
USERS = """
LINES = ["Could you suggest a funny film?", "Something shorter, please."]

def ask(trajectory, *, thread_id, turn_counter, persona):
    return f"{persona['wants']}, question {turn_counter}" if turn_counter < 2 else None
"""


@pytest.fixture
def command(tiny_model: Path, tiny_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their.py").write_text(USERS, encoding="utf-8")
    return [
        "simulate", "--personas", str(PERSONAS), "--task", "tutoring", "--json", "--turns", "2", "--concurrency", "2",
        "--model", str(tiny_model), "--adapters", str(tiny_adapters), "--out", str(tmp_path / "out.jsonl"),
        "--set", "max_new_tokens=8", "--set", "max_revisions=0", "--set", "candidates=2",
    ]  # fmt: skip


def list_said(out: Path) -> list[list[str]]:
    records = sorted(read_records(out), key=lambda record: record["id"])
    return [[turn["content"] for turn in record["turns"] if turn["role"] == "user"] for record in records]


def test_lines_and_functions_play_users_and_another_run_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out.jsonl"
    assert main([*command, "--sessions", "2", "--users", "their.py:LINES"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["sessions"], summary["users"], summary["retries"]) == (2, "lines", 0)
    assert list_said(out) == [["Could you suggest a funny film?", "Something shorter, please."]] * 2
    before = out.read_bytes()
    for changed, error in (
        (["--users", "their.py:ask"], "another user ('their.py:LINES', not 'their.py:ask')"),
        (["--users", "their.py:LINES", "--seed", "5"], "another session_seed (0, not 5)"),
        (["--users", "their.py:LINES", "--turns", "1"], "another turns (2, not 1)"),
        (["--users", "their.py:LINES", "--set", "top_k=0"], "another top_k ("),
        (["--users", "their.py:LINES", "--adapters", str(tmp_path)], "another adapters"),
    ):
        assert main([*command, "--sessions", "2", *changed]) == 2
        told = capsys.readouterr().err
        assert error in told
        assert "name another --out" in told
    assert out.read_bytes() == before
    assert main([*command, "--sessions", "1", "--users", "their.py:ask", "--out", str(tmp_path / "ask.jsonl")]) == 0
    ((first, second),) = list_said(tmp_path / "ask.jsonl")
    assert first.endswith(", question 0")
    assert second.endswith(", question 1")


def test_any_chat_model_plays_users(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = iter([AIMessage("User: I never got past the first chapter."), AIMessage("And the second one?")])
    models = {"acme:talker": GenericFakeChatModel(messages=said)}
    monkeypatch.setattr("langchain.chat_models.init_chat_model", models.__getitem__)
    personas = tmp_path / "personas.jsonl"
    personas.write_text(json.dumps({"id": "p", "task": "tutoring", "who": "19, Lima", "wants": "help with a novel"}))
    given = [*command, "--personas", str(personas), "--user-model", "acme:talker"]
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["users"] == "GenericFakeChatModel"
    assert list_said(tmp_path / "out.jsonl") == [["I never got past the first chapter.", "And the second one?"]]
    assert json.loads((tmp_path / "out.plan.json").read_text())["played"]["user"] == "acme:talker"
    assert main([*given, "--users", "their.py:ask", "--out", str(tmp_path / "both.jsonl")]) == 2
    assert "both say who plays the users: give one" in capsys.readouterr().err


def test_the_command_goes_on_after_a_kill_and_loses_nothing(command: list[str], tmp_path: Path):
    out = tmp_path / "out.jsonl"
    started = [sys.executable, "-m", "empathy_agent.cli", *command]
    first = subprocess.Popen([*started, "--sessions", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while first.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 2):
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = out.read_bytes()[: out.read_bytes().rfind(b"\n") + 1]
    assert kept
    sessions = str(kept.count(b"\n") + 2)
    done = run([*started, "--sessions", sessions])
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sessions"] == summary["skipped"] + 2
    assert summary["users"] == "base without adapter user"
    assert "no adapter 'user'" in done.stderr
    assert out.read_bytes().startswith(kept)
    records = read_records(out)
    assert len({record["id"] for record in records}) == len(records)
    assert all(record["emotion"][0] == 40 and record["turns"][1]["judged"] for record in records)
    assert os.path.getsize(out) > len(kept)


def test_the_command_plays_on_ray_and_says_what_an_actor_lacks(command: list[str], tmp_path: Path):
    pytest.importorskip("ray", reason='Ray is not installed: pip install "empathy-agent[ray]"')
    started = [sys.executable, "-m", "empathy_agent.cli", *command, "--users", "their.py:LINES", "--sessions", "2"]
    done = run([*started, "--ray", "local", "--ray-cpus", "2"])
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["sessions"], summary["failed"], summary["lost"], summary["turns"]) == (2, 0, 0, 4)
    assert len(list_said(tmp_path / "out.jsonl")) == 2
    broken = run([*started, "--ray", "local", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "x.jsonl")])
    assert broken.returncode == 1
    assert "an actor cannot build its models: cannot load the model" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert (tmp_path / "x.jsonl").read_bytes() == b""


def run(command: list[str]) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
