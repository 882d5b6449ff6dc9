"""The report page: what it says, what it survives, and how it behaves in a browser where Chromium is installed."""

from __future__ import annotations

import doctest
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reports import write_conversation, write_reply, write_report

from empathy_agent.evaluation import conversations, plots, wording
from empathy_agent.evaluation import page as page_module
from empathy_agent.evaluation.page import write_page
from empathy_agent.judge import DIMENSIONS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

TOP = Path(__file__).parent.parent
TASKS = {
    "movie_recommendation": 0.065,
    "information_seeking": 0.10,
    "travel_planning": 0.25,
    "customer_support": 0.45,
    "tutoring": 0.50,
    "career_advice": 0.60,
    "health_coaching": 0.70,
    "therapy": 0.923,
}
# How much of the way from a common level to the desired one a system goes, how that fades per turn, and its common level.
MANNERS = {"base": (0.15, 0.0, 0.42), "prompt": (0.85, -0.055, 0.42), "experts": (0.93, -0.004, 0.35)}


def write_talks(name: str, each: int = 3, turns: int = 12, seed: int = 7) -> list[dict[str, Any]]:
    """Conversations of a system about all eight tasks, in words of the written conversations."""
    draw, (share, fade, common) = random.Random(f"{name}{seed}"), MANNERS[name]
    found = []
    for task, desired in TASKS.items():
        lines = (TOP / "conversations" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        for talk in [json.loads(line) for line in lines[-each:]]:
            rows: list[dict[str, Any]] = []
            lean = draw.gauss(0, 0.04)
            for number in range(turns):
                asked, reply = talk["turns"][2 * number % len(talk["turns"]) :][:2]
                contrasts = [c["content"] for c in reply.get("contrasts", ())] or [reply["content"]]
                content = (
                    reply["content"] if name == "experts" or draw.random() < share - 0.6 else draw.choice(contrasts)
                )
                aim = common + (desired - common) * max(0.0, share + fade * number)
                level = round(min(0.99, max(0.01, draw.gauss(aim + lean, 0.05))), 4)
                more: dict[str, Any] = {
                    "task": task,
                    "need": round(desired * draw.uniform(0.6, 1.1), 2),
                    "target": desired,
                }
                more |= {"expert": talk["expert"] if name == "experts" else None, "seconds": draw.uniform(0.4, 3)}
                more |= {"route": {"experts": "adapter"}.get(name, name), "emotion": asked.get("emotion")}
                gap = level - desired
                more["alarm"] = ("over" if gap > 0 else "under") if number > 2 and abs(gap) > 0.25 else "none"
                more["ratings"] = {"generative": {"level": round(min(1, max(0, draw.gauss(level, 0.08))), 3)}}
                dimensions = {k: round(1 + 4 * min(1, max(0, draw.gauss(level, 0.15))), 2) for k in DIMENSIONS}
                if task in ("movie_recommendation", "information_seeking"):
                    dimensions["relational_continuity"] = dimensions["affective_understanding"] = None
                more["dimensions"] = dimensions
                rows += [{"role": "user", "content": asked["content"]}, write_reply(level, desired, content, **more)]
            found.append(write_conversation(talk["id"], [], task, turns=rows))
    return found


def write_sample() -> dict[str, Any]:
    """24 conversations about 8 tasks with 3 systems; two sessions failed, one was handed off."""
    systems = {name: write_talks(name) for name in MANNERS}
    for talks in systems.values():
        for talk in talks:
            talk |= {"persona": "p001", "emotion": [40.0, 62.5], "role": {"retries": 0, "breaks": []}}
            talk["turns"][2] |= {"disclosed": "she lost her job in March", "told": talk["id"].endswith("8")}
    left = [{"turn": 1, "kind": "repeats", "kept": True}, {"turn": 2, "kind": "assistant", "kept": False}]
    for talk in systems["experts"]:
        talk["role"] = {"retries": 2, "breaks": left}
    systems["base"][4] |= {
        "status": "failed",
        "error": "ReplyError: the model stopped",
        "turns": systems["base"][4]["turns"][:6],
    }
    systems["prompt"][9] |= {"status": "failed", "error": "OverloadedError: the worker's queue is full", "turns": []}
    systems["experts"][-1]["status"] = "handed_off"
    systems["experts"][-1]["turns"][-1] = write_reply(None, content="Please call 112.")
    ablations = {"no_drift_correction": systems["prompt"], "no_exemplars": write_talks("experts", seed=8)}
    report = write_report(systems, ablations, judges=["learned", "generative"])
    report["scenarios"] |= {"conversations": 24}
    return report


class Browser:
    """Headless Chromium, spoken to over a pipe; it has no network and a profile of its own."""

    def __init__(self, profile: Path) -> None:
        here, there = os.pipe(), os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        flags += "--disable-component-update --disable-sync --remote-debugging-pipe"
        command = f'exec "{CHROMIUM}" {flags} --user-data-dir="{profile}" about:blank 3<&{here[0]} 4>&{there[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(here[0], there[1]), stderr=subprocess.DEVNULL
        )
        os.close(here[0])
        os.close(there[1])
        self.to, self.back = os.fdopen(here[1], "wb"), os.fdopen(there[0], "rb")
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self.number, self.rest = 0, b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **options: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": options}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while (answer := self.read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            piece = self.back.read1(1 << 20)
            assert piece, "Chromium ended"
            self.rest += piece
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def open(self, page: Path, *, width: int = 1200, scheme: str = "light", scripts: bool = True) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def list_troubles(self) -> list[Any]:
        bad = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        found = [event["params"] for event in self.events if event.get("method") in bad]
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return found + [url for url in asked if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(20)
        self.to.close()
        self.back.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    return write_sample()


@pytest.fixture(scope="module")
def page(sample: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(write_page(sample), encoding="utf-8")
    return path


@pytest.mark.parametrize("module", [conversations, page_module, plots, wording])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


class Texts(HTMLParser):
    """Collects a page's tags and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words.append(data)


def test_the_page_says_the_figures_of_the_report(sample):
    text = Texts(write_page(sample)).text
    experts = sample["systems"]["experts"]
    assert f"With experts, {experts['gap_reduction']:.0%}".replace("%", " %") in text
    for system in sample["systems"].values():
        assert f"{system['mean_abs_gap']:.2f}" in text
        for row in system["tasks"].values():
            assert f"{row['perceived']:.2f}" in text
    for word in (
        "2 sessions failed",
        "OverloadedError",
        "no drift correction",
        "drift alarm",
        "generative",
        "health coaching",
        "late disclosure, not made she lost her job in March",
        "The user left its role in message 2 (repeats).",
        "n = 23",
    ):
        assert word in text
    assert "in message 3" not in text, "a message that was mended is none that left the role"
    assert f"{experts['users']['out_of_role']:.0%}".replace("%", " %") in text


def test_the_same_report_gives_the_same_page_and_stays_as_it_was(sample):
    before = json.dumps(sample)
    assert write_page(sample) == write_page(json.loads(before))
    assert json.dumps(sample) == before


def test_texts_of_a_report_never_become_markup():
    evil = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\x00\x1b[31m\u202e\ud800 {{ 7*7 }}"
    turns = [{"role": "user", "content": evil}, write_reply(0.4, content=evil, task=evil, expert=evil, route=evil)]
    talks = [write_conversation(evil, [], evil, turns=turns, persona=evil, status="failed", error=evil)]
    report = write_report({evil: talks, "base": talks}, judges=[evil])
    report |= {"command": ["empathy-agent", evil], "versions": {evil: evil}, "settings": {evil: evil, "tolerance": 0.1}}
    report["judge_cards"] = {evil: {"independent": False, "reasons": [evil]}}
    page = write_page(report)
    page.encode("utf-8")
    found = Texts(page)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "img" not in dict(found.tags)
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7*7 }}" in found.text


def test_nothing_is_asked_of_another_place(page):
    found = Texts(page.read_text(encoding="utf-8"))
    for tag, attributes in found.tags:
        assert tag not in ("img", "iframe", "object", "embed")
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    policy = next(
        attributes["content"] for tag, attributes in found.tags if tag == "meta" and "http-equiv" in attributes
    )
    assert "default-src 'none'" in policy
    assert "url(" not in page.read_text(encoding="utf-8")


def test_every_plot_has_a_title_and_no_id_occurs_twice(page):
    found = Texts(page.read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    drawn = [attributes for tag, attributes in found.tags if tag == "svg" and attributes.get("aria-hidden") != "true"]
    assert drawn
    assert all(set(attributes["aria-labelledby"].split()) <= set(ids) for attributes in drawn)


@pytest.mark.parametrize(
    "change",
    [
        lambda report: {},
        lambda report: {"systems": {"base": {}}},
        lambda report: {"systems": {"experts": report["systems"]["experts"]}},
        lambda report: {**report, "systems": {k: v for k, v in report["systems"].items() if k != "base"}},
        lambda report: {
            **report,
            "comparisons": [],
            "ablations": None,
            "judges": None,
            "scenarios": None,
            "settings": None,
        },
        lambda report: {
            "systems": {name: {"conversations": s["conversations"]} for name, s in report["systems"].items()}
        },
    ],
)
def test_whatever_is_missing_the_page_is_written(sample, change):
    report = change(sample)
    page = write_page(report)
    assert "None" not in Texts(page).text
    assert "nan" not in Texts(page).text.split()
    assert write_page(_blank(report)).startswith("<!doctype html>")


def _blank(value: Any) -> Any:
    """The same report with every number undefined."""
    if isinstance(value, dict):
        return {name: part if name == "turn" else _blank(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_blank(part) for part in value]
    return None if isinstance(value, int | float) else value


def test_one_conversation_and_a_worse_system_are_worded_with_care():
    talk = write_conversation("t1", [0.4, 0.5, 0.6], desired=0.5)
    alone = Texts(write_page(write_report({"base": [talk]}))).text
    assert "With base, replies miss the desired empathy by 0.07 on average" in alone
    worse = write_conversation("t1", [0.1, 0.1, 0.1], desired=0.5)
    text = Texts(write_page(write_report({"base": [talk], "experts": [worse]}))).text
    assert "No system comes nearer to the desired empathy than base" in text
    base = [write_conversation(f"t{n}", [0.5 + gap] * 3) for n, gap in enumerate((0.1, 0.3))]
    other = [write_conversation(f"t{n}", [0.5 + gap] * 3) for n, gap in enumerate((0.28, 0.1))]
    text = Texts(write_page(write_report({"base": base, "experts": other}))).text
    assert "No system comes clearly nearer to the desired empathy than base" in text
    silent = write_conversation("t1", [], status="failed", error="ReplyError: no")
    assert "Every session failed" in Texts(write_page(write_report({"base": [silent]}))).text


def test_the_page_stays_small_with_many_and_long_conversations(sample):
    experts = sample["systems"]["experts"]
    talks = experts["conversations"][:-1]
    many = [{**talks[n % len(talks)], "id": f"conversation-{n}"} for n in range(300)]
    turns = [{**turn, "content": turn["content"] * 200} for turn in talks[0]["turns"] * 50]
    worst = [{**turn, "gap": 0.9} if turn["role"] == "assistant" else turn for turn in turns]
    systems = {
        name: {**experts, "conversations": [*many, {**talks[0], "turns": worst}]} for name in ("base", "experts")
    }
    page = write_page({**sample, "systems": systems})
    assert len(page.encode()) < 3_000_000
    assert "1,080 messages in the middle are left out here; report.json has them" in page
    assert page.count('<details class="conversation">') == 8


def test_colours_have_contrast_enough():
    style = (TOP / "empathy_agent" / "evaluation" / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    for palette in (light, dark):
        for text in ("ink", "soft", "over", "under"):
            for ground in ("paper", "tint"):
                assert measure_contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
        assert measure_contrast(palette["ink"], palette["heat"]) >= 4.5


def measure_contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser_without_scripts_all_is_there_and_nothing_overflows(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme, scripts=False)
    browser.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    text = " ".join(browser.evaluate("document.body.innerText").split())
    for word in ("75 %", "Numbers by turn", "therapy", "2 sessions failed", "report.json", "she lost her job in March"):
        assert word in text
    for row in (
        "Goals reached 0 % 0 % to",
        "Retention at turn 10",
        "Outcome",
        "Honest-AI violations",
        "Late disclosures made",
    ):
        assert row in text
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
    assert browser.list_troubles() == []


def test_in_a_browser_scripts_only_fold_and_complain_of_nothing(browser, page):
    browser.open(page)
    assert browser.evaluate("document.querySelectorAll('details.conversation[open]').length") == 0
    browser.evaluate("document.querySelector('#fold button').click()")
    assert browser.evaluate("document.querySelectorAll('details.conversation:not([open])').length") == 0
    assert browser.list_troubles() == []
