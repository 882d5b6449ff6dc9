from __future__ import annotations

import json
from pathlib import Path

import pytest

from empathy_agent.errors import InputError
from empathy_agent.evaluation.scenarios import read_scenarios
from empathy_agent.tasks import load_tasks

TASKS = load_tasks()
TOP = Path(__file__).parent.parent


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts_messages_and_the_shipped_conversations_are_all_read(tmp_path: Path):
    path = write_lines(
        tmp_path / "s.jsonl",
        {"id": "a", "task": "therapy", "turns": ["  Hello. ", "And now?"]},
        {
            "id": "b",
            "turns": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": "One.", "desired": 0.9, "need": 0.4},
                {"role": "assistant", "content": "Yes.", "rating": {"level": 0.5}},
                {"role": "user", "content": "Two."},
            ],
        },
    )
    first, second = read_scenarios([path], TASKS)
    assert first.lines == ["Hello.", "And now?"]
    assert (first.task, first.turns) == ("therapy", [])
    assert (second.lines, second.desired, second.needs) == (["One.", "Two."], [0.9, None], [0.4, None])
    assert [turn["role"] for turn in second.turns] == ["user", "assistant", "user"]
    shipped = read_scenarios([TOP / "conversations" / "tutoring.jsonl"], TASKS, split="test")
    assert len(shipped) == 23
    assert {scenario.task for scenario in shipped} == {"tutoring"}
    assert shipped[0].needs[0] is not None


def test_a_limit_is_spread_over_all_files(tmp_path: Path):
    files = [
        write_lines(tmp_path / f"{f}.jsonl", *({"id": f"{f}{n}", "turns": ["hi"]} for n in range(10))) for f in "ab"
    ]
    chosen = read_scenarios(files, TASKS, limit=4)
    assert [scenario.id for scenario in chosen] == ["a0", "a5", "b0", "b5"]
    assert len(read_scenarios(files, TASKS, limit=99)) == 20


def test_a_fingerprint_changes_with_what_is_said_and_not_with_the_name(tmp_path: Path):
    rows = [{"id": n, "task": t, "turns": ["hi"]} for n, t in (("a", "therapy"), ("b", "therapy"), ("c", "tutoring"))]
    a, b, c = read_scenarios([write_lines(tmp_path / "s.jsonl", *rows)], TASKS)
    assert a.fingerprint == b.fingerprint != c.fingerprint


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"turns": ["hi"]}, "line 1: 'id' must be a text"),
        ({"id": "a"}, "'turns' must be a list with at least one user turn; a persona has 'who'"),
        ({"id": "a", "turns": []}, "'turns' must be a list"),
        (
            {"id": "a", "task": "therapies", "turns": ["hi"]},
            "task 'therapies' is not in the task table: known are movie",
        ),
        ({"id": "a", "turns": [3]}, "turn 1 must be a text, or an object with a 'role'"),
        ({"id": "a", "turns": [{"role": "user"}]}, "turn 1 has no text 'content'"),
        ({"id": "a", "turns": [{"role": "assistant", "content": "hi"}]}, "there is no user turn"),
        ({"id": "a", "turns": ["   "]}, "the message is empty"),
        (
            {"id": "a", "turns": [{"role": "user", "content": "hi", "desired": 2}]},
            "desired is 2: it must lie between 0 and 1",
        ),
        (
            {"id": "a", "turns": ["hi", {"role": "assistant", "content": "x", "rating": 3}]},
            "'rating' must be an object",
        ),
        (
            {
                "id": "a",
                "turns": ["hi", {"role": "assistant", "content": "x", "rating": {"dimensions": {"interest": 9}}}],
            },
            "rating of interest is 9: it must lie between 1 and 5",
        ),
        (
            {
                "id": "a",
                "turns": ["hi", {"role": "assistant", "content": "x", "rating": {"dimensions": {"warmth": 3}}}],
            },
            "known dimensions are affective_understanding",
        ),
        (["hi"], "a line must be an object"),
    ],
)
def test_a_bad_line_is_named_with_what_is_allowed(tmp_path: Path, row: object, error: str):
    with pytest.raises(InputError, match=error):
        read_scenarios([write_lines(tmp_path / "s.jsonl", row)], TASKS)


def test_files_that_cannot_be_used_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="no file"):
        read_scenarios([tmp_path / "none.jsonl"], TASKS)
    (tmp_path / "s.jsonl").write_bytes(b'\xff{"id": 1}\n')
    with pytest.raises(InputError, match="line 1: not JSON in UTF-8"):
        read_scenarios([tmp_path / "s.jsonl"], TASKS)
    twice = write_lines(tmp_path / "t.jsonl", *2 * [{"id": "a", "turns": ["hi"]}])
    with pytest.raises(InputError, match="line 2: id 'a' is repeated"):
        read_scenarios([twice], TASKS)
    with pytest.raises(InputError, match="no scenarios with split 'test'"):
        read_scenarios([twice], TASKS, split="test")
    mixed = write_lines(tmp_path / "m.jsonl", {"id": "a", "turns": ["hi"]}, {"id": "p", "who": "34", "wants": "a film"})
    with pytest.raises(InputError, match="cannot be mixed"):
        read_scenarios([mixed], TASKS)
