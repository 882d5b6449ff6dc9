"""`assess` on files as they come: long, broken in places, in one order, the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empathy_agent import EmpathyEngine, InputError
from empathy_agent.cli import main
from empathy_agent.evaluation import assessing
from empathy_agent.evaluation.assessing import assess_conversations, read_lines
from empathy_agent.judge import judge_reply
from empathy_agent.need import read_need
from empathy_agent.recognition import recognize_task

SAID = [
    "My dad died last week",
    "A funny film please, under two hours",
    "My parcel is late again; I want my money back",
]
ANSWERED = [
    "A week is no time at all.",
    "The Nice Guys (2016) runs 116 minutes.",
    "It was our mistake, and it is on its way.",
]


def talk(number: int, turns: int = 2) -> dict[str, Any]:
    roles = (("user", SAID), ("assistant", ANSWERED))
    said = [roles[at % 2] for at in range(turns)]
    return {
        "id": f"c{number}",
        "mine": number,
        "turns": [{"role": role, "content": texts[(number + at // 2) % 3]} for at, (role, texts) in enumerate(said)],
    }


BROKEN: dict[int, tuple[bytes, str]] = {
    7: (b'{"id": "7", "turns": [', "not JSON in UTF-8"),
    9: (b'{"turns": [{"role": "robot", "content": "hi"}]}', "turn 1 has role 'robot': allowed are user, assistant, system"),
    40: (b"[1, 2]", "a line must be an object"),
    41: (b'{"id": "41"}', "'turns' must be a list with at least one turn"),
    42: (b'{"turns": [{"role": "user", "content": " "}]}', "turn 1 (user) is empty"),
    43: (b'{"turns": [{"role": "user", "content": "\xff"}]}', "not JSON in UTF-8"),
    44: (b'{"id": "\\ud800", "turns": [{"role": "user", "content": "hi"}]}', "not JSON in UTF-8"),
    45: (b'{"id": NaN, "turns": [{"role": "user", "content": "hi"}]}', "not JSON"),
    46: (b'{"id": 1e999, "turns": [{"role": "user", "content": "hi"}]}', "not JSON"),
    47: (b"[" * 100_000, "not JSON"),
    48: (b'{"turns": [{"role": "assistant", "content": "hi"}]}', "there is no user turn"),
    1000: (b'{"turns": [{"role": "user", "content": "cut', "not JSON in UTF-8"),
}  # fmt: skip


def test_a_thousand_lines_with_broken_ones_are_finished_and_the_broken_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    lines = [BROKEN[n][0] if n in BROKEN else json.dumps(talk(n)).encode() for n in range(1, 1001)]
    lines[0] = b"\xef\xbb\xbf" + lines[0]
    source.write_bytes(b"\n".join(lines))
    assert main(["assess", "--in", str(source), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["assessed"] == 1000 - len(BROKEN)
    assert [row["line"] for row in summary["broken"]] == list(BROKEN)
    for row, (number, (_, reason)) in zip(summary["broken"], BROKEN.items(), strict=True):
        assert row["reason"].startswith(f"in.jsonl, line {number}: ")
        assert reason in row["reason"]
        assert row["reason"] in printed.err
    assert f"{len(BROKEN)} broken lines left out" in printed.err
    results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["mine"] for row in results] == [n for n in range(1, 1001) if n not in BROKEN]
    first = results[0]
    assert set(first["task"]) == {"label", "confidence", "scores", "runner_up"}
    user, assistant = first["turns"]
    assert set(user) == {"role", "content", "need", "emotion", "safety"}
    assert set(assistant) == {"role", "content", "empathy"}
    assert {"level", "dimensions", "mechanisms", "uncertainty"} <= set(assistant["empathy"])
    assert list(out.parent.iterdir()) == [out], "nothing unfinished is left"


def test_nothing_readable_is_bad_input_and_an_empty_file_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"{\n[]\n")
    assert main(["assess", "--in", str(source), "--out", str(out)]) == 2
    assert "0 conversations assessed" in capsys.readouterr().err
    source.write_bytes(b"\n")
    assert main(["assess", "--in", str(source), "--out", str(out)]) == 0
    assert out.read_bytes() == b""
    out.write_text("kept", encoding="utf-8")
    assert main(["assess", "--in", str(tmp_path / "none.jsonl"), "--out", str(out)]) == 2
    assert out.read_text(encoding="utf-8") == "kept"


def test_a_line_that_is_too_long_is_passed_over_without_reading_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(assessing, "LONGEST_LINE", 200)
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join([json.dumps(talk(1)), "x" * 999, json.dumps(talk(2))]), encoding="utf-8")
    (_, first), (number, error), (last, third) = read_lines(source)
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert (number, last) == (2, 3)
    assert isinstance(error, InputError)
    assert "longer than 200 bytes" in str(error)


def test_it_reads_as_the_graph_does_and_twice_the_same(engine: EmpathyEngine, monkeypatch: pytest.MonkeyPatch):
    conversation = talk(0, turns=8)
    (whole,) = assess_conversations(engine, [conversation])
    monkeypatch.setattr(assessing, "TOGETHER", 3)
    (parts,) = assess_conversations(engine, [conversation])
    assert whole == parts, "blocks of turns carry the standing task on"
    turns, standing = conversation["turns"], None
    for at, turn in enumerate(turns):
        if turn["role"] == "user":
            found = recognize_task(engine.heads["task"], engine.encoders["task"], turns[: at + 1], standing)
            standing = found["label"]
            assert whole["turns"][at]["need"] == read_need(engine.heads["need"], engine.encoder, turns[: at + 1])
        else:
            judged = judge_reply(engine.heads["judge"], engine.encoder, turns[:at], turn["content"])
            assert whole["turns"][at]["empathy"]["level"] == pytest.approx(judged["level"], abs=1e-4)
    assert whole["task"]["label"] == standing
    assert "task" not in conversation
    assert set(conversation["turns"][0]) == {"role", "content"}, "the input is not changed"


def test_conversations_are_read_as_a_stream(engine: EmpathyEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(assessing, "TOGETHER", 4)
    taken = 0

    def give() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield talk(number)

    results = assess_conversations(engine, give())
    assert next(results)["id"] == "c0"
    assert taken == 2, "four turns are two conversations; no more is held"
    assert [row["mine"] for row in results] == list(range(1, 20))
