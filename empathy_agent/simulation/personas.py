"""Users whom a model plays from a persona: what the model is told, and how user turns are got from a model that writes replies.

Any chat model writes assistant turns. To write user turns it is shown the conversation from the other side: the system prompt
says who it is, the app's replies come as user turns and its own earlier messages as assistant turns, and a fixed greeting stands
before the first, since templates want a user turn there. The adapter `user` is to be trained on exactly this: for a written
conversation `show_other_side({"who": its persona, "wants": its theme}, its turns)`, with loss on the assistant turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from empathy_agent.prompts import write_prompt
from empathy_agent.settings import Settings
from empathy_agent.simulation.apps import derive_seed
from empathy_agent.simulation.calling import run_in_thread
from empathy_agent.turns import Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from empathy_agent.engine import EmpathyEngine

ADAPTER = "user"  # name of the adapter that plays users
DISCLOSES_AT = 3  # the user message in which what a persona hides comes out, unless it says `discloses_at`
LOOKS_BACK = 12  # turns that a user is shown
LONGEST = 80  # tokens of a message
TEMPERATURE = 0.8
MOODS = {25: "about to give up on it", 45: "doubtful", 70: "going along", 101: "glad to be understood"}
_PREFIX = re.compile(r"^\s*(?:user|me|you)\s*:\s*", re.IGNORECASE)


def show_other_side(persona: Mapping[str, Any], turns: Sequence[Mapping[str, str]]) -> list[Turn]:
    """The chat in which the user's next message is the assistant's: system prompt, greeting, then all turns with roles swapped.

    Args:
        persona: `who` the user is and what it `wants`, and optionally how it `talks`.
        turns: The conversation so far, user turn first; empty before the opening.
    """
    who = "; ".join(str(persona[name]) for name in ("who", "talks") if persona.get(name))
    system = write_prompt("user", who=who.rstrip(". "), wants=str(persona["wants"]).rstrip(". "))
    swapped: list[Turn] = [
        Turn(role="system", content=system),
        Turn(role="user", content=write_prompt("user_greeting")),
    ]
    for turn in turns:
        swapped.append(Turn(role="assistant" if turn["role"] == "user" else "user", content=turn["content"]))
    return swapped


def list_hidden(persona: Mapping[str, Any]) -> list[str]:
    """What a persona keeps to itself at first: `hides` is one text or a list."""
    hides = persona.get("hides") or []
    return [hides] if isinstance(hides, str) else list(hides)


def find_disclosed(persona: Mapping[str, Any], number: int) -> tuple[list[str], str | None]:
    """What was told before user message `number` (from 1), and what is told in it: one thing every second message.

    >>> persona = {"hides": ["she lost her job", "it was her fault"], "discloses_at": 2}
    >>> [find_disclosed(persona, number)[1] for number in range(1, 6)]
    [None, 'she lost her job', None, 'it was her fault', None]
    """
    first = int(persona.get("discloses_at") or DISCLOSES_AT)
    due = {first + 2 * i: thing for i, thing in enumerate(list_hidden(persona))}
    return [thing for at, thing in due.items() if at < number], due.get(number)


def name_mood(emotion: float) -> str:
    """The words in which a user is told its emotion.

    >>> name_mood(40.0)
    'doubtful'
    """
    return next(words for above, words in MOODS.items() if emotion < above)


def write_details(persona: Mapping[str, Any], number: int, emotion: float | None) -> str:
    """What a model that was not trained to play users is told beyond who it is and what it wants."""
    told, _ = find_disclosed(persona, number)
    examples = [persona.get("opening"), *persona.get("lines", [])]
    parts = {
        "You are pleased by": persona.get("pleases"),
        "You are put off by": persona.get("puts_off"),
        "You have told already": "; ".join(told),
        "How you write": " / ".join(f"“{line}”" for line in examples if line),
        "So far you are": name_mood(emotion) if emotion is not None else None,
    }
    said = [f"{name}: {str(value).rstrip('. ')}." for name, value in parts.items() if value]
    return write_prompt("user_details", details="\n".join(said))


class PersonaUser:
    """A user whom a chat model plays. The first message is the persona's `opening`, where it has one.

    Args:
        persona: A row like those of `conversations/personas.jsonl`; `who` and `wants` are needed, the rest is optional.
        bind: Gives the chat model for a seed.
        name: What plays the user, for the record.
        trained: Whether the model is the adapter, which knows only what it was trained on and is told no details.
    """

    def __init__(self, persona: Mapping[str, Any], bind: Callable[[int], Any], *, name: str, trained: bool = False):
        self.persona, self.name, self._bind, self._trained = persona, name, bind, trained

    async def __call__(
        self,
        trajectory: Sequence[Mapping[str, str]],
        *,
        thread_id: str,
        turn_counter: int,
        emotion: float | None = None,
        attempt: int = 0,
    ) -> dict[str, Any]:
        """Writes the next message, in a thread."""
        seed = derive_seed(1000 * attempt + turn_counter + 1, f"{thread_id} user")
        return await run_in_thread(self.write, trajectory, turn_counter, emotion, seed, attempt)

    def write(
        self,
        trajectory: Sequence[Mapping[str, str]],
        turn_counter: int,
        emotion: float | None,
        seed: int,
        attempt: int = 0,
    ) -> dict[str, Any]:
        """Writes the message that follows `trajectory`.

        Returns:
            {`content`, `disclosed`: what the user was to tell in it, or None}.
        """
        number = turn_counter + 1
        tells = find_disclosed(self.persona, number)[1]
        if not trajectory and not attempt and self.persona.get("opening"):
            return {"content": self.persona["opening"], "disclosed": None}
        answer = self._bind(seed).invoke(self.build_chat(trajectory, number, emotion))
        return {"content": clean_message(str(answer.text)), "disclosed": tells}

    def build_chat(self, trajectory: Sequence[Mapping[str, str]], number: int, emotion: float | None) -> list[Any]:
        """The messages that the model answers with user message `number`."""
        from langchain_core.messages import convert_to_messages

        system, *turns = show_other_side(self.persona, trajectory)
        if len(turns) > LOOKS_BACK:  # from an app's reply on, so that roles still alternate
            turns = turns[-LOOKS_BACK + 1 :] if len(turns) % 2 else turns[-LOOKS_BACK:]
        tells = find_disclosed(self.persona, number)[1]
        parts = [system["content"]]
        parts += [] if self._trained else [write_details(self.persona, number, emotion)]
        parts += [write_prompt("user_tells", tells=tells.rstrip(". "))] if tells else []
        return convert_to_messages([{"role": "system", "content": "\n".join(parts)}, *map(dict, turns)])


def clean_message(text: str) -> str:
    """A model's message without the role it may write in front and quotation marks around the whole.

    >>> clean_message('User: "Something shorter, please."')
    'Something shorter, please.'
    """
    text = _PREFIX.sub("", text).strip()
    for opens, closes in ('""', "“”"):
        if len(text) > 2 and text[0] == opens and text[-1] == closes and opens not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def model_user(chat_model: BaseChatModel, persona: Mapping[str, Any]) -> PersonaUser:
    """A user whom any LangChain chat model plays; it should sample, or every session of a persona is the same."""
    name = str(
        getattr(chat_model, "model_name", None) or getattr(chat_model, "model", None) or type(chat_model).__name__
    )
    return PersonaUser(persona, lambda seed: chat_model, name=name)


def local_user(engine: EmpathyEngine, persona: Mapping[str, Any]) -> PersonaUser:
    """A user whom the engine's base plays through its `user` adapter, or by the persona prompt alone where there is none."""
    trained = ADAPTER in engine.experts
    settings = Settings(temperature=TEMPERATURE, max_new_tokens=LONGEST)

    def bind(seed: int) -> Any:
        return engine.bind_expert(ADAPTER if trained else None, settings, seed)

    return PersonaUser(persona, bind, name=describe_local(engine), trained=trained)


def describe_local(engine: EmpathyEngine) -> str:
    """Names what plays local users."""
    return f"adapter {ADAPTER}" if ADAPTER in engine.experts else f"base without adapter {ADAPTER}"
