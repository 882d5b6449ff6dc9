"""Properties that hold for any input, tried with hypothesis; the same examples on every run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benchmarks.scripted import script_engine
from empathy_agent import InputError, Settings, build_graph, measures
from empathy_agent.decoding import Decoding
from empathy_agent.drift import KEPT, correct_target, track_drift
from empathy_agent.models import load_base
from empathy_agent.prompts import load_prompt, write_prompt
from empathy_agent.review import read_review
from empathy_agent.settings import get_settings
from empathy_agent.state import Assessment, Drift, Need
from empathy_agent.tasks import DEFAULT_TASKS, load_tasks
from empathy_agent.template import encode_chat, encode_prompt
from empathy_agent.turns import LONGEST_MESSAGE, Turn, check_text, check_turns, clean_text
from tests.test_threat_model import Recorder

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")

CONTROL = ["<|end|>", "<|system|>", "$name ${x} {y} %s", "\ue0000\ue001", "\ue002", "\x1b[2J", "\ud83d", "\u202e"]
ANY_TEXT = st.lists(st.text(max_size=20) | st.sampled_from(CONTROL), max_size=5).map("".join)
LEVELS = st.integers(0, 100).map(lambda n: n / 100)  # a grid on which six decimals are exact
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=4,
)


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, or the words with which it refuses; any other error fails the test."""
    try:
        return call(), ""
    except InputError as error:
        assert str(error)  # noqa: PT017
        return None, str(error)


# State


def check_levels(levels: list[float]) -> None:
    assert all(isinstance(level, float) and 0 <= level <= 1 for level in levels)


@settings(max_examples=25)
@given(st.lists(ANY_TEXT | st.text(min_size=1), min_size=1, max_size=3), LEVELS | st.none(), st.integers(0, 2))
def test_any_messages_leave_a_plain_state_within_its_ranges(texts: list[str], level: float | None, top_k: int):
    graph = build_graph(engine=script_engine(Recorder())).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    turns = 0
    context = Settings(level=level, top_k=top_k, max_revisions=1)
    for text in texts:
        said = {"messages": [{"role": "user", "content": text}]}
        if attempt(lambda said=said: graph.invoke(said, config, context=context))[1]:
            assert not clean_text(text).strip()
            continue
        turns += 1
        state = graph.get_state(config).values
        plain = {name: value for name, value in state.items() if name != "messages"}
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        serde = JsonPlusSerializer(pickle_fallback=False)
        assert serde.loads_typed(serde.dumps_typed(plain)) == plain
        need, task, assessment, drift = (state[name] for name in ("need", "task", "assessment", "drift"))
        check_levels([need["level"], need["affective"], need["cognitive"], need["motivational"], need["intensity"]])
        check_levels(
            [state["desired"], state["target"], assessment["level"], task["confidence"], *task["scores"].values()]
        )
        assert sum(task["scores"].values()) == pytest.approx(1, abs=1e-3)
        assert all(value is None or 1 <= value <= 5 for value in assessment["dimensions"].values())
        assert all(0 <= value <= 2 for value in assessment["mechanisms"].values())
        assert need["cause"] == "" or need["cause"] in state["messages"][-2].text
        assert len(state["exemplars"]) <= top_k + 1
        assert state["route"] == "prompt"
        check_drift(drift, turns)


# Drift and measures


def assess(level: float) -> Assessment:
    return Assessment(level=level, dimensions={}, mechanisms={}, uncertainty=0.0)


def need_of(parts: tuple[float, float, float]) -> Need:
    affective, cognitive, motivational = parts
    return Need(
        level=0.5,
        affective=affective,
        cognitive=cognitive,
        motivational=motivational,
        emotion="neutral",
        intensity=0.0,
        cause="",
        wishes=[],
        reasons=[],
    )


def follow(turns: list[tuple[float, float]], tolerance: float = 0.1, parts: Any = None) -> Drift:
    now: Drift | None = None
    for level, target in turns:
        need = need_of(parts) if parts else None
        now = track_drift(now, target=target, assessment=assess(level), need=need, tolerance=tolerance)
    assert now is not None
    return now


