"""The generative judge: any LangChain chat model reads a reply in its history by the rubric in `prompts/`.

It stands beside the learned judge (`judge.py`) and returns the same shape. A judgement that fails (no JSON, a number out of
range, a refusal, an error, a timeout) is a `JudgeFailure` with its cause, never a number. Loads no model and keeps no text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, final

from typing_extensions import TypedDict

from empathy_agent.errors import InputError
from empathy_agent.honesty import find_violations
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.nodes import HISTORY
from empathy_agent.prompts import write_prompt
from empathy_agent.state import Assessment
from empathy_agent.turns import LONGEST_MESSAGE, Turn
from empathy_agent.verdict import Cause, Verdict, VerdictError, build_schema, read_verdict

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig

UNSEEN: RunnableConfig = {
    "tags": ["nostream"]
}  # a judge that is asked within a graph must not write on the user's screen
Case = tuple[Sequence[Turn], str]  # a history and the reply to judge
Ask = Callable[[Any, "list[BaseMessage]"], Awaitable[Any]]


class Usage(TypedDict):
    """Tokens that the asked model reported, over all samples; zero where it reports none."""

    input_tokens: int
    output_tokens: int


@final
class Judgement(Assessment):
    """An assessment by a chat model, the mean of its samples.

    A dimension applies where it does in more than half of the samples. `over_empathy` is 0-2; `reason` is that of the sample
    nearest the mean level; `failures` are the causes of the samples that could not be read.
    """

    reason: str
    over_empathy: float
    samples: int
    failures: list[Cause]
    usage: Usage


@final
class JudgeFailure(TypedDict):
    """Why there is no judgement: `failure` is the cause of most samples, `detail` what was wrong with the first of them."""

    failure: Cause
    detail: str
    failures: list[Cause]
    usage: Usage


def judge_reply(
    chat_model: BaseChatModel, turns: Sequence[Turn], reply: str, *, samples: int = 1, timeout: float = 60
) -> Judgement | JudgeFailure:
    """Judges `reply` as the answer to `turns`; see `judge_replies`."""
    return judge_replies(chat_model, [(turns, reply)], samples=samples, timeout=timeout)[0]


async def ajudge_reply(
    chat_model: BaseChatModel, turns: Sequence[Turn], reply: str, *, samples: int = 1, timeout: float = 60
) -> Judgement | JudgeFailure:
    """`judge_reply` for callers with an event loop."""
    return (await ajudge_replies(chat_model, [(turns, reply)], samples=samples, timeout=timeout))[0]


def judge_replies(
    chat_model: BaseChatModel, cases: Sequence[Case], *, samples: int = 1, timeout: float = 60, concurrency: int = 8
) -> list[Judgement | JudgeFailure]:
    """Judges many replies, several at a time, through the model's synchronous `invoke`.

    Args:
        chat_model: Any LangChain chat model, set as it should judge. Samples differ only where its temperature is above zero; a
            fixed `seed` of it is raised by one a sample.
        cases: Histories with the reply to judge; system turns are left out.
        samples: How often each is asked (self-consistency, Wang et al. 2023). A judgement needs more than half of them readable.
        timeout: Seconds that one answer may take. A call that is given up goes on in its thread until the client ends it, so give
            the client a timeout as well.
        concurrency: Calls under way at once.

    Returns:
        In the order of `cases`: a `Judgement`, or a `JudgeFailure`, which has the key `failure`.

    Raises:
        InputError: `samples`, `timeout` or `concurrency` is not above zero.
    """

    def run() -> list[Judgement | JudgeFailure]:
        loop = asyncio.new_event_loop()
        # One thread may be needed per call, since one that is given up does not free its own.
        loop.set_default_executor(ThreadPoolExecutor(max(1, len(cases) * samples), thread_name_prefix="judge"))
        try:
            return loop.run_until_complete(_judge_all(chat_model, cases, _invoke, samples, timeout, concurrency))
        finally:
            loop.close()  # does not wait for threads whose call was given up

    _check_bounds(samples, timeout, concurrency)
    with ThreadPoolExecutor(1) as apart:  # the caller's thread may run a loop of its own
        return apart.submit(copy_context().run, run).result()


async def ajudge_replies(
    chat_model: BaseChatModel, cases: Sequence[Case], *, samples: int = 1, timeout: float = 60, concurrency: int = 8
) -> list[Judgement | JudgeFailure]:
    """`judge_replies` through the model's `ainvoke`; a call that takes too long is cancelled."""
    _check_bounds(samples, timeout, concurrency)
    return await _judge_all(chat_model, cases, _ainvoke, samples, timeout, concurrency)


