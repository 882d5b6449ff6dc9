"""Finds the content folders (`prompts`, `retrieval`, `conversations/plain`): in the installed package, else in the checkout."""

from __future__ import annotations

from pathlib import Path

from empathy_agent.errors import ModelError

PACKAGE = Path(__file__).parent


def find_content(name: str) -> Path:
    """Returns the folder `name` (such as `prompts` or `retrieval/exemplars`) that ships with the package.

    Raises:
        ModelError: Neither the installed package nor a checkout around it has the folder.
    """
    for folder in (PACKAGE / "_shipped" / name, PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ModelError(
        f"the content folder {name!r} is missing: install the package again from a wheel or a whole checkout"
    )


def find_weights(name: str) -> Path:
    """Returns the folder of the shipped weights `name` (`nano`, `experts`, `heads`), which may not exist yet."""
    return PACKAGE / "weights" / name
