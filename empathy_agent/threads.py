"""Conversations on disk: one SQLite file in the user's data folder, opened per command, and how to forget one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from empathy_agent.errors import InputError

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver

TABLES = ("checkpoints", "writes")


def find_threads() -> Path:
    """Returns the file of all threads: in the folder of `EMPATHY_AGENT_DATA`, else in the user's data folder."""
    import platformdirs

    folder = Path(os.environ.get("EMPATHY_AGENT_DATA") or platformdirs.user_data_dir("empathy-agent"))
    return folder / "threads.sqlite"


@contextmanager
def open_threads(path: Path | None = None) -> Iterator[SqliteSaver]:
    """Opens the checkpointer over the file of threads, readable by the user only.

    Raises:
        InputError: The file cannot be opened, or is no SQLite file.
    """
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = path or find_threads()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA secure_delete=ON")
        saver = SqliteSaver(connection)
        saver.setup()
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"cannot open the threads in {path}: {error}; move the file away, or set EMPATHY_AGENT_DATA"
        ) from error
    try:
        yield saver
    finally:
        connection.close()


def forget_thread(thread: str, path: Path | None = None) -> dict[str, int | bool]:
    """Deletes every checkpoint and write of a thread, overwrites what it held, and searches the file for what is left.

    Returns:
        `deleted` rows, rows `left`, and `found_in_file`: whether any of its checkpoint ids still stands in the file.

    Raises:
        InputError: There is no such thread.
    """
    path = path or find_threads()
    if not path.is_file():
        raise InputError(f"no thread {thread!r}: nothing is stored in {path}")
    with open_threads(path) as saver:
        connection = saver.conn
        deleted = _count_rows(connection, thread)
        if not deleted:
            known = [row[0] for row in connection.execute("SELECT DISTINCT thread_id FROM checkpoints LIMIT 20")]
            raise InputError(f"no thread {thread!r} in {path}: there are {', '.join(known) or 'none'}")
        select = "SELECT checkpoint_id FROM {} WHERE thread_id = ?"
        rows = [row for table in TABLES for row in connection.execute(select.format(table), (thread,))]
        ids = {row[0].encode() for row in rows}
        saver.delete_thread(thread)
        connection.commit()
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise InputError(f"thread {thread!r} is deleted, but {path} could not be overwritten: {error}") from error
        left = _count_rows(connection, thread)
    files = [file for file in (path, path.with_name(path.name + "-wal")) if file.is_file()]
    contents = [file.read_bytes() for file in files]
    found = any(name in content for name in ids for content in contents)
    return {"deleted": deleted, "left": left, "found_in_file": found}


def _count_rows(connection: sqlite3.Connection, thread: str) -> int:
    counts = [
        connection.execute(f"SELECT COUNT(*) FROM {table} WHERE thread_id = ?", (thread,)).fetchone()
        for table in TABLES
    ]
    return sum(int(count[0]) for count in counts)
