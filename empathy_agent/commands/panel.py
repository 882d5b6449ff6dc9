"""What `chat` draws on a terminal: the reply as it is written and a panel of what was read and aimed at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from empathy_agent.turns import clean_text

STAGES = {
    "screen_message": "reading",
    "recognize_task": "task recognized",
    "estimate_need": "need estimated",
    "retrieve_exemplars": "exemplars recalled",
    "generate_reply": "checking the reply",
    "assess_reply": "reply assessed",
}


def write_plain(text: object, style: str = "") -> Text:
    """Text as it is: what users and models write may look like markup or hold what a terminal obeys."""
    return Text(clean_text(str(text)), style=style)


class _Plain(Table):
    """A table whose cells are plain text."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(write_plain, cells), **options)


def draw_turn(state: dict[str, Any]) -> Panel:
    """Draws the panel of a turn."""
    table = _Plain.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if state["route"] == "hand_off":
        table.add_row(
            "safety", f"{state['safety']['category']} ({state['safety']['score']:.2f}): handed off, no model wrote this"
        )
        return Panel(table, border_style="red", width=88)
    task, need, assessment, drift = state["task"], state["need"], state["assessment"], state["drift"]
    table.add_row("task", f"{task['label']} ({task['confidence']:.2f}), then {task['runner_up']}")
    table.add_row("need", f"{draw_bar(need['level'])} {need['emotion']}: {'; '.join(need['reasons'])}")
    table.add_row("target", f"{draw_bar(state['target'])} expert {state['expert']} by {state['route']}")
    if state.get("route_reason"):
        table.add_row("route", state["route_reason"])
    table.add_row("perceived", f"{draw_bar(assessment['level'])} ± {assessment['uncertainty']:.2f}")
    alarm = "" if drift["alarm"] == "none" else f", alarm: {drift['alarm']}-empathy"
    drafts = len(state.get("revisions") or [])
    revised = f", best of {drafts} drafts" if drafts > 1 else ""
    table.add_row("gap", f"{drift['gap']:+.2f}, over {drift['turns']} turns {drift['mean_gap']:+.2f}{alarm}{revised}")
    if state["exemplars"]:
        table.add_row("exemplars", ", ".join(f"{e['id']} ({e['score']:.2f})" for e in state["exemplars"]))
    return Panel(table, border_style="dim", width=88)


def draw_bar(level: float, width: int = 10) -> str:
    """Draws a level in [0, 1] as a bar with its number."""
    full = round(level * width)
    return f"{'█' * full}{'░' * (width - full)} {level:.2f}"


def show_turn(state: dict[str, Any]) -> None:
    """Prints the panel of a turn to standard error, so that standard output holds the reply alone."""
    Console(stderr=True, highlight=False).print(draw_turn(state))


class Screen:
    """A conversation on a terminal; `quiet` prints nothing but what the caller prints."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._console = Console(highlight=False)

    def wait(self, text: str) -> AbstractContextManager[Any]:
        """Shows that something takes a while."""
        return nullcontext() if self._quiet else self._console.status(text)

    def greet(self, thread: str, messages: list[Any]) -> None:
        """Names the thread and repeats the last exchange of one that goes on."""
        if self._quiet:
            return
        self._console.print(
            write_plain(f"thread {thread}; Ctrl-D or /quit to leave, --thread {thread} to come back", "dim")
        )
        for message in messages[-2:]:
            self._console.print(write_plain(("you  " if message.type == "human" else "") + str(message.text), "dim"))

    def ask(self) -> str | None:
        """Reads one message; None at the end of input or `/quit`."""
        while True:
            try:
                line = input("" if self._quiet or not sys.stdin.isatty() else "\nyou  ")
            except EOFError:
                return None
            if line.strip():
                return None if line.strip() in ("/quit", "/exit") else line

    @contextmanager
    def reply(self) -> Iterator[Callable[[str, Any], None]]:
        """Shows stages and tokens of a reply while it is made; a revision replaces the draft."""
        shown: dict[str, Any] = {"text": "", "stage": "reading", "written": False, "reply": None}
        with Live(console=self._console, refresh_per_second=12, transient=True) as live:

            def show(mode: str, event: Any) -> None:
                if mode == "messages":
                    chunk, about = event
                    if about.get("langgraph_node") != "generate_reply" or chunk.type != "AIMessageChunk":
                        return
                    if shown["written"] or chunk.id != shown["reply"]:  # a revision, or another route after a failure
                        shown.update(text="", written=False, reply=chunk.id)
                    shown["text"] += str(chunk.text)
                else:
                    shown["stage"] = STAGES.get(next(iter(event)), shown["stage"])
                    shown["written"] = shown["written"] or "generate_reply" in event
                live.update(write_plain(shown["text"]) if shown["text"] else write_plain(shown["stage"], "dim"))

            yield show

    def show_turn(self, state: dict[str, Any]) -> None:
        """Prints the reply that was sent, and its panel."""
        self._console.print(write_plain(state["messages"][-1].text))
        self._console.print(draw_turn(state))