def write_request(turns: Sequence[Turn], reply: str) -> tuple[list[BaseMessage], str]:
    """Writes what the model is asked, and the code that its answer must carry.

    History and reply are JSON strings in which `<` is escaped, so that no text can close its tag or begin a turn. The code is a
    hash of both, so that a reply cannot hold a finished answer for itself.
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    talk = [turn for turn in turns if turn["role"] != "system"][-HISTORY:]
    history = "\n".join(_quote({"role": turn["role"], "content": turn["content"][:LONGEST_MESSAGE]}) for turn in talk)
    quoted = _quote({"role": "assistant", "content": reply[:LONGEST_MESSAGE]})
    case = hashlib.sha256(f"{history}\n\n{quoted}".encode("utf-8", "replace")).hexdigest()[:8]
    request = write_prompt("judge_request", case=case, history=history, reply=quoted)
    return [SystemMessage(write_prompt("judge_rubric")), HumanMessage(request)], case


def combine_verdicts(outcomes: Sequence[Verdict | VerdictError], reply: str, usage: Usage) -> Judgement | JudgeFailure:
    """Means over the readable samples, or a failure where no more than half could be read."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, VerdictError)]
    good = [outcome for outcome in outcomes if not isinstance(outcome, VerdictError)]
    causes = [outcome.cause for outcome in failed]
    if 2 * len(good) <= len(outcomes):
        most = max(causes, key=causes.count)
        detail = next(str(outcome) for outcome in failed if outcome.cause == most)
        return JudgeFailure(failure=most, detail=detail, failures=causes, usage=usage)
    levels = [verdict["level"] for verdict in good]
    level = fmean(levels)
    dimensions: dict[str, float | None] = {}
    for name in DIMENSIONS:
        given = [value for verdict in good if (value := verdict["dimensions"][name]) is not None]
        dimensions[name] = round(fmean(given), 2) if 2 * len(given) > len(good) else None
    return Judgement(
        level=round(level, 4),
        dimensions=dimensions,
        mechanisms={name: round(fmean(verdict["mechanisms"][name] for verdict in good), 2) for name in MECHANISMS},
        uncertainty=round(stdev(levels), 4) if len(good) > 1 else None,
        violations=find_violations(reply),
        reason=min(good, key=lambda verdict: abs(verdict["level"] - level))["reason"],
        over_empathy=round(fmean(verdict["over_empathy"] for verdict in good), 2),
        samples=len(good),
        failures=causes,
        usage=usage,
    )


async def _judge_all(
    chat_model: BaseChatModel, cases: Sequence[Case], ask: Ask, samples: int, timeout: float, concurrency: int
) -> list[Judgement | JudgeFailure]:
    writers = [_prepare_model(chat_model, number) for number in range(samples)]
    free = asyncio.Semaphore(concurrency)

    async def judge(turns: Sequence[Turn], reply: str) -> Judgement | JudgeFailure:
        usage = Usage(input_tokens=0, output_tokens=0)
        if not reply.strip():
            empty: list[Verdict | VerdictError] = [VerdictError("empty_reply", "the reply has no text to judge")]
            return combine_verdicts(empty, reply, usage)
        request, case = write_request(turns, reply)

        async def sample(writer: Any) -> Verdict | VerdictError:
            async with free:
                try:
                    answer = await asyncio.wait_for(ask(writer, request), timeout)
                except TimeoutError:
                    return VerdictError("timeout", f"no answer within {timeout:g} seconds")
                except Exception as error:  # whatever a provider's client raises
                    return VerdictError("model", f"{type(error).__name__}: {error}")
            message, parsed = (answer["raw"], answer["parsed"]) if isinstance(answer, dict) else (answer, None)
            spent = getattr(message, "usage_metadata", None) or {}
            usage["input_tokens"] += spent.get("input_tokens", 0)
            usage["output_tokens"] += spent.get("output_tokens", 0)
            try:
                return read_verdict(message, parsed, case)
            except VerdictError as error:
                return error

        return combine_verdicts(await asyncio.gather(*map(sample, writers)), reply, usage)

    return list(await asyncio.gather(*(judge(turns, reply) for turns, reply in cases)))


def _prepare_model(chat_model: BaseChatModel, number: int) -> Any:
    """The model with structured output where it has that, and for sample `number` with a seed of its own where it has one."""
    seed = getattr(chat_model, "seed", None)
    if number and isinstance(seed, int):
        chat_model = chat_model.model_copy(update={"seed": seed + number})
    try:
        return chat_model.with_structured_output(build_schema(), include_raw=True)
    except Exception:  # NotImplementedError, or a model's own word for it: then plain JSON is asked for
        return chat_model


async def _invoke(writer: Any, request: list[BaseMessage]) -> Any:
    return await asyncio.to_thread(writer.invoke, request, UNSEEN)


async def _ainvoke(writer: Any, request: list[BaseMessage]) -> Any:
    return await writer.ainvoke(request, UNSEEN)


def _quote(turn: dict[str, str]) -> str:
    return json.dumps(turn, ensure_ascii=False).replace("<", "\\u003c")


def _check_bounds(samples: int, timeout: float, concurrency: int) -> None:
    for name, value in (("samples", samples), ("timeout", timeout), ("concurrency", concurrency)):
        if value <= 0:
            raise InputError(f"{name} is {value}: it must be above zero")