def check_drift(drift: Any, turns: int) -> None:
    assert drift["turns"] == turns
    assert all(-1 <= drift[name] <= 1 for name in ("gap", "mean_gap", "ewma"))
    assert drift["cusum_over"] >= 0
    assert drift["cusum_under"] >= 0
    assert drift["over"] + drift["under"] <= turns
    assert drift["retention"] is None or drift["retention"] >= 0
    assert len(drift["window"]) <= KEPT
    assert len(drift["first"]) <= KEPT
    assert len(drift["deficits"]) <= KEPT
    check_levels([*drift["window"], *drift["deficit"]])


SESSIONS = st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=50)


@given(SESSIONS, LEVELS, st.none() | st.tuples(LEVELS, LEVELS, LEVELS))
def test_drift_stays_in_its_ranges_and_in_constant_memory(
    turns: list[tuple[float, float]], tolerance: float, parts: Any
):
    now = follow(turns, tolerance, parts)
    check_drift(now, len(turns))
    assert math.isfinite(now["slope"])
    limit = max(2 * tolerance, 0.1)
    assert max(now["cusum_over"], now["cusum_under"]) <= 2 * limit + 1e-6
    assert (now["alarm"] == "over") <= (now["cusum_over"] > limit)
    assert (now["alarm"] == "under") <= (now["cusum_under"] > limit)
    assert len(json.dumps(now, allow_nan=False)) < 1400
    assert json.loads(json.dumps(now)) == now


@given(SESSIONS, LEVELS)
def test_drift_is_symmetric_in_sign(turns: list[tuple[float, float]], tolerance: float):
    now, mirrored = follow(turns, tolerance), follow([(1 - p, 1 - d) for p, d in turns], tolerance)
    for name in ("gap", "mean_gap", "ewma", "slope"):
        assert now[name] == pytest.approx(-mirrored[name], abs=2e-6)  # type: ignore[literal-required]
    assert (now["over"], now["under"]) == (mirrored["under"], mirrored["over"])
    assert now["cusum_over"] == pytest.approx(mirrored["cusum_under"], abs=1e-5)


@given(SESSIONS, st.randoms(use_true_random=False))
def test_means_and_counts_do_not_depend_on_the_order_of_turns(turns: list[tuple[float, float]], rng: Any):
    shuffled = rng.sample(turns, len(turns))
    for name in ("mean_gap", "over", "under", "turns"):
        assert follow(turns)[name] == follow(shuffled)[name]  # type: ignore[literal-required]


