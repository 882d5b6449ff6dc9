"""The file of records: one JSON object a line, written as sessions finish, so that a killed run can be gone on with."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import IO, Any

from empathy_agent.errors import InputError
from empathy_agent.simulation.session import SCHEMA

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Reads the records of a file; a torn last line, of a run that was killed, is left out.

    Of a session that failed and was played again, the last record counts.

    Raises:
        InputError: Another line is broken or of another schema, or the file cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Record], int]:
    """The records, and how many bytes of the file they take."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    whole = content[: content.rfind(b"\n") + 1]
    records = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({error}): delete the line or name another file"
            ) from None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or "id" not in record:
            raise InputError(f"{path}, line {number} is no record of schema {SCHEMA}: name another file")
        records.append(record)
    return list({record["id"]: record for record in records}.values()), len(whole)


class RecordFile:
    """An open file of records. `records` are those that stood in it already."""

    def __init__(self, file: IO[bytes], records: list[Record]):
        self.records, self._file = records, file

    def append(self, record: Record) -> None:
        """Writes a record at once.

        Raises:
            InputError: The file cannot be written, as on a full disk.
        """
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        try:
            self._file.write(line.encode("utf-8", errors="replace"))
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self._file.name}: {error}") from error

    def skip(self, planned: Mapping[str, int]) -> set[str]:
        """The ids of `planned` sessions, with their seeds, that stand in the file already and did not fail.

        Raises:
            InputError: The file holds one of them under another seed.
        """
        known = {record["id"]: record["seed"] for record in self.records}
        for id_, seed in planned.items():
            if id_ in known and known[id_] != seed:
                raise InputError(
                    f"{self._file.name} holds session {id_} with seed {known[id_]}, not {seed}: name another file"
                )
        return planned.keys() & {record["id"] for record in self.records if record["status"] != "failed"}


@contextmanager
def open_records(path: Path) -> Iterator[RecordFile]:
    """Opens a file of records to go on with, or a new one; a torn last line is cut off.

    Raises:
        InputError: It cannot be opened, or holds something else than records.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        records, size = _read(path) if path.exists() else ([], 0)
        file = path.open("ab")
        os.truncate(path, size)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    with file:
        yield RecordFile(file, records)


def summarize(records: Iterable[Record]) -> dict[str, Any]:
    """Counts and means over records: sessions by status, turns, emotion at the end, retries and messages out of role."""
    records = list(records)
    ends = [record["emotion"][-1] for record in records if record["emotion"]]
    roles = [record["role"] for record in records if record["role"]]
    kept = Counter(found["kind"] for role in roles for found in role["breaks"] if found["kept"])
    return {
        "sessions": len(records),
        **{status: sum(r["status"] == status for r in records) for status in ("done", "left", "handed_off", "failed")},
        "turns": sum(turn["role"] == "assistant" for record in records for turn in record["turns"]),
        "emotion": round(fmean(ends), 2) if ends else None,
        "retries": sum(role["retries"] for role in roles),
        "out_of_role": dict(sorted(kept.items())),
    }
