"""`empathy-agent evaluate` as its user runs it: personas, other users and judges, and the report of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from empathy_agent.cli import main
from tests.test_generative_judge import Scripted, write_answer

APP = """
async def app(message, *, thread_id):
    return "There are three short ones. Which do you know?"

LINES = ["A beach?", "A quiet one."]
"""
PERSONA = {
    "id": "p",
    "task": "travel_planning",
    "who": "44, Oslo",
    "wants": "a quiet beach",
    "opening": "A beach?",
    "hides": "he has just been divorced",
    "discloses_at": 2,
}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plays an app that costs nothing against one persona for three turns."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their.py").write_text(APP, encoding="utf-8")
    (tmp_path / "personas.jsonl").write_text(json.dumps(PERSONA) + "\n")
    return ["evaluate", "--scenarios", "personas.jsonl", "--systems", "mine=their.py:app", "--turns", "3"]


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_a_chat_model_plays_the_users_and_another_judges_beside_the_learned_one(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = ["I just got divorced, so I want no families around.", "I just got divorced, so I want no families around."]
    models = {
        "acme:talker": GenericFakeChatModel(messages=iter([AIMessage(text) for text in [*said, "None of them."]])),
        "acme:judge": Scripted(script=lambda case, **more: write_answer(case, level=0.6)),
    }
    monkeypatch.setattr("langchain.chat_models.init_chat_model", models.__getitem__)
    out = tmp_path / "out"
    assert main([*given, "--user-model", "acme:talker", "--judge-model", "acme:judge", "--out", str(out)]) == 0
    report = read(out)
    assert (report["judges"], report["settings"]["user"]) == (["learned", "generative"], "acme:talker")
    assert report["judge_cards"]["generative"]["name"] == "acme:judge"
    mine = report["systems"]["mine"]
    conversation = mine["conversations"][0]
    assert [turn["content"] for turn in conversation["turns"][::2]] == ["A beach?", said[0], "None of them."]
    assert [(turn["disclosed"], turn["told"]) for turn in conversation["turns"][::2]] == [
        (None, None),
        (PERSONA["hides"], True),
        (None, None),
    ]
    assert conversation["role"] == {"retries": 1, "breaks": [{"turn": 2, "kind": "repeats", "kept": False}]}
    assert (mine["users"]["retries"], mine["users"]["out_of_role"], mine["users"]["told"]) == (1, 0.0, 1.0)
    assert mine["judged_by"]["generative"]["mean_abs_gap"] == pytest.approx(0.6 - 0.25)
    assert {turn["ratings"]["generative"]["level"] for turn in conversation["turns"][1::2]} == {0.6}
    page = (out / "report.html").read_text()
    assert "late disclosure, made" in page
    assert PERSONA["hides"] in page


def test_lines_play_the_users_and_hold_no_role(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main([*given, "--users", "their.py:LINES", "--out", str(out)]) == 0
    mine = read(out)["systems"]["mine"]
    assert mine["users"] is None
    assert mine["emotion"]["start"] == 40
    assert [turn["content"] for turn in mine["conversations"][0]["turns"][::2]] == ["A beach?", "A quiet one."]
    assert main([*given, "--users", "their.py:LINES", "--out", str(out), "--seed", "3"]) == 2
    assert "played with another session_seed (0, not 3): name another --out" in capsys.readouterr().err


def test_a_report_of_records_is_the_same_with_the_seed_and_tolerance_of_the_sessions(given: list[str], tmp_path: Path):
    out, again, other = (tmp_path / name for name in ("out", "again", "other"))
    options = ["--users", "their.py:LINES", "--seed", "7", "--set", "tolerance=0.02"]
    assert main([*given, *options, "--out", str(out)]) == 0
    assert main(["evaluate", "--records", str(out / "records"), "--out", str(again)]) == 0
    first, second = read(out), read(again)
    assert (second["seed"], second["settings"]["session_seed"], second["settings"]["tolerance"]) == (7, 7, 0.02)
    for part in ("systems", "settings", "seed", "judge_cards", "comparisons"):
        assert second[part] == first[part], part
    records = ["--records", str(out / "records"), "--seed", "1", "--set", "tolerance=0.4"]
    assert main(["evaluate", *records, "--out", str(other)]) == 0
    third = read(other)
    assert (third["seed"], third["settings"]["session_seed"], third["settings"]["tolerance"]) == (1, 7, 0.4)


def test_the_command_plays_personas_and_makes_the_report_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    persona = {"id": "p", "task": "travel_planning", "who": "44, Oslo", "wants": "a quiet beach", "opening": "A beach?"}
    (tmp_path / "personas.jsonl").write_text(json.dumps(persona) + "\n")
    out = tmp_path / "out"
    options = ["--set", "max_new_tokens=8", "--set", "temperature=0", "--turns", "2"]
    given = ["evaluate", "--scenarios", str(tmp_path / "personas.jsonl"), "--out", str(out), *options]
    assert main([*given, "--systems", "base,experts", "--ablations", "no_retrieval,wrong_expert"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["command"][:2] == ["empathy-agent", "evaluate"]
    assert report["scenarios"]["kind"] == "personas"
    assert set(report["ablations"]) == {"no_retrieval", "wrong_expert"}
    experts = report["systems"]["experts"]
    assert experts["conversations"][0]["turns"][0]["content"] == "A beach?"
    assert experts["emotion"]["start"] == 40
    assert experts["tokens"]["output"] > 0
    wrong = json.loads((out / "records" / "ablations" / "wrong_expert.jsonl").read_text())
    own = [turn["expert"] for turn in experts["conversations"][0]["turns"] if turn["role"] == "assistant"]
    assert own[0] != next(turn["state"]["expert"] for turn in wrong["turns"] if turn["role"] == "assistant")
    assert "not independent" not in capsys.readouterr().err
    assert (out / "report.html").stat().st_size > 1000
    again = tmp_path / "again"
    assert main(["evaluate", "--records", str(out / "records"), "--out", str(again), "--set", "max_new_tokens=8"]) == 0
    second = json.loads((again / "report.json").read_text())
    assert second["systems"]["experts"]["curve"] == experts["curve"]
    assert second["ablations"] == report["ablations"]
    assert second["settings"] == report["settings"]
    assert second["judge_cards"]["learned"]["independent"] is True


def test_the_command_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "out")]
    assert main(["evaluate", *out]) == 2
    assert "give --scenarios F to play, or --records" in capsys.readouterr().err
    (tmp_path / "s.jsonl").write_text('{"id": "a", "turns": ["hi"]}\n')
    given = ["evaluate", "--scenarios", str(tmp_path / "s.jsonl"), *out]
    assert main([*given, "--turns", "0"]) == 2
    assert main([*given, "--ablations", "no_magic"]) == 2
    assert "choose no_retrieval, no_need" in capsys.readouterr().err
    assert main(["evaluate", "--records", str(tmp_path / "nothing"), *out]) == 2
    assert not (tmp_path / "out" / "report.json").exists()
