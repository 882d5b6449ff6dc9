"""Loads what a command line names in other people's code: `package.module:attribute` or `path/to/file.py:attribute`."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError


def load_attribute(source: str) -> Any:
    """Loads an attribute; modules are also looked for in the working directory.

    Raises:
        InputError: There is no such module or attribute, or the module cannot be imported.
    """
    if not names_attribute(source):
        raise InputError(f"no module for {source!r}: give module:attribute or path/to/file.py:attribute")
    place, _, attribute = source.partition(":")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else import_module(place)
    except InputError:
        raise
    except Exception as error:  # whatever their code raises when it is imported
        raise InputError(f"{source}: importing {place} failed with {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise InputError(f"{source}: {module.__name__} has no attribute {attribute!r}")
    return getattr(module, attribute)


def names_attribute(source: str) -> bool:
    """Whether `source` names a file or an importable module with an attribute, rather than something else with a colon."""
    place, _, attribute = source.partition(":")
    if not attribute.isidentifier():
        return False
    if place.endswith(".py"):
        return True
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return bool(re.fullmatch(r"[\w.]+", place)) and importlib.util.find_spec(place) is not None
    except (ImportError, ValueError):
        return False


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no file {path}: give module:attribute or path/to/file.py:attribute")
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module
