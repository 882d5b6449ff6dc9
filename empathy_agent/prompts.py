"""Loads the Markdown prompts under `prompts/` and fills their `$names`, strictly."""

from __future__ import annotations

from functools import lru_cache
from string import Template

from empathy_agent.content import find_content
from empathy_agent.errors import InputError


@lru_cache
def load_prompt(name: str) -> Template:
    """Reads `prompts/<name>.md`.

    Raises:
        InputError: There is no such prompt; the message lists those that exist.
    """
    folder = find_content("prompts")
    known = {path.stem: path for path in sorted(folder.glob("*.md"))}
    if name not in known:  # looked up, not joined, so that no name leads out of the folder
        raise InputError(f"no prompt {name!r} in {folder}: there are {', '.join(known)}")
    return Template(known[name].read_text(encoding="utf-8").strip())


def write_prompt(name: str, /, **values: object) -> str:
    """Fills the prompt `name`.

    Raises:
        InputError: Names are missing or not used; the message holds all of them at once.
    """
    template = load_prompt(name)
    wanted = set(template.get_identifiers())
    if wanted != set(values):
        missing, unused = sorted(wanted - set(values)), sorted(set(values) - wanted)
        raise InputError(f"prompt {name!r}: missing {missing or 'none'}, not used {unused or 'none'}")
    return template.substitute({key: str(value) for key, value in values.items()})
