"""The shipped content: prompts, exemplars and written conversations hold what the code and the design promise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from empathy_agent.content import find_content
from empathy_agent.errors import InputError
from empathy_agent.exemplars import load_exemplars
from empathy_agent.honesty import find_violations
from empathy_agent.need import PARTS
from empathy_agent.prompts import load_prompt, write_prompt
from empathy_agent.safety import CATEGORIES
from empathy_agent.synthesis.corpus import read_rows
from empathy_agent.tasks import UNKNOWN, load_tasks


def test_every_pattern_and_every_danger_has_its_prompt():
    for pattern in load_tasks().patterns:
        assert write_prompt(f"pattern_{pattern}")
    for category in set(CATEGORIES) - {"none"}:
        words = write_prompt(f"hand_off_{category}")
        assert "112" in words
        assert "911" in words
        assert "I am an AI program" in words or category == "medical_emergency"


def test_a_prompt_names_everything_that_is_missing_or_not_used_at_once():
    with pytest.raises(InputError, match=r"missing \['reply', 'user'\], not used \['mood'\]"):
        write_prompt("exemplar", mood="blue")
    with pytest.raises(InputError, match="no prompt 'sermon'"):
        load_prompt("sermon")


def test_every_task_has_at_least_twenty_honest_exemplars_near_its_patterns():
    tasks = load_tasks()
    exemplars = load_exemplars()
    counts = Counter(exemplar["task"] for exemplar in exemplars)
    assert set(counts) == set(tasks.profiles) - {UNKNOWN}
    assert min(counts.values()) >= 20
    assert len({exemplar["reply"] for exemplar in exemplars}) == len(exemplars)
    for exemplar in exemplars:
        assert exemplar["pattern"] in tasks.patterns
        assert not find_violations(exemplar["reply"]), exemplar["id"]


def test_a_broken_exemplar_names_its_line(tmp_path: Path):
    good = (find_content("retrieval/exemplars") / "therapy.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "mine.jsonl").write_text("\n".join([*good[:2], '{"id": "x"}']), encoding="utf-8")
    with pytest.raises(InputError, match="mine.jsonl, line 3: an exemplar needs id, task, pattern"):
        load_exemplars(tmp_path)
    (tmp_path / "mine.jsonl").write_text("\n".join([*good[:2], good[0]]), encoding="utf-8")
    with pytest.raises(InputError, match="line 3: id .* is repeated"):
        load_exemplars(tmp_path)
    with pytest.raises(InputError, match="no exemplars in"):
        load_exemplars(tmp_path / "empty")


def test_plain_conversations_are_whole_honest_and_near_the_levels_of_their_tasks():
    tasks, replies, ids = load_tasks(), [], []
    for task, profile in tasks.profiles.items():
        if task == UNKNOWN:
            continue
        rows = read_rows(find_content("prompts").parent / "conversations" / "plain" / f"{task}.jsonl")
        levels = []
        for row in rows:
            assert (row["task"], row["expert"]) == (task, profile.expert)
            assert [turn["role"] for turn in row["turns"]] == ["user", "assistant"] * (len(row["turns"]) // 2)
            for user, reply in zip(row["turns"][::2], row["turns"][1::2], strict=True):
                assert user["emotion"] in PARTS, row["id"]
                assert user["cause"] in user["content"], row["id"]
                assert 0 <= user["need"] <= 1
                assert not find_violations(reply["content"]), row["id"]
                levels.append(reply["empathy"]["level"])
                replies.append(reply["content"])
        ids += [row["id"] for row in rows]
        assert {row["split"] for row in rows} == {"train", "dev"}, "the test split is measured elsewhere"
        assert abs(sum(levels) / len(levels) - profile.desired) < 0.03
    assert len(set(ids)) == len(ids) > 2000
    assert len(set(replies)) == len(replies)