@pytest.mark.parametrize("turn", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_ten_thousand_extreme_turns_stay_finite_and_exact(turn: tuple[float, float]):
    now = follow([turn] * 10_000)
    gap = turn[0] - turn[1]
    assert (now["mean_gap"], now["ewma"], now["slope"]) == (gap, gap, 0.0)
    assert now["alarm"] == {1.0: "over", -1.0: "under", 0.0: "none"}[gap]
    assert len(json.dumps(now)) < 1400


@given(LEVELS, SESSIONS)
def test_a_corrected_target_is_a_level_and_moves_against_the_alarm_by_a_bounded_step(target: float, turns: Any):
    now = follow(turns)
    corrected = correct_target(target, now)
    check_levels([corrected])
    assert abs(corrected - target) <= 0.15 + 1e-9
    if now["alarm"] == "none":
        assert corrected == target
    elif now["ewma"]:
        assert (corrected - target) * now["ewma"] <= 0


@given(LEVELS, LEVELS, LEVELS)
def test_gap_and_excess_are_odd_and_bounded(perceived: float, desired: float, tolerance: float):
    gap = measures.measure_gap(perceived, desired)
    assert gap == -measures.measure_gap(desired, perceived)
    excess = measures.measure_excess(gap, tolerance)
    assert excess == -measures.measure_excess(-gap, tolerance)
    assert abs(excess) <= abs(gap)
    assert excess * gap >= 0


@given(st.lists(LEVELS, min_size=1, max_size=40), st.lists(LEVELS, min_size=1, max_size=40))
def test_measures_of_sequences_keep_what_they_promise(one: list[float], other: list[float]):
    reduction = measures.measure_gap_reduction(one, other)
    assert reduction is None or reduction <= 1
    assert measures.measure_gap_reduction(one, one) in (None, 0.0)
    assert measures.measure_gap_reduction([0.0], other) in (None, 1.0)
    for value in (measures.measure_score_factor(one, other), measures.measure_retention(one)):
        assert value is None or value >= 0
    assert measures.measure_score_factor(one, one) in (None, 1.0)
    assert measures.name_course(one) in ("steady", "collapse", "stagnation", "regression")


@given(st.lists(LEVELS, min_size=2, max_size=40))
def test_the_running_slope_is_the_least_squares_one(gaps: list[float]):
    now = follow([(gap, 0.0) for gap in gaps])
    assert now["slope"] == pytest.approx(np.polyfit(range(1, len(gaps) + 1), gaps, 1)[0], abs=1e-5)


@given(st.tuples(LEVELS, LEVELS, LEVELS), st.tuples(LEVELS, LEVELS, LEVELS))
def test_a_deficit_is_what_is_missing(need: Any, delivered: Any):
    deficit = measures.measure_deficit(need, delivered)
    check_levels(deficit)
    assert all(d == 0 or d == pytest.approx(n - g, abs=1e-6) for d, n, g in zip(deficit, need, delivered, strict=True))
    assert 0 <= measures.measure_length(deficit) <= 3**0.5 + 1e-6


# Texts, prompts, templates


@given(ANY_TEXT | st.text())
def test_a_checked_text_is_safe_and_stays_as_it_is(text: str):
    clean, refused = attempt(lambda: check_text(text))
    if refused:
        assert not clean_text(text).strip()
        return
    assert check_text(clean) == clean == clean_text(text).strip()
    assert clean.encode("utf-8")
    assert all(c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) for c in clean)
    assert [c for c in clean if not c.isspace()] == [c for c in clean_text(text) if not c.isspace()]


@given(VALUES)
def test_turns_are_accepted_as_they_are_or_refused_with_a_reason(value: Any):
    for turns in (value, [value], [{"role": "user", "content": value}], [{"role": value, "content": "x"}]):
        checked, refused = attempt(lambda turns=turns: check_turns(turns))
        assert len(refused) < 200
        assert refused or checked is turns


@given(ANY_TEXT, ANY_TEXT)
def test_what_is_filled_into_a_prompt_arrives_verbatim(user: str, reply: str):
    assert write_prompt("exemplar", user=user, reply=reply) == f"User: {user}\nReply: {reply}"


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), ANY_TEXT, max_size=4))
def test_a_template_names_all_that_is_missing_and_all_that_is_not_used(values: dict[str, str]):
    wanted = set(load_prompt("exemplar").get_identifiers())
    if set(values) == wanted:
        return
    with pytest.raises(InputError) as raised:
        write_prompt("exemplar", **values)
    assert all(repr(name) in str(raised.value) for name in wanted ^ set(values))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_base(str(tiny_model))[1]


ROLES = st.lists(ANY_TEXT | st.text(max_size=200), min_size=1, max_size=7)


