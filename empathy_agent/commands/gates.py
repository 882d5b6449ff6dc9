"""Prints the table of the gates; a part of the command `synthesize`, no command of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from empathy_agent.synthesis.limits import GateRow

if TYPE_CHECKING:
    from rich.console import Console

NAMED = 10  # offenders of a gate that are printed; --json has all


def print_rows(console: Console, rows: list[GateRow]) -> None:
    """Prints the table, and below it the offenders of every gate that did not pass."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "gate", "where", "measured", "allowed", box=None, pad_edge=False)
    marks = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "-"}
    for row in rows:
        table.add_row(marks[row.passed], *map(escape, (row.name, row.where, row.measured, row.allowed)))
    console.print(table)
    for row in rows:
        if row.offenders and row.passed is not True:
            print(f"{row.name}, {row.where}:")
            print("\n".join(f"  {offender}" for offender in row.offenders[:NAMED]))
            if len(row.offenders) > NAMED:
                print(f"  and {len(row.offenders) - NAMED} more: --json names all")
    failed = sum(row.passed is False for row in rows)
    print(f"{len(rows)} rows, {failed} failed" if failed else f"{len(rows)} rows, all gates passed")
