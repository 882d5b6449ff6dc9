"""`evaluate experts`: losses of plain and activated adapters, replies best of one and of n, files and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from empathy_agent import EmpathyEngine, ModelError
from empathy_agent.cli import main
from empathy_agent.content import find_content, find_weights
from empathy_agent.evaluation.cards import load_judge
from empathy_agent.evaluation.expert_losses import measure_losses, read_losses
from empathy_agent.evaluation.expert_replies import list_cases, measure_replies
from empathy_agent.synthesis.corpus import read_rows
from empathy_agent.template import find_invocation
from tests.conftest import save_tiny_adapters

CONVERSATIONS = find_content("prompts").parent / "conversations"
EXPERTS = ["factual", "compassionate"]


@pytest.fixture(scope="module")
def few() -> list[dict[str, Any]]:
    return [read_rows(CONVERSATIONS / "plain" / f"{task}.jsonl")[0] for task in ("movie_recommendation", "therapy")]


@pytest.mark.parametrize("activated", [False, True])
def test_losses_are_of_every_reply_and_adapters_change_them(
    tiny_model: Path, few: list[dict[str, Any]], tmp_path: Path, activated: bool
):
    from empathy_agent.models import load_base

    invocation = find_invocation(load_base(str(tiny_model))[1]) if activated else None
    save_tiny_adapters(tiny_model, tmp_path, tuple(EXPERTS), alora_invocation_tokens=invocation)
    read = read_losses(str(tiny_model), tmp_path, few, EXPERTS)
    assert read["identical"]
    for expert in EXPERTS:
        assert (read["losses"][expert] != read["losses"]["base"]).all()
    replies = [sum(turn["role"] == "assistant" for turn in c["turns"]) for c in few]
    assert all(tokens > 4 * count for tokens, count in zip(read["tokens"], replies, strict=True))
    figures = {f["measure"]: f["value"] for f in measure_losses(read, few, 0).figures}
    assert figures["base with adapters attached and off: identical logits"] == 1
    with pytest.raises(ModelError, match="has no adapter encouraging: train it"):
        read_losses(str(tiny_model), tmp_path, few, [*EXPERTS, "encouraging"])


def test_replies_are_measured_against_desired_level_contrasts_and_history(engine: EmpathyEngine):
    rows = [c for c in read_rows(CONVERSATIONS / "therapy.jsonl") if c["turns"][1].get("contrasts")][:2]
    rows += [c for c in read_rows(CONVERSATIONS / "movie_recommendation.jsonl") if c["turns"][1].get("contrasts")][:2]
    cases = [case for case in list_cases(rows, engine.tasks) if case["at"] == 1]
    judge = load_judge(find_weights("heads") / "check", engine)
    by_id = {row["id"]: row["turns"][1]["content"] for row in rows}
    own = [{"reply": by_id[case["id"]], "whole": True} for case in cases]
    swapped = [{"reply": own[-1 - i]["reply"], "whole": False} for i in range(len(own))]
    swapped[0] = {"reply": None, "whole": True}
    figures, worse = (
        {f["measure"]: f["value"] for f in measure_replies(engine, judge, cases, written, "x", 0).figures}
        for written in (own, swapped)
    )
    assert figures["answered by the expert"] == 1 > worse["answered by the expert"]
    assert figures["levels strictly ordered as desired"] == 1 > worse["levels strictly ordered as desired"]
    assert figures["absolute gap at reply 1"] < worse["absolute gap at reply 1"]
    assert figures["better than a contrast written for the turn"] > worse["better than a contrast written for the turn"]
    topic = "nearer to its own history than to a random one"
    assert figures[topic] > worse[topic]
    assert (figures["not cut off"], worse["not cut off"]) == (1, 0)


def test_the_command_writes_tables_and_every_reply(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "measured"
    assert main(["evaluate", "experts", "--limit", "2", "--candidates", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "## Perplexity" in printed
    assert printed == (out / "experts.md").read_text(encoding="utf-8") + "\n"
    report = json.loads((out / "experts.json").read_text(encoding="utf-8"))
    assert list(report["sections"]) == ["perplexity", "replies, best of 1", "replies, best of 2"]
    replies = [json.loads(line) for line in (out / "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(set(row["replies"]) == {"1", "2"} for row in replies)
    for wrong, error in (
        (["--candidates", "1"], "--candidates is 1: it must lie between 2 and 8"),
        (["--split", "none"], "no conversation of conversations has the split 'none'"),
        (["--model", "some/where"], "needs --adapters DIR"),
    ):
        assert main(["evaluate", "experts", "--out", str(out), *wrong]) == 2
        assert error in capsys.readouterr().err
