"""Every benchmark runs in its smallest size and gives the fields that the page is written from; no time is asserted."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from benchmarks import all as every
from benchmarks.measuring import compare, describe_machine, hold_to, make_table

HELD = {"what", "bound", "measured", "met"}


@pytest.mark.parametrize("name", every.NAMES)
def test_a_benchmark_gives_settings_tables_and_bounds(name: str):
    result = import_module(f"benchmarks.{name}").measure(True)
    assert set(result) == {"settings", "tables", "reached"}
    assert json.loads(json.dumps(result)) == result
    assert result["tables"]
    for table in result["tables"]:
        assert set(table) == {"title", "columns", "rows"}
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        assert all(value >= 0 for row in table["rows"] for value in row if isinstance(value, float | int))
    assert all(set(held) == HELD for held in result["reached"])


def test_variants_take_turns_and_the_first_round_does_not_count():
    calls: list[str] = []

    def variant(name: str, values: list[float]) -> float:
        calls.append(name)
        return values.pop(0)

    one, other = [99.0, 1.0, 3.0, 2.0], [98.0, 5.0, 4.0, 9.0]
    medians = compare({"a": lambda: variant("a", one), "b": lambda: variant("b", other)}, repeats=3)
    assert medians == {"a": 2.0, "b": 5.0}
    assert calls == ["a", "b"] * 4


def test_bounds_say_whether_they_are_kept():
    assert hold_to("x", 0.951, least=0.95) == {"what": "x", "bound": "at least 0.95", "measured": 0.951, "met": True}
    assert not hold_to("x", 6.01, most=6)["met"]


def test_the_page_is_written_between_its_marks_again_and_again():
    result = {
        "settings": {"repeats": 5},
        "tables": [make_table("Speed", ["batch", "tokens"], [[1, 0.12345]])],
        "reached": [hold_to("fast", 2.0, least=1)],
        "machine": describe_machine(),
    }
    page = f"before\n{every.BEGIN}\nold\n{every.END}\nafter\n"
    once = every.write_page(page, {"load": result})
    assert "| 1 | 0.123 |" in once
    assert "| fast | at least 1 | 2.0 | yes |" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert every.write_page(once, {"load": result}) == once
    with pytest.raises(ValueError, match="must hold the marks"):
        every.write_page("nothing", {})
