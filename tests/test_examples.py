"""Every example runs as it stands, without network or key, and shows what it promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWS = {
    "graph_embedded.py": ["task       therapy", "drift", "after 2 turns"],
    "subgraph_in_host.py": ["Your order is on its way.", "drift counts 2 empathetic turns"],
    "node_in_host.py": ["queue desk, drift counts 2 turns", "queue people, drift counts 2 turns"],
    "middleware_prompt.py": ["guided to be", "in customer_support", "arrives on Friday.", "gap"],
    "middleware_adapter.py": ["Parcel 4711 is at the Leeds depot", "'by': 'draft'"],
    "middleware_polish.py": ["'by': 'expert'", "'by': 'draft', 'attempts': 2", "made up 19:30"],
    "expert_in_chain.py": ["factual: ", "compassionate: "],
    "own_tasks.py": ["own_tasks.toml -> customer_support", "factual"],
    "own_exemplars.py": ["('night-1',", "reply: The quiet is where he was."],
}  # fmt: skip


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHOWS, "scripted.py"}


@pytest.mark.parametrize("name", SHOWS)
def test_an_example_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    shown = capsys.readouterr().out
    for text in SHOWS[name]:
        assert text in shown
