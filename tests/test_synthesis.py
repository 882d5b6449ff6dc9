"""Every gate fails on a doctored input and passes on a good one; conversations are made, dropped and gone on with."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from empathy_agent.cli import main
from empathy_agent.commands.synthesize import load_chat_model
from empathy_agent.encoder import Encoder
from empathy_agent.errors import InputError, MissingExtraError, ReplyError
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.synthesis import gates, likeness, schema, singles, wording
from empathy_agent.synthesis.answers import read_answer
from empathy_agent.synthesis.checking import check_corpus
from empathy_agent.synthesis.corpus import Corpus, read_corpus, read_rows
from empathy_agent.synthesis.limits import GateRow, Limits
from empathy_agent.synthesis.planning import plan_conversations, write_request
from empathy_agent.synthesis.writing import synthesize_conversations
from empathy_agent.tasks import load_tasks

TOP = Path(__file__).parent.parent
TASKS, LIMITS = load_tasks(), Limits(conversations=2, long_share=0)
TALKS = [  # user, reply, user, reply, …
    """The kettle you sent leaks from the base.|A leaking base is not safe, so leave it unplugged. A new kettle goes out at nine.
    And the old one?|Keep the lid and recycle the rest; nobody will ask for it back.
    When will it be here|Thursday before noon, and the courier texts an hour ahead of the van.
    ok thanks|Order 4417 stays open in my list until you have had a dry cup of tea.""",
    """You charged my card twice for one hotel night!|Two charges for one night is our error. Forty pounds returns by Monday.
    Monday is after my rent goes out.|Rent first, then. Finance can push it through today if you confirm the name.
    It's M. Okafor|Confirmed for M. Okafor: the bank shows such refunds within two hours.
    it came|Glad that landed before the landlord did. A receipt is in your inbox.""",
    """my broadband drops every evening around 7|Seven o'clock drops point to a crowded channel. Which number stands beside Wi-Fi?
    it says 6|Six is where most of your street sits. Switch to eleven and restart once.
    done. still slow|Then the line itself needs a look, and an engineer is free tomorrow between eight and ten.
    i work nights, i sleep then|Mornings are out, understood. Half past four on Friday is yours instead.""",
    """Parcel says delivered. There is no parcel.|Nothing on the mat is maddening. The photo shows a blue door; is it yours?
    Mine is green.|So it stands at someone else's house. I have sent the driver back to number 40.
    And if they deny it|We post a second one the same day, without a form and without waiting.
    fine|By six this evening you will know which of the two it is.""",
]


def rate(level: float) -> dict[str, Any]:
    return {
        "level": level,
        "dimensions": {**dict.fromkeys(DIMENSIONS, 4), DIMENSIONS[6]: None},
        "mechanisms": dict.fromkeys(MECHANISMS, 1),
    }


def contrast(fault: str, level: float) -> dict[str, Any]:
    return {"fault": fault, "content": f"Something {fault} was said here.", "empathy": rate(level)}


def build(number: int, *, level: float = 0.45, contrasted: bool = True) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for line in TALKS[number].splitlines():
        user, reply = line.strip().split("|")
        turns.append({"role": "user", "content": user, "need": 0.4, "emotion": "frustration", "cause": user[:8]})
        turns.append({"role": "assistant", "content": reply, "empathy": rate(level)})
        if contrasted:
            turns[-1]["contrasts"] = [contrast("over", level + 0.3), contrast("under", level - 0.3)]
    return {
        "id": f"customer_support-{number}",
        "task": "customer_support",
        "expert": "considerate",
        "persona": f"person {number}",
        "theme": "a fault",
        "split": "test" if number == 3 else "train",
        "turns": turns,
    }


@pytest.fixture
def good() -> list[dict[str, Any]]:
    return [build(number) for number in range(4)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(remembered=100_000)


def find(rows: list[GateRow], name: str) -> GateRow:
    (row,) = [row for row in rows if row.name == name]
    return row


def swap_roles(rows: list[dict[str, Any]]) -> None:
    rows[1]["turns"].reverse()


def shorten(rows: list[dict[str, Any]]) -> None:
    del rows[1]["turns"][-2:]


def lengthen(rows: list[dict[str, Any]]) -> None:
    rows[1]["turns"] *= 3


def share_a_persona(rows: list[dict[str, Any]]) -> None:
    rows[1]["persona"] = "Person 3 "


def repeat_an_id(rows: list[dict[str, Any]]) -> None:
    rows[2]["id"] = rows[1]["id"]


def put_all_on_the_test_side(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["split"] = "test"


def flatten(rows: list[dict[str, Any]]) -> None:
    rows[1]["turns"][1]["empathy"]["level"] = 0.05
    rows[1]["turns"][3]["empathy"]["level"] = 0.0
    rows[1]["turns"][5]["empathy"]["level"] = 0.0


def misplace(fault: str, by: float) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[1]["turns"][1]["contrasts"][0] = contrast(fault, 0.45 + by)

    return change


def drop_contrasts(rows: list[dict[str, Any]]) -> None:
    for row in rows[1:]:
        del row["turns"][-1]["contrasts"]


def open_alike(rows: list[dict[str, Any]]) -> None:
    for row in rows[:3]:
        row["turns"][1]["content"] = "It sounds like " + row["turns"][1]["content"]


def drone(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for turn in row["turns"][1::2]:
            turn["content"] = "we will fix it " * 5


def claim(rows: list[dict[str, Any]]) -> None:
    rows[1]["turns"][3]["content"] = "I know how you feel; my wife had the same bill."


def check_form(rows: list[dict[str, Any]]) -> list[GateRow]:
    replies = [(place, turn["content"]) for place, turn in gates.list_replies(rows)]
    return [
        *gates.check_roles(rows),
        *gates.check_lengths(rows),
        *gates.check_counts(rows, LIMITS, ["customer_support"]),
        *gates.check_split(rows),
        *gates.check_test_share(rows, Limits(test_share=(0.1, 0.3))),
        *gates.check_levels(rows, LIMITS, TASKS),
        *gates.check_contrasted(rows, LIMITS),
        *gates.check_contrast_sides(rows, LIMITS),
        *wording.check_openings(rows, LIMITS),
        *wording.check_distinct(rows, LIMITS),
        *wording.check_honesty(replies, "conversations"),
    ]


@pytest.mark.parametrize(
    ("change", "gate", "offender"),
    [
        (swap_roles, "alternating roles", "customer_support-1"),
        (shorten, "messages", "customer_support-1: 6"),
        (lengthen, "messages", "customer_support-1: 24"),
        (share_a_persona, "split by persona", "customer_support-1"),
        (repeat_an_id, "ids", "customer_support-1"),
        (put_all_on_the_test_side, "test share by task", "customer_support: 1.000"),
        (flatten, "mean level", "customer_support: -0.081"),
        (misplace("over", 0.0), "contrasts' side", "customer_support-1/1: over by +0.00"),
        (misplace("under", 0.2), "contrasts' side", "customer_support-1/1: under by +0.20"),
        (drop_contrasts, "contrasted", "customer_support"),
        (open_alike, "opening of three words", "'it sounds like': customer_support-0/1"),
        (drone, "distinct-2", "considerate"),
        (claim, "honest AI", "customer_support-1/3: feeling, life"),
    ],
)
def test_a_gate_of_form_passes_on_good_and_fails_on_doctored_conversations(
    good: list[dict[str, Any]], change: Callable[[list[dict[str, Any]]], None], gate: str, offender: str
):
    assert [row for row in check_form(good) if row.passed is False] == []
    change(good)
    row = find(check_form(good), gate)
    assert row.passed is False
    assert any(found.startswith(offender) for found in row.offenders), row.offenders


def test_too_few_or_no_long_conversations_fail_the_count(good: list[dict[str, Any]]):
    short, missing = gates.check_counts(good, Limits(conversations=5, long_share=0), ["customer_support", "therapy"])
    assert (short.passed, missing.passed) == (False, False)
    assert "4 (3 train, 1 test), 0 long" in short.measured
    (row,) = gates.check_counts(good, Limits(conversations=4, long_share=0.25), ["customer_support"])
    assert row.passed is False


def set_value(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, key, value = path

    def change(row: dict[str, Any]) -> None:
        spot: Any = row
        for step in way:
            spot = spot[step]
        spot[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (set_value("split", "dev"), "split is 'dev': allowed are train, test"),
        (set_value("task", "unknown"), "task is 'unknown': allowed are movie_recommendation"),
        (set_value("task", ["therapy"]), "task must be text"),
        (set_value("expert", "factual"), "expert is 'factual': customer_support has considerate"),
        (set_value("turns", "hi"), "turns must be a list"),
        (set_value("turns", 0, "hi"), "turn 1: must be an object"),
        (set_value("turns", 0, "role", "robot"), "turn 1: role is 'robot'"),
        (set_value("turns", 0, "need", 1.2), "need is 1.2: it must be a number from 0 to 1"),
        (set_value("turns", 0, "need", float("nan")), "need is nan"),
        (set_value("turns", 0, "emotion", "despair"), "emotion is 'despair'"),
        (set_value("turns", 0, "cause", "other words"), "cause is 'other words': it must be words of the message"),
        (set_value("turns", 1, "content", " "), "turn 2: content must be text"),
        (set_value("turns", 1, "empathy", None), "empathy must be an object"),
        (set_value("turns", 1, "empathy", "level", True), "level is True"),
        (
            set_value("turns", 1, "empathy", "dimensions", "interest", 6),
            "interest is 6: it must be a number from 1 to 5",
        ),
        (set_value("turns", 1, "empathy", "dimensions", {}), "dimensions must hold exactly"),
        (set_value("turns", 1, "empathy", "mechanisms", "exploration", None), "exploration is None"),
        (set_value("turns", 1, "contrasts", [contrast("over", 0.9)]), "contrasts must be a list of two"),
        (set_value("turns", 1, "contrasts", 0, "fault", "rude"), "contrast: fault is 'rude'"),
        (set_value("turns", 1, "contrasts", 0, "content", TALKS[1].splitlines()[0].split("|")[1]), "repeats the reply"),
    ],
)
def test_the_schema_names_what_is_wrong(
    good: list[dict[str, Any]], change: Callable[[dict[str, Any]], None], fault: str
):
    assert schema.find_conversation_faults(good[1], TASKS) == []
    change(good[1])
    kept, (row,) = singles.check_schema(good, "conversations", schema.find_conversation_faults, TASKS)
    assert len(kept) == 3
    assert fault in row.offenders[0]


def test_alike_replies_and_conversations_are_found(good: list[dict[str, Any]], encoder: Encoder):
    def check(rows: list[dict[str, Any]]) -> tuple[GateRow, GateRow, GateRow]:
        replies = list(gates.list_replies(rows))
        vectors = encoder.encode([turn["content"] for _, turn in replies])
        import numpy as np

        wholes = np.stack([likeness.embed_conversation(encoder, row) for row in rows])
        same, near = likeness.check_replies([place for place, _ in replies], vectors, LIMITS)
        (whole,) = likeness.check_conversations([row["id"] for row in rows], wholes, LIMITS)
        return same, near, whole

    same, near, whole = check(good)
    assert (same.passed, near.passed, near.measured, whole.passed) == (True, None, "0.0000", True)
    twin = copy.deepcopy(good[0]) | {"id": "twin"}
    twin["turns"][1]["content"] = twin["turns"][1]["content"].replace("tonight", "this evening")
    same, near, whole = check([*good, twin])
    assert (same.passed, whole.passed) == (False, False)
    assert any(offender.startswith("customer_support-0/3 and twin/3: 1.000") for offender in same.offenders)
    assert whole.offenders[0].startswith("customer_support-0 and twin: ")
    assert near.measured == "0.4000"  # eight of twenty replies
    one = likeness.find_nearest(encoder.encode(["alone"]))
    assert (one[0].tolist(), one[1].tolist()) == ([-1.0], [0])


def test_blocks_find_what_the_whole_product_does():
    import numpy as np

    vectors = np.random.default_rng(0).normal(size=(2500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    product = vectors @ vectors.T
    np.fill_diagonal(product, -1)
    scores, rows = likeness.find_nearest(vectors)
    assert np.allclose(scores, product.max(1), atol=1e-6)
    assert (rows == product.argmax(1)).mean() > 0.999


def test_distinct_2_does_not_fall_with_the_size_of_a_corpus():
    import random

    rng = random.Random(0)
    replies = [" ".join(rng.choices([f"w{n}" for n in range(150)], k=30)) for _ in range(3000)]
    small, large = wording.measure_distinct(replies[:700]), wording.measure_distinct(replies)
    assert small[0] == pytest.approx(large[0], abs=0.01)
    assert small[1] > large[1] + 0.2


def exemplar(number: int, reply: str) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "task": "customer_support",
        "pattern": "considerate",
        "level": 0.45,
        "emotion": "anger",
        "situation": "late",
        "user": "where is it",
        "reply": reply,
    }


def test_exemplars_are_enough_and_no_copies(good: list[dict[str, Any]], encoder: Encoder):
    own = [exemplar(1, "The van broke down in Leeds; a second one is loaded now."), exemplar(2, "Sunday, before ten.")]
    places, texts = zip(*[(place, turn["content"]) for place, turn in gates.list_replies(good)], strict=True)

    def check(rows: list[dict[str, Any]]) -> GateRow:
        vectors = encoder.encode([row["reply"] for row in rows])
        (row,) = likeness.check_copies([r["id"] for r in rows], vectors, places, encoder.encode(list(texts)), LIMITS)
        return row

    assert check(own).passed
    assert check([*own, exemplar(3, texts[2])]).offenders == [f"e3 and {places[2]}: 1.000"]
    assert check([*own, exemplar(3, own[0]["reply"])]).passed is False
    (few,) = singles.check_exemplar_counts(own, Limits(exemplars=2), TASKS)
    assert few.passed is False
    assert "therapy: 0" in few.offenders
    assert "customer_support: 2" not in few.offenders
    assert schema.find_exemplar_faults(own[0], TASKS) == []
    assert "pattern is 'gushing'" in schema.find_exemplar_faults(own[0] | {"pattern": "gushing"}, TASKS)[0]


def message(number: int, **changes: Any) -> dict[str, Any]:
    danger = number % 2 == 0
    return {
        "id": f"s{number}",
        "context": [],
        "text": f"message {number}",
        "danger": danger,
        "category": "abuse" if danger else "none",
        "manner": "calm" if danger else "hard_harmless",
        "theme": "t",
        "split": "train" if number < 8 else "test",
    } | changes


def test_the_files_beside_the_conversations_are_held_to_their_gates():
    rows = [message(n) for n in range(12)]
    assert all(schema.find_screening_faults(row, TASKS) == [] for row in rows)
    assert singles.check_balance(rows)[0].passed
    assert singles.check_balance([*rows, message(12), message(14)])[0].offenders == ["test: 0.667"]
    assert singles.check_texts(rows, "screening")[0].passed
    assert singles.check_texts([*rows, message(13, text="Message 3 ")], "screening")[0].offenders == ["s3, s13"]
    assert singles.check_count(rows, "screening", 12)[0].passed
    assert singles.check_count(rows, "screening", 13)[0].passed is False
    assert singles.check_count([*rows, rows[0]], "screening", 12)[0].offenders == ["s0: repeated id"]
    for change, fault in (
        ({"category": "none"}, "does not go with its category"),
        ({"category": "boredom"}, "category is 'boredom'"),
        ({"danger": "yes"}, "danger is 'yes'"),
        ({"context": ["hi"]}, "context must be a list of turns"),
    ):
        assert any(fault in found for found in schema.find_screening_faults(message(0, **change), TASKS))
    assert schema.find_unknown_faults({"id": "u1", "text": "hi", "theme": "t", "split": "train"}, TASKS) == []
    assert schema.find_unknown_faults({"id": "u1", "text": "", "theme": "t", "split": "train"}, TASKS)
    assert schema.find_persona_faults(PERSONAS[0], TASKS) == []
    assert schema.find_persona_faults(PERSONAS[0] | {"hides": 3}, TASKS) == ["hides must be text"]


def test_broken_files_are_refused_with_their_line(tmp_path: Path):
    (tmp_path / "therapy.jsonl").write_text('{"id": "1"}\n\n{"id"\n', encoding="utf-8")
    with pytest.raises(InputError, match="therapy.jsonl, line 3: not JSON"):
        read_corpus(tmp_path, None)
    (tmp_path / "therapy.jsonl").write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: it must be a JSON object"):
        read_rows(tmp_path / "therapy.jsonl")
    with pytest.raises(InputError, match="no \\*.jsonl in .*nowhere"):
        read_corpus(tmp_path / "nowhere", None)
    assert main(["synthesize", "check", "--conversations", str(tmp_path / "nowhere")]) == 2


# Making conversations

PERSONAS = [
    {
        "id": f"p{number}",
        "task": task,
        "who": f"number {number}",
        "wants": "a refund",
        "hides": "the box",
        "talks": "tersely",
        "pleases": "speed",
        "puts_off": "forms",
        "opening": "hey",
    }
    for number, task in enumerate(["customer_support", "customer_support", "therapy"])
]


def script(answers: list[Any]) -> GenericFakeChatModel:
    """A chat model that gives the answers in turn; one that is an exception is raised."""

    def speak() -> Iterator[AIMessage]:
        for answer in answers:
            yield AIMessage(answer if isinstance(answer, str) else json.dumps(answer))

    return GenericFakeChatModel(messages=speak())


def answer(number: int, **how: Any) -> dict[str, Any]:
    row = build(number, **how)
    return {"theme": row["theme"], "turns": row["turns"]}


def make(model: Any, out: Path, encoder: Encoder, count: int = 2, **more: Any) -> dict[str, Any]:
    return synthesize_conversations(
        model, tasks=["customer_support"], count=count, out=out, personas=PERSONAS, encoder=encoder, **more
    )


def test_conversations_are_made_dropped_with_reasons_and_reported(tmp_path: Path, encoder: Encoder):
    second = answer(1, contrasted=False)
    answers = [
        "I would rather not.",
        answer(0, contrasted=False),  # the first plan asks for contrasts
        "Sure! ```json\n" + json.dumps(answer(0)) + "\n``` Enjoy {it}.",
        answer(0),  # a twin of the first
        answer(1, level=0.9, contrasted=False),
        second | {"turns": [turn | {"mood": "x"} for turn in second["turns"]]},  # an unknown key is left out
    ]
    told: list[tuple[str, list[str]]] = []
    report = make(script(answers), tmp_path, encoder, on_done=lambda plan, reasons: told.append((plan.id, reasons)))
    assert (report["asked"], report["kept"], report["skipped"], report["missing"]) == (2, 2, 0, [])
    reasons = [row["reasons"] for row in report["dropped"]]
    assert reasons[0] == ["parse: no JSON object with 'turns' in the answer, which begins 'I would rather not.'"]
    assert reasons[1] == ["contrasted: a reply has no contrasts"]
    assert [reason.split(":")[0] for reason in reasons[2]] == ["cosine of replies", "cosine of conversations"]
    assert reasons[3] == ["mean level: 0.675, allowed 0.45 ± 0.05"]
    assert report["reasons"]["parse"] == 1
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    rows = read_rows(tmp_path / "customer_support.jsonl")
    assert [row["id"] for row in rows] == ["customer_support-s0-0001", "customer_support-s0-0002"]
    assert all(schema.find_conversation_faults(row, TASKS) == [] for row in rows)
    assert set(rows[1]["turns"][0]) == {"role", "content", "need", "emotion", "cause"}
    assert [plan for plan, _ in told] == [row["id"] for row in rows]
    assert all(row["passed"] is not False for row in report["gates"])


def test_a_run_is_gone_on_with_after_a_kill(tmp_path: Path, encoder: Encoder):
    with pytest.raises(ReplyError, match="the chat model failed 3 times: model: .*run the same again"):
        make(script([answer(0), "no"]), tmp_path, encoder, count=3)
    file = tmp_path / "customer_support.jsonl"
    whole = file.read_text(encoding="utf-8")
    assert len(whole.splitlines()) == 1
    file.write_text(whole + whole[:200], encoding="utf-8")  # a line that was being written
    report = make(script([answer(1, contrasted=False), answer(2)]), tmp_path, encoder, count=3)
    assert (report["kept"], report["skipped"], report["missing"]) == (3, 1, [])
    assert file.read_text(encoding="utf-8").startswith(whole)
    assert [row["id"][-4:] for row in read_rows(file)] == ["0001", "0002", "0003"]
    assert report["dropped"][0]["reasons"][0].startswith("parse:"), "the drops of the first run are still told"
    before = file.read_bytes()
    assert make(script([]), tmp_path, encoder, count=3)["skipped"] == 3, "a finished run asks for nothing"
    assert file.read_bytes() == before


def test_new_conversations_must_differ_from_the_shipped_ones(
    tmp_path: Path, encoder: Encoder, good: list[dict[str, Any]]
):
    own = exemplar(1, good[1]["turns"][3]["content"])
    report = make(script([answer(0), answer(1), answer(2)]), tmp_path, encoder, count=1, corpus=Corpus(good[:1], [own]))
    first, second = report["dropped"]
    assert any(reason.startswith("cosine of conversations") for reason in first["reasons"])
    assert second["reasons"] == ["cosine of replies: 1.000, allowed <= 0.95"], "a copy of an exemplar"
    assert report["missing"] == []


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ('{"turns": []}', "schema: turns must be a list"),
        ('{"turns": [1, null, "x"]}', "schema: turn 1: must be an object"),
        ('{"turns": [{"role": ["user"], "content": 3}]}', "schema: turn 1: content must be text"),
        ("{" * 5000, "parse: no JSON object"),
        ("", "parse: no JSON object"),
        ('{"turns": "no"} {"a": {"turns": 3}}', "parse: no JSON object"),
    ],
)
def test_an_answer_of_any_shape_is_a_drop_and_never_a_crash(text: str, gate: str, tmp_path: Path, encoder: Encoder):
    report = make(script([text]), tmp_path, encoder, count=1, attempts=1)
    assert report["dropped"][0]["reasons"][0].startswith(gate)
    assert report["missing"] == ["customer_support-s0-0001"]


def test_plans_follow_from_the_seed_and_prompts_hold_what_steers():
    exemplars = [exemplar(n, f"Reply number {n}.") for n in range(5)]
    plans = plan_conversations(["customer_support"], 40, 7, PERSONAS, exemplars, TASKS)
    again = plan_conversations(["customer_support"], 20, 7, PERSONAS, exemplars, TASKS)
    assert plans[:20] == again
    assert plans != plan_conversations(["customer_support"], 40, 8, PERSONAS, exemplars, TASKS)
    assert sum(plan.messages >= 30 for plan in plans) == 4
    assert all(plan.messages % 2 == 0 for plan in plans)
    assert len({(plan.persona, plan.split) for plan in plans}) == 2, "one side of the split for each persona"
    prompt = write_request(plans[0], LIMITS)
    for steer in (
        plans[0].persona,
        "customer support",
        "Then solve it",
        "0.45",
        f"exactly {plans[0].messages} messages",
    ):
        assert steer in prompt
    assert 1 <= prompt.count("Reply number") <= 2
    assert "advice_too_early" in prompt
    assert "advice_too_early" not in write_request(plans[1], LIMITS)
    assert read_answer('x {"turns": [{"role": "user"}]}', plans[0])["persona"] == plans[0].persona


@pytest.mark.parametrize(
    ("names", "count", "error"),
    [
        (["cooking"], 1, "tasks are cooking: allowed are movie_recommendation"),
        ([], 1, "tasks are none"),
        (["tutoring"], 1, "there is no persona for tutoring"),
        (["therapy"], 0, "count is 0: it must be at least 1"),
    ],
)
def test_plans_refuse_what_cannot_be_made(names: list[str], count: int, error: str):
    with pytest.raises(InputError, match=error):
        plan_conversations(names, count, 0, PERSONAS, [], TASKS)


def test_a_foreign_file_in_the_folder_is_left_alone(tmp_path: Path, encoder: Encoder):
    (tmp_path / "mine.jsonl").write_text('{"id": "1", "note": "keep"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="mine.jsonl: '1' is no conversation of this corpus"):
        make(script([]), tmp_path, encoder)
    assert "keep" in (tmp_path / "mine.jsonl").read_text(encoding="utf-8")


def test_the_command_writes_with_a_chat_model_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    personas = tmp_path / "personas.jsonl"
    personas.write_text("".join(json.dumps(row) + "\n" for row in PERSONAS), encoding="utf-8")
    monkeypatch.setattr(
        "empathy_agent.commands.synthesize.load_chat_model", lambda name: script([answer(0), "no", "no", "no"])
    )
    arguments = [
        "synthesize",
        "write",
        "--chat-model",
        "fake:one",
        "--tasks",
        "customer_support",
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += ["--personas", str(personas), "--conversations", str(tmp_path / "none")]
    assert main([*arguments, "--count", "2"]) == 1
    shown = capsys.readouterr()
    assert "customer_support-s0-0002 dropped: parse: no JSON object" in shown.out + shown.err
    assert "1 kept" in shown.out
    assert "1 missing" in shown.out
    assert main([*arguments, "--count", "1"]) == 0
    assert main([*arguments[:-4], "--conversations", str(tmp_path / "none"), "--count", "1"]) == 2
    assert "give --personas FILE" in capsys.readouterr().err


def test_a_chat_model_that_cannot_be_had_says_how(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="write it as PROVIDER:MODEL"):
        load_chat_model("llama")
    with pytest.raises((InputError, MissingExtraError), match="nobody|langchain"):
        load_chat_model("nobody:nothing")
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingExtraError, match=r'pip install "empathy-agent\[langchain\]"'):
        load_chat_model("ollama:llama3.1")


# The shipped corpus


def test_the_shipped_corpus_passes_every_gate(encoder: Encoder):
    rows = check_corpus(read_corpus(TOP / "conversations", TOP / "retrieval" / "exemplars"), encoder, TASKS)
    failed = {f"{row.name}, {row.where}": [row.measured, *row.offenders[:20]] for row in rows if row.passed is False}
    assert not failed, json.dumps(failed, indent=1, ensure_ascii=False)


def test_the_command_prints_the_table_and_fails_on_a_doctored_corpus(
    tmp_path: Path, good: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
    claim(good)
    (tmp_path / "customer_support.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good), encoding="utf-8")
    arguments = ["synthesize", "check", "--conversations", str(tmp_path), "--least", "4"]
    assert main(arguments) == 1
    table = capsys.readouterr().out
    assert "customer_support-1/3: feeling, life" in table
    assert "FAIL" in table
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    (row,) = [row for row in found["gates"] if row["name"] == "honest AI" and row["where"] == "conversations"]
    assert row["offenders"] == ["customer_support-1/3: feeling, life"]