@given(texts=ROLES, has_system=st.booleans())
def test_every_text_comes_back_from_its_tokens(tokenizer: Any, texts: list[str], has_system: bool):
    roles = [*(["system"] if has_system else []), *["user", "assistant"] * 4]
    turns: list[Any] = [Turn(role=role, content=text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[typeddict-item]
    pieces = encode_chat(tokenizer, turns, reply_follows=False)
    expected = [re.sub("\ue000\\d+\ue001", "", clean_text(text).strip()) for text in texts]
    assert [tokenizer.decode(ids) for ids, index in pieces if index is not None] == expected
    added = set(tokenizer.get_added_vocab().values())
    assert not [token for ids, index in pieces if index is not None for token in ids if token in added]


@given(texts=ROLES, room=st.integers(120, 400))
def test_a_prompt_fits_ends_with_the_reply_s_role_and_keeps_the_last_turn(tokenizer: Any, texts: list[str], room: int):
    texts = texts if len(texts) % 2 else texts[:-1] or ["hello"]
    turns: list[Any] = [
        Turn(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    ]
    ids = encode_prompt(tokenizer, turns, room)
    assert len(ids) <= room
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[-2:] == ["<|end|>", "<|assistant|>"]
    assert tokens[:2] == ["<|begin|>", "<|user|>"], "the first turn that is kept is a user's"
    whole = encode_prompt(tokenizer, turns, 10**6)
    assert ids == whole or len(whole) > room, "nothing is left out without need"


# Tables and settings

KEYS = st.sampled_from(["factual", "compassionate", "therapy", "unknown", "desired", "../x", "a b", ""]) | ANY_TEXT


def write_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write_key(k)} = {write_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf" if math.isinf(value) else repr(value)
    return (
        json.dumps(clean_text(value), ensure_ascii=False)
        if isinstance(value, str)
        else str(0 if value is None else value)
    )


def write_key(key: str) -> str:
    return json.dumps(clean_text(key), ensure_ascii=False)


PLACES = st.sampled_from(
    [
        "patterns",
        "patterns.new",
        "patterns.factual",
        "patterns.factual.level",
        "patterns.considerate.level",
        "tasks",
        "tasks.new",
        "tasks.therapy",
        "tasks.therapy.desired",
        "tasks.therapy.expert",
        "tasks.therapy.source",
        "tasks.unknown",
        "tasks.unknown.expert",
        "tasks.unknown.usual_need",
    ]
)


@settings(max_examples=200)
@given(place=PLACES, value=VALUES | LEVELS | KEYS, key=KEYS)
def test_any_task_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: str, value: Any, key: str):
    import tomllib

    table = tomllib.loads(DEFAULT_TASKS.read_text(encoding="utf-8"))
    *parents, last = place.split(".")
    row = table
    for name in parents:
        row = row[name]
    row[key if last == "new" else last] = value
    path = tmp_path_factory.getbasetemp() / "tasks.toml"
    path.write_text("\n".join(f"{name} = {write_toml(part)}" for name, part in table.items()), encoding="utf-8")
    tasks, refused = attempt(lambda: load_tasks(path))
    if refused:
        return
    check_levels([float(level) for level in tasks.patterns.values()])
    for profile in tasks.profiles.values():
        check_levels([profile.desired, profile.usual_need])
        for level in (0.0, 0.5, 1.0):
            assert {tasks.choose_expert(profile.name, level, name) for name in (None, *tasks.patterns)} <= set(
                tasks.patterns
            )


@settings(max_examples=200)
@given(
    name=st.sampled_from([field.name for field in fields(Settings)]), value=VALUES | st.sampled_from([0, 1, 0.5, ""])
)
def test_any_setting_is_kept_within_its_bounds_or_refused(name: str, value: Any):
    schema = build_schema()[name]
    kept, refused = attempt(lambda: getattr(get_settings({name: value}), name))
    if refused:
        assert name in refused
        assert len(refused) < 300
        return
    assert kept == value
    assert json.dumps(asdict(Settings(**{name: value})), allow_nan=False)
    if "minimum" in schema:
        assert schema["minimum"] <= kept <= schema["maximum"]
    if "enum" in schema:
        assert kept in schema["enum"]


def build_schema() -> dict[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Settings).json_schema()["properties"]  # type: ignore[no-any-return]


@given(st.sampled_from([field.name for field in fields(Decoding) if field.name != "stop"]), VALUES)
def test_any_decoding_is_safe_to_sample_with_or_refused(name: str, value: Any):
    decoding, refused = attempt(lambda: Decoding(**{name: value}))
    if refused:
        return
    assert decoding.temperature == 0 or 0.01 <= decoding.temperature <= 10
    assert 0 < decoding.top_p <= 1
    assert decoding.max_new_tokens >= 1


@given(VALUES | st.fixed_dictionaries({}, optional={"reply": VALUES, "level": VALUES, "need": VALUES}))
def test_any_answer_to_a_review_is_understood_or_refused(answer: Any):
    read, refused = attempt(lambda: read_review(answer))
    if refused:
        assert len(refused) < 200
        return
    assert len(read) <= 1
    if "reply" in read:
        assert 0 < len(read["reply"]) <= LONGEST_MESSAGE
    check_levels([read["level"]] if "level" in read else list(read.get("need", {}).values()))
