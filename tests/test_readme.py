"""README and docs say what the code says: tables, commands, variables and links. `test_package.py` runs README's Python."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from empathy_agent.cli import MEASURED, build_parser
from empathy_agent.settings import Settings
from empathy_agent.tasks import load_tasks

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
CARDS = [TOP / folder / "README.md" for folder in ("", "conversations", "retrieval", "empathy_agent/weights")]
PAGES = [*CARDS, *sorted((TOP / "docs").rglob("*.md"))]
TASKS = "Tasks, desired empathy, experts"
PARTS = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)


def read_table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, cells without backticks."""
    (part,) = [body for name, body in PARTS.findall(README) if name == heading]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in row] for row in rows[2:]]


def list_anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def list_links(page: Path) -> list[tuple[Path, str]]:
    found = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8"))
    return [((page.parent / target).resolve() if target else page, anchor) for target, anchor in found]


def test_the_table_of_settings_has_every_field_and_its_default():
    defaults = {field.name: str(field.default).lower() or "empty" for field in fields(Settings)}
    assert {name: default for name, default, _ in read_table("Settings")} == defaults


def test_the_table_of_tasks_is_the_shipped_one():
    tasks = load_tasks()
    shown = [(name, float(desired), source, expert) for name, desired, source, expert, _ in read_table(TASKS)]
    assert shown == [(p.name, p.desired, p.source, p.expert) for p in tasks.profiles.values()]
    levels = [float(level) for *_, does in read_table(TASKS) for level in re.findall(r"\((\d\.\d+)\)", does)]
    assert levels == list(tasks.patterns.values())


def test_the_table_of_extras_names_every_extra():
    named = [name for row in read_table("Extras") for name in re.findall(r"[\w-]+", row[0])]
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(named) == sorted(project["optional-dependencies"])


def test_the_table_of_commands_names_every_command():
    named = {row[0].split()[0].strip("`,") for row in read_table("Commands")} | {"doctor", "readings", "experts"}
    (commands,) = [action.choices for action in build_parser()._actions if action.dest == "command"]
    assert named == set(commands)


def list_commands() -> list[tuple[str, str]]:
    """Page and command line: those on lines of their own, and those with options in the text."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        whole = re.findall(r"^(?:    )?(?:empathy-agent|\./run) ([a-z][^\n]+)$", text, re.MULTILINE)
        for line in whole + re.findall(r"`(?:empathy-agent|\./run) ([^`]+ --[^`]+)`", text):
            words = shlex.split(line, comments=True)
            if words != ["test"] and "…" not in words:
                found.append((str(page.relative_to(TOP)), shlex.join(words)))
    return found


def test_every_command_line_of_the_pages_can_be_read(capsys: pytest.CaptureFixture[str]):
    lines = list_commands()
    assert len(lines) > 20
    for page, line in lines:
        words = shlex.split(line)
        try:
            build_parser().parse_args(words[1:] if words[:2] in MEASURED else words)
        except SystemExit:
            pytest.fail(f"{page}: {line}: {capsys.readouterr().err}")


def test_every_variable_of_the_environment_that_the_pages_name_is_read_and_the_readme_names_each():
    named = {name for page in PAGES for name in re.findall(r"EMPATHY_AGENT_[A-Z_]+[A-Z]", page.read_text("utf-8"))}
    source = "".join(path.read_text(encoding="utf-8") for path in (TOP / "empathy_agent").rglob("*.py"))
    read = set(re.findall(r"environ\.get\(\s*\"(EMPATHY_AGENT_[A-Z_]+)\"", source))
    assert named <= read | {f"EMPATHY_AGENT_{field.name.upper()}" for field in fields(Settings)}
    assert read <= set(re.findall(r"EMPATHY_AGENT_\w+", README))


def test_links_lead_somewhere_and_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [TOP / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target, anchor in list_links(page):
            assert target.is_file(), f"{page.name} links to {target.name}, which is not there"
            assert not anchor or anchor in list_anchors(target), f"{page.name} links to #{anchor} of {target.name}"
            if target.suffix == ".md" and target not in reached:
                waiting.append(target)
    assert {page.resolve() for page in PAGES} <= {page.resolve() for page in reached}
