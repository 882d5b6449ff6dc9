"""`evaluate readings`: its formulas where the answer is known, its choice of cases, and the command on a small corpus."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empathy_agent.cli import main
from empathy_agent.evaluation import reading_section
from empathy_agent.evaluation.reading_cases import find_first_messages, is_greeting, list_trained, read_written
from empathy_agent.evaluation.reading_scores import (
    bootstrap,
    find_threshold,
    list_bins,
    measure_auroc,
    measure_calibration_error,
    measure_macro_f1,
    measure_recall_at,
    measure_spearman,
)
from empathy_agent.evaluation.reading_section import WORST, list_worst
from empathy_agent.judge import DIMENSIONS, MECHANISMS

TOP = Path(__file__).parent.parent


def test_macro_f1_counts_the_classes_that_are_there():
    assert measure_macro_f1(["a", "b"], ["a", "b"]) == 1
    assert measure_macro_f1(["a", "a", "b", "b"], ["a", "b", "b", "c"]) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert measure_macro_f1(["a", "b"], ["a", "a"]) == pytest.approx((2 / 3 + 0) / 2), "a class never found counts as 0"
    assert measure_macro_f1(["a", "a"], ["b", "b"]) == 0


def test_calibration_error_of_known_bins():
    confidence = np.asarray([0.9] * 10 + [0.6] * 10)
    truth = np.asarray([1] * 9 + [0] + [1] * 3 + [0] * 7)
    assert measure_calibration_error(confidence, truth) == pytest.approx(0.5 * 0.3)
    assert measure_calibration_error(confidence, truth, adaptive=True, bins=2) == pytest.approx(0.5 * 0.3)
    assert measure_calibration_error(np.ones(4), np.ones(4)) == 0
    assert measure_calibration_error(np.zeros(4), np.ones(4)) == 1
    equal = list_bins(np.asarray([0.0, 1 / 15, 0.5, 1.0]), np.ones(4), adaptive=False)
    assert [b.count for b in equal] == [2, 1, 1], "a bin includes its upper end, empty bins are left out"
    assert [b.count for b in list_bins(np.linspace(0, 1, 31), np.ones(31), adaptive=True)] == [3] + [2] * 14


def test_recall_at_a_false_alarm_rate_with_ties():
    negative = np.asarray([0.9, 0.9, 0.9, *[0.1] * 97])
    assert find_threshold(negative, 0.01) > 0.9, "three that tie cannot be split to allow one"
    assert find_threshold(negative, 0.03) == np.nextafter(0.1, 1)
    score = np.concatenate([negative, [0.95, 0.9, 0.5, 0.05]])
    positive = np.asarray([False] * 100 + [True] * 4)
    assert measure_recall_at(positive, score, 0.01) == 0.25
    assert measure_recall_at(positive, score, 0.03) == 0.75
    assert measure_recall_at(positive, score, 1.0) == 1
    assert math.isnan(measure_recall_at(np.ones(3, dtype=bool), np.ones(3), 0.01))


def test_auroc_and_spearman():
    assert measure_auroc(np.asarray([True, True, False]), np.asarray([0.9, 0.5, 0.5])) == 0.75
    assert math.isnan(measure_auroc(np.asarray([True, True]), np.asarray([0.9, 0.5])))
    assert measure_spearman(np.asarray([1, 2, 3]), np.asarray([10, 30, 20])) == pytest.approx(0.5)
    assert measure_spearman(np.asarray([1, 1, 2]), np.asarray([5, 5, 9])) == pytest.approx(1)
    assert math.isnan(measure_spearman(np.asarray([1, 2, 3]), np.asarray([1, 1, 1])))


def test_the_bootstrap_draws_conversations_and_is_seeded():
    constant = np.full(20, 0.4)
    groups = [str(i // 2) for i in range(20)]
    assert bootstrap(lambda rows: float(constant[rows].mean()), groups, 0) == pytest.approx((0.4, 0.4, 0.4))
    values = np.asarray([0.0, 1.0] * 50)
    alone = bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(100)], 0)
    paired = bootstrap(lambda rows: float(values[rows].mean()), [str(i // 2) for i in range(100)], 0)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < 0.45 < 0.5 < 0.55 < alone.high
    assert paired == (0.5, 0.5, 0.5), "each conversation holds one of either, so that its mean cannot vary"
    again = bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(100)], 0)
    assert again == alone
    assert bootstrap(lambda rows: float("nan"), groups, 0) == (None, None, None)
    assert bootstrap(lambda rows: 1.0, [], 0) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "greets"),
    [("Hello", True), ("hi, how are you?", True), ("Good evening!", True), ("Hi. Any comedies?", False), ("16", False)],
)
def test_greetings_are_told_from_first_messages(text: str, greets: bool):
    assert is_greeting(text) is greets


def test_the_first_message_that_says_something_is_taken_and_what_was_trained_on_is_kept_apart():
    def talk(number: int, *said: str) -> dict[str, Any]:
        return {"id": f"r/{number}", "turns": [{"role": "seeker", "text": text} for text in said]}

    rows = [talk(n, "Hello", "yes 4", f"please name a comedy of {n}", "thanks for all of it") for n in range(80)]
    rows.append(talk(80, "hi", "yes"))
    rows.append(talk(81, "please name a comedy of 3"))
    trained = {f"r/{n}" for n in range(40)}
    found = find_first_messages("redial_valtest", "movie_recommendation", rows, trained)
    assert (found.conversations, found.greetings, found.short, found.silent) == (82, 81, 81, 1)
    assert (found.held_out, found.seen) == (40, False), "81 has the words of 3, which was trained on"
    assert {m.id for m in found.messages} == {f"r/{n}" for n in range(40, 80)}
    assert not any(m.seen for m in found.messages)
    marked = find_first_messages("redial_valtest", "movie_recommendation", rows[:50], trained)
    assert marked.seen, "ten are too few, so all are measured and marked"
    assert len(marked.messages) == 50


def test_the_worst_are_ranked_and_public_text_stays_out():
    rows = [{"id": f"c{n:02}", "at": 0, "text": "word " * 80, "by": n} for n in range(30)]
    worst = list_worst(rows, "error", lambda row: ("a", "b", row["by"]))
    assert [row["id"] for row in worst] == [f"c{n}/0" for n in range(29, 29 - WORST, -1)]
    assert len(worst[0]["text"]) == 160
    hidden = list_worst(rows, "score", lambda row: ("", "", row["by"]), own=False, lowest=True)
    assert [row["score"] for row in hidden] == list(range(WORST))
    assert all("text" not in row for row in hidden)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test conversation of each task with contrasts, cut to eight turns, and ten messages of each other file."""
    folder = tmp_path_factory.mktemp("corpus")
    conversations, unknown, screening = read_written(TOP / "conversations")
    for task in sorted({row["task"] for row in conversations}):
        own = [row for row in conversations if row["task"] == task and any("contrasts" in t for t in row["turns"])]
        cut = own[0] | {"turns": own[0]["turns"][:8]}
        (folder / f"{task}.jsonl").write_text(json.dumps(cut) + "\n", encoding="utf-8")
    for name, rows in (("unknown", unknown[:10]), ("screening", screening[:20])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up rows in the form of the public files."""
    folder = tmp_path_factory.mktemp("public")
    said = "I would like a SECRETWORD comedy for tonight"
    files: dict[str, list[dict[str, Any]]] = {
        "redial_valtest": [{"id": f"r/{n}", "turns": [{"role": "user", "content": f"{said} {n}"}]} for n in range(12)],
        "epitome_dev": [
            {"id": f"p_{n}", "turns": [{"role": "seeker", "text": f"SECRETWORD {n}"}, {"role": "peer", "text": "Why?"}]}
            | {"ER": n % 3, "IP": n % 2, "EX": 0}
            for n in range(6)
        ],
        "ieval_half": [
            {
                "id": f"ieval/{n}-positive-Pink",
                "turns": [{"role": "user", "content": "I won!"}, {"role": "assistant", "content": "Great" * n}],
                "ratings": {"EU": n, "ER": 6 - n},
            }
            for n in range(1, 6)
        ],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_the_command_measures_every_reading(
    corpus: Path, public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading_section, "bootstrap", partial(bootstrap, resamples=40))
    arguments = ["evaluate", "readings", "--conversations", str(corpus), "--data", str(public)]
    arguments += ["--labels", str(public), "--eval", str(public), "--out"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "b"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "empathy-agent " + " ".join([*arguments, str(tmp_path / "b"), "--seed", "0"])
    figures = {f["measure"]: f for section in report["sections"].values() for f in section["figures"]}
    for measure in (
        "macro-F1, first message, as the graph reads",
        "macro-F1, first message, head alone",
        "macro-F1, after three, as the graph reads",
        "unknown against tasks, AUROC",
        "level, Spearman, replies and contrasts",
        "picks the reply, nearer to the graph's target",
        *(f"{name}, applies or not, accuracy" for name in DIMENSIONS),
        *(f"{name}, Spearman" for name in MECHANISMS),
        "EPITOME, sum of mechanisms, Spearman",
        "iEval, level and mean of EU and ER, Spearman",
        "hard set, AUROC",
        "recall at 1 % false alarms, hard set",
        "task: calibration error, adaptive",
        "danger, hard set: calibration error, equal width",
    ):
        assert measure in figures
        assert measure in printed
    for figure in figures.values():
        if "calibration" in figure["measure"]:
            continue  # a bootstrap of few rows makes a calibration error larger
        assert figure["low"] is None or figure["low"] <= figure["value"] + 1e-9
        assert figure["high"] is None or figure["value"] <= figure["high"] + 1e-9
    assert sum(map(sum, report["confusion"]["counts"])) == 8 + 10
    (source,) = report["sources"]
    assert source["seen"], "all twelve are examples of `train heads`"
    assert "TRAINED ON" in printed
    for name in ("readings.json", "readings.md"):
        content = (tmp_path / "a" / name).read_text(encoding="utf-8")
        assert "SECRETWORD" not in content, "public text is not copied"
    first, second = ((tmp_path / folder / "readings.json").read_text(encoding="utf-8") for folder in "ab")
    assert json.loads(first)["sections"] == json.loads(second)["sections"]
    drawing = ET.fromstring((tmp_path / "a" / "calibration.svg").read_text(encoding="utf-8"))
    assert len(drawing.findall(".//{*}polyline")) == 2 * 3
    assert "href" not in ET.tostring(drawing, encoding="unicode")


def test_what_was_trained_on_is_known(corpus: Path, public: Path):
    trained = list_trained(corpus, public, None)
    assert {f"r/{n}" for n in range(12)} <= trained
    conversations, *_ = read_written(corpus)
    assert not {row["id"] for row in conversations} & trained, "the test split is not trained on"


def test_a_folder_without_a_test_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "readings", "--conversations", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no conversations of the test split" in capsys.readouterr().err
    assert main(["evaluate", "readings", "--data", "nothing", "--out", str(tmp_path)]) == 2
    assert "no folder nothing" in capsys.readouterr().err
