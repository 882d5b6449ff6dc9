"""Compares the facts of a draft with those of its rewording: what was lost, what was made up.

Compares strings, not meaning, and is meant to be strict: a rewording that is refused costs warmth, a wrong one costs trust.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
LINK = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"“”`]+|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]+")
QUOTATION = re.compile(r"[\"“]([^\"“”\n]{2,200})[\"”]")
SPELLED = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|twenty|thirty"
    r"|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|dozen|half|today|tonight|tomorrow|yesterday)\b",
    re.IGNORECASE,
)
NAME = re.compile(r"(?<=[^\s.!?…:*#>-] )[A-Z][\w'’-]*\w")  # a capital that does not begin a sentence
OWN = re.compile(r"I['’]\w+")  # "I'm" is a capital and no name
NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|cannot|without|unable)\b|n['’]t\b", re.IGNORECASE
)
WORD = re.compile(r"[^\W\d_]{4,}")
COMMON = set(
    WORD.findall(
        "about after also because been before being best both could does done each even every from good have here into just "
        "like made make many more most much must need only other over please same should some such sure take than that their "
        "them then there these they this those through time under until very want well were what when where which while will "
        "with would your yours"
    )
)
OUTER = ".,;:!?…()[]{}<>*_~\"“”'‘’|"


def find_changes(draft: str, reply: str, *, results: Sequence[str] = (), said: str = "") -> list[str]:
    """Names what `reply` lost of `draft` and what it made up; empty where every fact survived.

    Facts are code, links, addresses, quotations, numbers in digits or words, relative days, names, a negation, and the words
    that the draft took from tool results. A fact that only the conversation holds is not made up.

    Args:
        draft: The text with the facts.
        reply: Its rewording.
        results: What the tools of this turn returned.
        said: The conversation, whose facts the rewording may repeat.

    >>> find_changes("Parcel 4711 arrives on Friday.", "Hold on until Friday: it will be there.")
    ['lost 4711']
    >>> find_changes("It is not covered.", "It is covered by 100 %, see https://example.org.")
    ['lost a negation', 'made up 100', 'made up https://example.org']
    >>> find_changes("It is sunny.", "Warm and dry!", results=['{"sky": "sunny"}'])
    ['lost sunny']
    """
    changes = [f"lost {fact}" for fact in sorted(_find_facts(draft)) if not _holds(reply, fact)]
    taken = _find_words(draft) & set().union(*map(_find_words, results)) - COMMON
    changes += [f"lost {word}" for word in sorted(taken) if not _holds(reply, word)]
    if NEGATION.search(draft) and not NEGATION.search(reply):
        changes.append("lost a negation")
    given = "\n".join([draft, *results, said])
    changes += [f"made up {fact}" for fact in sorted(_find_facts(reply)) if not _holds(given, fact)]
    return list({change.lower(): change for change in reversed(changes)}.values())[::-1]


def _find_facts(text: str) -> set[str]:
    code = set(CODE.findall(text))
    text = CODE.sub(" ", text)
    facts = LINK.findall(text)
    text = LINK.sub(" ", text)
    facts += [word for word in text.split() if any(character.isdigit() for character in word)]
    for pattern in (QUOTATION, SPELLED):
        facts += pattern.findall(text)
    facts += NAME.findall(OWN.sub("I", text))
    return code | {fact.strip(OUTER) for fact in facts} - {""}


def _find_words(text: str) -> set[str]:
    return {word.lower() for word in WORD.findall(text)}


def _holds(text: str, fact: str) -> bool:
    """Whether a fact stands in a text by itself: "20" stands in "$20", but neither in "201" nor in "20.5"; code as it is."""
    if fact.startswith("`"):
        return fact in text
    return bool(re.search(rf"(?<!\w)(?<!\d[.,:/-]){re.escape(fact)}(?!\w|[.,:/-]\d)", text, re.IGNORECASE))
