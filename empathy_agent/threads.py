"""Conversations on disk: a SQLite file in the user's data folder, or a PostgreSQL server. Opened per command, pruned per turn."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from empathy_agent.errors import InputError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from langgraph.checkpoint.postgres import PostgresSaver

SERVER = ("postgresql://", "postgres://")
PATIENCE = 10  # seconds that a server may take to answer, or another process to finish setting its tables up
REMEMBERED = 4096  # messages that are kept decoded, about 3 KB each
SETTING_UP = 251_103_143  # key of the advisory lock under which tables are made


class SqliteThreads(SqliteSaver):
    """LangGraph's saver over SQLite with the `prune` that its saver over PostgreSQL has."""

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes all checkpoints of threads but the latest, which holds the state, and an interrupt's pending writes.

        One transaction: a process killed before or in it leaves everything, and the next call deletes it. For graphs like this
        package's, without delta channels, whose state would need the older checkpoints.
        """
        if strategy != "keep_latest":
            raise NotImplementedError(f"strategy {strategy!r}: only 'keep_latest' is needed here")
        with self.lock, closing(self.conn.cursor()) as cursor:  # nobody else may write while less is synchronized
            self.setup()
            # Unlike a turn's own write, a deletion need not be on the disk before the next message.
            cursor.execute("PRAGMA synchronous=NORMAL")
            try:
                with self.conn:
                    for thread in thread_ids:
                        _delete_older(cursor, thread)
            finally:
                cursor.execute("PRAGMA synchronous=FULL")


def _delete_older(cursor: sqlite3.Cursor, thread: str) -> None:
    spaces = "SELECT checkpoint_ns, MAX(checkpoint_id) FROM checkpoints WHERE thread_id = ? GROUP BY 1"
    for space, latest in cursor.execute(spaces, (thread,)).fetchall():
        for table in ("checkpoints", "writes"):
            older = f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?"
            cursor.execute(older, (thread, space, latest))


def find_database() -> str:
    """Returns where threads are kept: `EMPATHY_AGENT_DATABASE`, else `threads.sqlite` in the data folder.

    The data folder is that of `EMPATHY_AGENT_DATA`, else the user's.
    """
    import platformdirs

    folder = Path(os.environ.get("EMPATHY_AGENT_DATA") or platformdirs.user_data_dir("empathy-agent"))
    return os.environ.get("EMPATHY_AGENT_DATABASE") or str(folder / "threads.sqlite")


def describe_database(database: str | Path | None = None) -> str:
    """Names a database without its password."""
    database = str(database or find_database())
    if "://" not in database:
        return database
    before, at, after = database.rpartition("@")
    scheme, slashes, user = before.partition("://")
    return f"{scheme}{slashes}{user.split(':')[0]}{at}{after}".split("?")[0] if at else database.split("?")[0]


@contextmanager
def open_threads(database: str | Path | None = None) -> Iterator[SqliteThreads | PostgresSaver]:
    """Opens the checkpointer over a database; call its `prune([thread])` after a turn.

    Args:
        database: Path of a SQLite file, or `postgresql://user:password@host/name`; None takes `find_database()`.

    Raises:
        InputError: The database cannot be opened.
        MissingExtraError: It is PostgreSQL and the extra `postgres` is not installed.
    """
    database = str(database or find_database())
    if database.startswith(SERVER):
        with _open_server(database) as server:
            yield server
    elif "://" in database:
        raise InputError(f"unknown database {describe_database(database)}: give a path, or postgresql://…")
    else:
        with _open_file(Path(database)) as file:
            yield file


def prune_thread(saver: Any, thread: str) -> None:
    """Deletes checkpoints of older turns; where the database cannot do it now, that is left to the next turn."""
    with suppress(*_list_errors()):
        saver.prune([thread])


@contextmanager
def reported() -> Iterator[None]:
    """Turns a failure of the database into an error that says what became of the conversation."""
    try:
        yield
    except _list_errors() as error:
        raise StorageError(
            f"the database of threads failed: {str(error).strip()}; the conversation is as it was before this message"
        ) from error


def _list_errors() -> tuple[type[Exception], ...]:
    psycopg = sys.modules.get("psycopg")  # not imported where nobody has opened a server
    return (sqlite3.Error, psycopg.Error) if psycopg else (sqlite3.Error,)


@contextmanager
def _open_file(path: Path) -> Iterator[SqliteThreads]:
    """Opens a SQLite file that only its user can read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA secure_delete=FAST")  # a turn does not wait for that; forgetting rewrites the file
        saver = SqliteThreads(connection, serde=_build_serializer())
        saver.setup()
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"cannot open the threads in {path}: {error}; move the file away, or name another with --database or "
            "EMPATHY_AGENT_DATABASE"
        ) from error
    with closing(connection):
        yield saver


@contextmanager
def _open_server(url: str) -> Iterator[PostgresSaver]:
    """Opens a pool of connections that mends itself when the server restarts between two turns."""
    try:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import ConnectionPool
    except ImportError as error:
        raise MissingExtraError(
            'PostgreSQL needs langgraph-checkpoint-postgres: pip install "empathy-agent[postgres]"'
        ) from error
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE, **options) as connection:
            _wait_for_lock(connection)
            PostgresSaver(connection).setup()
    except psycopg.Error as error:
        raise InputError(
            f"cannot open the threads in {describe_database(url)}: {' '.join(str(error).split())}; start the server, or correct "
            "--database or EMPATHY_AGENT_DATABASE"
        ) from error
    with ConnectionPool(
        url, kwargs=options, min_size=1, max_size=4, timeout=PATIENCE, check=ConnectionPool.check_connection
    ) as pool:
        yield PostgresSaver(pool, serde=_build_serializer())  # type: ignore[arg-type]


def _build_serializer() -> JsonPlusSerializer:
    """A serializer that decodes a message once: every turn reads the whole history, of which all but the end is known."""
    decode = lru_cache(REMEMBERED)(JsonPlusSerializer()._unpack_ext_hook)

    def recall(code: int, content: bytes) -> Any:
        value = decode(code, content)
        return value.model_copy() if isinstance(value, BaseMessage) else value

    return JsonPlusSerializer(__unpack_ext_hook__=recall)


def _wait_for_lock(connection: Any) -> None:
    """Lets one process at a time make the tables; polls, since a waiting statement would hold up an index made concurrently."""
    for _ in range(PATIENCE * 10):
        row = connection.execute("SELECT pg_try_advisory_lock(%s) AS held", (SETTING_UP,)).fetchone()
        if row["held"]:
            return
        time.sleep(0.1)
    raise InputError("another process has been setting up the tables of threads for too long: try again")
