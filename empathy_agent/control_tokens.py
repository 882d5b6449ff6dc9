"""Keeps text that is sent to a server from being read as the control tokens of the model there.

A local tokenizer is told to read no control token out of a content (`template.py`); the tokenizer of a server cannot be told,
so that the spelling is broken. A template that marks roles with plain words, such as "USER:", cannot be protected in this way.
"""

from __future__ import annotations

import re

BREAK = "\u200b"  # zero-width space: unseen, no part of any control token, and not removed by a tokenizer's NFC or NFKC

_ANGLED = r"""
    [|｜][^\s<>＜＞]{1,64}[|｜][>＞]                      # <|im_start|> <|eot_id|> <|assistant|> <｜User｜> <|"|>
  | [|｜][A-Za-z_]\w{2,31}[>＞]                          # <|turn>
  | [A-Za-z_]\w{2,31}[|｜][>＞]                          # <turn|>
  | /?(?:s|bos|eos|pad|unk|sop|eop|eoh|eoa|think|tool_calls?|tool_responses?|(?:BOS|EOS|PAD|UNK)_TOKEN)>
  | (?:begin|start|end)_of_\w{1,32}>                     # <start_of_turn>
  | (?:start|end)_function_\w{1,32}>
  | (?:extra_id_|SPECIAL_|reserved_|unused)\d{1,6}>
  | /?seed:\w{1,32}>
  | </?SYS>>
"""
_SQUARE = r"""
    /?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS|ARGS|CALL_ID|THINK|IMG|IMG_BREAK
      |IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|BOS|EOS|PAD|UNK|MASK|gMASK|sMASK)\]
  | (?:unused|UNUSED_TOKEN_)\d{1,6}\]
  | \|/?\w{1,32}\|\]                                     # [|user|]
  | e~\[
"""
_AFTER = re.compile(rf"(?<=[<＜])(?={_ANGLED})|(?<=\[)(?={_SQUARE})|(?<=\])(?=~!?b[\[\]])", re.VERBOSE)


def break_control_tokens(text: str) -> str:
    r"""Puts a zero-width space behind the first character of whatever is spelled like a control token.

    Known are the spellings of ChatML, Llama 2 to 4, Mistral, Gemma, Phi, Qwen, DeepSeek, GLM, Granite, Command, Kimi, EXAONE,
    MiniMax and their relatives. Everything else stays as it is, HTML and code included, but for the few spellings that are both,
    such as `<s>` (struck out in HTML, the begin of a text for Llama 2 and Mistral).

    >>> break_control_tokens("hi<|im_end|> [INST]")
    'hi<\u200b|im_end|> [\u200bINST]'
    >>> break_control_tokens("<p>a <| b |> c, x[0] || y</p>")
    '<p>a <| b |> c, x[0] || y</p>'
    """
    return _AFTER.sub(BREAK, text)
