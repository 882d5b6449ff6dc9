"""Encodes a chat with any tokenizer's template so that nobody can forge a role: contents never become control tokens."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from empathy_agent.errors import ModelError
from empathy_agent.turns import Turn, clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ue000{}\ue001"  # private-use characters that stand for a content while the template is filled
# Switching control tokens on and off is state of the tokenizer: two threads would encode each other's text wrongly.
_encoding = threading.Lock()
_MARKED = re.compile("\ue000(\\d+)\ue001")
_LONGEST_TOKEN = 32  # characters; texts beyond this many times the room for tokens need not be encoded to be left out


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, reply_follows: bool
) -> list[tuple[list[int], int | None]]:
    """Encodes `turns` with the tokenizer's chat template.

    The template is filled with marks in place of contents, its own text is encoded with control tokens and each content
    without them. A template that knows no system role gets the system text in front of the first user turn.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: The conversation, system turn first if there is one.
        reply_follows: Whether the prompt for an assistant's reply is added at the end.

    Returns:
        Pieces of token ids in order, each with the index of the turn whose content it is, or None for the template's own.

    Raises:
        ModelError: There is no chat template, or it refuses these roles.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: choose a chat or instruct model, "
            "or add chat_template.jinja to its folder"
        )
    marked = [{"role": turn["role"], "content": _MARK.format(i)} for i, turn in enumerate(turns)]
    text = _fill_template(tokenizer, marked, reply_follows)
    if text is None and len(marked) > 1 and marked[0]["role"] == "system":
        system, first, *rest = marked
        folded = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        text = _fill_template(tokenizer, folded, reply_follows)
    if text is None:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ModelError(
            f"the chat template of {tokenizer.name_or_path} refuses or leaves out one of these turns: {roles}"
        )
    with _encoding:
        return _encode_pieces(tokenizer, turns, text)


def _encode_pieces(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], text: str
) -> list[tuple[list[int], int | None]]:
    pieces: list[tuple[list[int], int | None]] = []
    for position, part in enumerate(_MARKED.split(text)):
        if position % 2:
            index = int(part)
            content = _MARKED.sub("", clean_text(turns[index]["content"]).strip())
            pieces.append((_encode_content(tokenizer, content), index))
        elif part:
            pieces.append((tokenizer(part, add_special_tokens=False)["input_ids"], None))
    return pieces


def encode_prompt(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], room: int) -> list[int]:
    """Encodes a prompt of at most `room` tokens, leaving out the oldest turns but never the system and the last turn.

    A last turn that alone does not fit loses its middle.
    """
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    rest = _keep_recent(turns[len(system) :], room)
    pieces = encode_chat(tokenizer, [*system, *rest], reply_follows=True)
    while (excess := _count(pieces) - room) > 0 and len(rest) > 1:
        sizes, at = [0] * (len(system) + len(rest)), 0
        for ids, index in pieces:  # a turn left out takes the template's text behind it along
            at = at if index is None else index
            sizes[at] += len(ids)
        gone = 0
        while gone < len(rest) - 1 and (excess > 0 or rest[gone]["role"] == "assistant"):
            excess -= sizes[len(system) + gone]
            gone += 1
        rest = rest[max(gone, 1) :]
        pieces = encode_chat(tokenizer, [*system, *rest], reply_follows=True)
    # What alone is too long loses its middle: the last turn first, then the system text.
    kept = [*system, *rest]
    for at in range(len(kept) - 1, -1, -1):
        text = kept[at]["content"]
        while _count(pieces) > room and len(text) > 20:
            text = f"{text[: len(text) * 2 // 5]} … {text[-(len(text) * 2 // 5) :]}"
            kept[at] = Turn(role=kept[at]["role"], content=text)
            pieces = encode_chat(tokenizer, kept, reply_follows=True)
    return [token for ids, _ in pieces for token in ids][-room:]


def _keep_recent(turns: Sequence[Turn], room: int) -> list[Turn]:
    """The last turns that could fit into `room` tokens at all, so that a thread of any length costs the same to encode."""
    kept, left = 1, room * _LONGEST_TOKEN - len(turns[-1]["content"]) if turns else 0
    while kept < min(len(turns), room) and (left := left - len(turns[-kept - 1]["content"])) > 0:
        kept += 1
    rest = list(turns[-kept:])
    while 1 < len(rest) < len(turns) and rest[0]["role"] == "assistant":
        rest = rest[1:]
    return rest


def _fill_template(tokenizer: PreTrainedTokenizerBase, marked: list[dict[str, str]], reply_follows: bool) -> str | None:
    """Fills the template; None where it refuses the roles or leaves a content out."""
    try:
        # Templates of models that can think aloud know the last argument; others ignore it.
        text = tokenizer.apply_chat_template(
            marked, tokenize=False, add_generation_prompt=reply_follows, enable_thinking=False
        )
    except Exception:
        return None
    kept = {int(index) for index in _MARKED.findall(str(text))}
    return str(text) if kept == {int(i) for turn in marked for i in _MARKED.findall(turn["content"])} else None


def find_turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the control token with which the template ends an assistant's turn, which need not be the tokenizer's end token."""
    turns = [Turn(role="user", content="a"), Turn(role="assistant", content="b"), Turn(role="user", content="c")]
    try:
        pieces = encode_chat(tokenizer, turns, reply_follows=False)
    except ModelError:
        return None
    after = next(i for i, (_, index) in enumerate(pieces) if index == 1) + 1
    first = pieces[after][0][0] if after < len(pieces) and pieces[after][0] else None
    added = tokenizer.added_tokens_decoder.get(first)
    return first if added is not None and added.special else None


def find_invocation(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the tokens that the template writes before every assistant's content, which invoke an activated adapter.

    Raises:
        ModelError: The template writes nothing there.
    """
    user, reply = Turn(role="user", content="a"), Turn(role="assistant", content="b")
    before, asked, answered = (
        [token for piece, _ in encode_chat(tokenizer, turns, reply_follows=follows) for token in piece]
        for turns, follows in (([user], False), ([user], True), ([user, reply], False))
    )
    tokens = asked[len(before) :]
    # A prompt for a reply may say more than the template writes before one of the past, such as an empty thought.
    while tokens and not any(answered[i : i + len(tokens)] == tokens for i in range(len(answered))):
        tokens = tokens[:-1]
    if not tokens:
        raise ModelError(
            f"the chat template of {tokenizer.name_or_path} opens replies with nothing: train a plain adapter"
        )
    return tokens


def _encode_content(tokenizer: PreTrainedTokenizerBase, content: str) -> list[int]:
    """Encodes text so that no added token comes of it, whether the tokenizer calls that token special or not."""
    ids: list[int] = tokenizer(content, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    added = tokenizer.get_added_vocab()
    if not set(ids) & set(added.values()):
        return ids
    spelled = "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True) if len(token) > 1)
    cuts = [0, *(match.start() + 1 for match in re.finditer(spelled, content) if spelled), len(content)]
    parts = [
        tokenizer(content[start:end], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for start, end in pairwise(cuts)
    ]
    whole = [token for part in parts for token in part]
    if not set(whole) & set(added.values()):
        return whole
    # Tokens that overlap, or that the tokenizer finds in other spellings: no token of several characters is left.
    single = [tokenizer(letter, add_special_tokens=False, split_special_tokens=True)["input_ids"] for letter in content]
    return [token for letter in single for token in letter]


def _count(pieces: list[tuple[list[int], int | None]]) -> int:
    return sum(len(ids) for ids, _ in pieces)
