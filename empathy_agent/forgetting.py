"""Forgets a conversation: deletes every row of it, overwrites what is left of it on disk, and looks for traces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError
from empathy_agent.threads import SqliteThreads, describe_database, find_database, open_threads

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.postgres import PostgresSaver

SHORTEST = 12  # characters from which a text is looked for; what is shorter stands in any conversation
LONGEST = 40  # bytes of it that are looked for, since SQLite splits what is longer over pages
SEARCHED = 64  # ids that are looked for in all rows of a server, which reads its tables once for each


def forget_thread(thread: str, database: str | Path | None = None) -> dict[str, Any]:
    """Deletes a thread and searches for what is left of it.

    A SQLite file is rewritten, and its raw bytes and those of its log are searched for the thread's ids and texts. On PostgreSQL
    all rows are searched for its ids after a VACUUM; what the server's own log, replicas and backups keep is its
    administrator's to remove.

    Returns:
        Rows `deleted` and `left`, names of the files or tables `searched`, and the number of `traces` found there.

    Raises:
        InputError: There is no such thread, or the file could not be overwritten.
    """
    database = str(database or find_database())
    if "://" not in database and not Path(database).is_file():
        raise InputError(f"no thread {thread!r}: nothing is stored in {database}")
    with open_threads(database) as saver:
        if isinstance(saver, SqliteThreads):
            return _forget_in_file(saver, thread, Path(database))
        return _forget_on_server(saver, thread, database)


def _forget_in_file(saver: SqliteThreads, thread: str, path: Path) -> dict[str, Any]:
    execute, tables = saver.conn.execute, ("checkpoints", "writes")
    needles = {needle for kind in _list_needles(saver, thread) for needle in kind}
    deleted = sum(execute(f"SELECT COUNT(*) FROM {t} WHERE thread_id = ?", (thread,)).fetchone()[0] for t in tables)
    execute("PRAGMA secure_delete=ON")
    saver.delete_thread(thread)
    try:
        execute("VACUUM")
        busy = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise InputError(f"thread {thread!r} is deleted, but {path} could not be overwritten: {error}") from error
    if not deleted:
        _refuse(thread, str(path), execute("SELECT DISTINCT thread_id FROM checkpoints LIMIT 20"))
    if busy:
        raise InputError(
            f"thread {thread!r} is deleted, but its text stays in the log of {path} until the other program that has "
            "it open ends"
        )
    files = [file for file in (path, *path.parent.glob(f"{path.name}-*")) if file.is_file()]
    contents = [file.read_bytes() for file in files]
    found = [needle for needle in needles if any(needle in content for content in contents)]
    # What another conversation says too is its own, and not a trace of this one.
    stored = " UNION ALL ".join(
        f"SELECT 1 FROM {t} WHERE instr({c}, ?1)" for t, c in zip(tables, ("checkpoint", "value"), strict=True)
    )
    traces = [needle for needle in found if not execute(stored, (needle,)).fetchone()]
    left = sum(execute(f"SELECT COUNT(*) FROM {t} WHERE thread_id = ?", (thread,)).fetchone()[0] for t in tables)
    return {"deleted": deleted, "left": left, "searched": [file.name for file in files], "traces": len(traces)}


def _forget_on_server(saver: PostgresSaver, thread: str, database: str) -> dict[str, Any]:
    from psycopg.rows import tuple_row

    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    ids, _ = _list_needles(saver, thread)
    with saver.conn.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:  # type: ignore[union-attr,operator]

        def count(table: str, condition: str, value: object) -> int:
            row = cursor.execute(f"SELECT COUNT(*) FROM {table} AS t WHERE {condition}", (value,)).fetchone()
            return int(row[0]) if row else 0

        deleted = sum(count(table, "thread_id = %s", thread) for table in tables)
        if not deleted:
            _refuse(thread, database, cursor.execute("SELECT DISTINCT thread_id FROM checkpoints LIMIT 20"))
        saver.delete_thread(thread)
        for table in tables:
            cursor.execute(f"VACUUM {table}")
        left = sum(count(table, "thread_id = %s", thread) for table in tables)
        held = "EXISTS (SELECT 1 FROM unnest(%s::bytea[]) AS id WHERE position(id IN {}) > 0)"
        texts = ("convert_to(t::text, 'UTF8')", "t.blob", "t.blob")
        traces = sum(count(table, held.format(text), ids[:SEARCHED]) for table, text in zip(tables, texts, strict=True))
    return {"deleted": deleted, "left": left, "searched": list(tables), "traces": traces}


def _refuse(thread: str, database: str, rows: Any) -> None:
    known = ", ".join(row[0] for row in rows) or "none"
    raise InputError(f"no thread {thread!r} in {describe_database(database)}: there are {known}")


def _list_needles(saver: BaseCheckpointSaver[Any], thread: str) -> tuple[list[bytes], list[bytes]]:
    """Lists the ids of a thread's checkpoints and messages, newest first, and the beginnings of the texts in its state."""
    ids: dict[str, None] = {}
    texts: dict[str, None] = {}
    for stored in saver.list({"configurable": {"thread_id": thread}}):
        ids[stored.checkpoint["id"]] = None
        for value in (stored.checkpoint["channel_values"], [value for _, _, value in stored.pending_writes or []]):
            for name, text in _walk(value):
                (ids if name == "id" and len(text) > 30 else texts)[text] = None
    beginnings = [text.encode("utf-8", "ignore")[:LONGEST] for text in texts if len(text) >= SHORTEST]
    return [text.encode() for text in ids], beginnings


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yields every text in a state with the name it stands under."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _walk(part, name)
    elif hasattr(value, "model_dump"):
        yield from _walk(value.model_dump())
