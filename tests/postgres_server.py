"""A PostgreSQL server for the tests, on a socket in a folder of its own, with pgvector where the wheel `pgserver` is installed.

`EMPATHY_AGENT_TEST_DATABASE=postgresql://…` names another server; the tests empty the public schema of that database.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

INSTALLED = Path("/usr/lib/postgresql")  # of Debian and Ubuntu, one folder per version


@contextmanager
def run_postgres() -> Iterator[str]:
    """Yields the address of a server, which ends with the block; skips the test where there is none to start."""
    if address := os.environ.get("EMPATHY_AGENT_TEST_DATABASE"):
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        if not (tools := _find_tools(folder)):
            pytest.skip("no PostgreSQL: pip install pgserver, or set EMPATHY_AGENT_TEST_DATABASE=postgresql://…")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        data, log = f"--pgdata={folder}/data", folder / "log"
        try:
            _run(tools / "initdb", data, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
            _run(tools / "pg_ctl", "start", "--wait", data, f"--log={log}", f"--options={options}")
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}; {log.read_text() if log.is_file() else ''}")
        try:
            yield f"postgresql:///postgres?host={folder}&user=postgres"
        finally:
            _run(tools / "pg_ctl", "stop", "--mode=immediate", data)


def _find_tools(folder: Path) -> Path | None:
    """The folder of `initdb` and `pg_ctl`. PostgreSQL refuses root, so for root all of it is where `nobody` can read it."""
    package = find_spec("pgserver")  # importing it would lock a file for the user
    if package and package.submodule_search_locations:
        home = Path(package.submodule_search_locations[0])
        if _is_root():
            libraries = home.with_name("pgserver.libs")
            shutil.copytree(home / "pginstall", folder / "pgserver" / "pginstall")
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name)
            home = folder / "pgserver"
        tools: Path | None = home / "pginstall" / "bin"
    else:
        tools = max(INSTALLED.glob("*/bin"), key=lambda path: float(path.parent.name), default=None)
    if _is_root():
        folder.chmod(0o755)
        shutil.chown(folder, "nobody")
    return tools


def _is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _run(*command: object) -> None:
    user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if _is_root() else {}
    quiet = subprocess.DEVNULL  # the server would hold a pipe open
    subprocess.run([*map(str, command)], check=True, timeout=60, cwd="/", stdout=quiet, stderr=quiet, **user)
