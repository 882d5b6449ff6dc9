"""Makes conversations with a chat model, keeps those that pass the gates, and reports what was dropped and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empathy_agent.errors import InputError, ReplyError
from empathy_agent.synthesis import checking, schema, singles
from empathy_agent.synthesis.answers import read_answer
from empathy_agent.synthesis.corpus import Corpus
from empathy_agent.synthesis.filtering import Shelf
from empathy_agent.synthesis.limits import Limits
from empathy_agent.synthesis.planning import Plan, plan_conversations, write_request
from empathy_agent.synthesis.reporting import append_row, build_report, read_dropped, read_unfinished, write_report
from empathy_agent.tasks import Tasks, load_tasks

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from empathy_agent.encoder import Encoder

Row = dict[str, Any]
ATTEMPTS = 3  # answers that are asked for until one passes
WHOLE = ("count", "test share by task")  # gates that only a whole corpus can be held to
PATIENCE = 3  # failures of the model one after another after which the run stops


def synthesize_conversations(
    chat_model: BaseChatModel,
    *,
    tasks: Sequence[str],
    count: int,
    out: Path,
    personas: Sequence[Row],
    seed: int = 0,
    corpus: Corpus | None = None,
    profiles: Tasks | None = None,
    limits: Limits | None = None,
    encoder: Encoder | None = None,
    attempts: int = ATTEMPTS,
    on_done: Callable[[Plan, list[str]], None] = lambda plan, reasons: None,
) -> Row:
    """Makes `count` conversations a task and appends each to `out/<task>.jsonl` as soon as it has passed.

    A run into the same folder goes on: ids that are in its files are skipped. An answer that cannot be read or fails a gate
    is dropped and asked for again, up to `attempts` times; all drops are in `out/report.json`.

    Args:
        chat_model: Any LangChain chat model.
        tasks: Names of tasks.
        count: Conversations of each task, at least 1.
        out: Folder of the results.
        personas: Rows like those of `conversations/personas.jsonl`.
        seed: Decides personas, lengths and exemplars, and is part of the ids.
        corpus: Conversations that new ones must differ from, and exemplars for tone; None for neither.
        profiles: The task table, by default the shipped one.
        limits: Bounds of the gates.
        encoder: By default the shipped one.
        attempts: Answers asked for per conversation, at least 1.
        on_done: Called after every planned conversation with the reasons of its drops; the last reason counts.

    Returns:
        The report: `asked`, `kept`, `skipped` (there before), `missing` (ids), `dropped` ({id, attempt, reasons}),
        `reasons` (count by gate), `gates` (rows over the kept ones).

    Raises:
        InputError: A task, persona or number is not allowed, or a file in `out` cannot be gone on with.
        ReplyError: The chat model failed `PATIENCE` times one after another; what was kept stays, run again to go on.
    """
    from empathy_agent.encoder import Encoder

    if attempts < 1:
        raise InputError(f"attempts is {attempts}: it must be at least 1")
    profiles, limits = profiles or load_tasks(), limits or Limits()
    personas, found = singles.check_schema(personas, "personas", schema.find_persona_faults, profiles)
    if found[0].offenders:
        raise InputError(f"a persona cannot be used: {found[0].offenders[0]}")
    corpus = corpus or Corpus([], [])
    shipped = singles.check_schema(corpus.conversations, "", schema.find_conversation_faults, profiles)[0]
    exemplars = singles.check_schema(corpus.exemplars, "", schema.find_exemplar_faults, profiles)[0]
    plans = plan_conversations(tasks, count, seed, personas, exemplars, profiles)
    encoder = encoder or Encoder(remembered=100_000)
    shelf = Shelf(encoder, profiles, limits, shipped, exemplars)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(out.glob("*.jsonl")):
        for row in read_unfinished(path):
            if faults := schema.find_conversation_faults(row, profiles):
                raise InputError(
                    f"{path}: {row.get('id')!r} is no conversation of this corpus: {faults[0]}; name another --out"
                )
            shelf.keep(row)
    present = {row["id"] for row in shelf.kept}
    dropped = read_dropped(out)
    run: Row = {"seed": seed, "encoder": encoder.fingerprint, "skipped": len(present)}
    failures = 0
    for plan in plans:
        reasons: list[str] = []
        for attempt in range(1, attempts + 1) if plan.id not in present else ():
            conversation, reasons, failed = _ask(chat_model, plan, shelf, limits)
            failures = failures + 1 if failed else 0
            if conversation:
                shelf.keep(conversation)
                append_row(out / f"{plan.task}.jsonl", conversation)
                break
            dropped.append({"id": plan.id, "attempt": attempt, "reasons": reasons})
            write_report(out, build_report(run, plans, shelf.kept, dropped))
            if failures >= PATIENCE:
                raise ReplyError(f"the chat model failed {failures} times: {reasons[0]}; run the same again to go on")
        on_done(plan, reasons)
    gates = checking.check_conversations(shelf.kept, encoder, profiles, limits)
    report = build_report(run, plans, shelf.kept, dropped, [row for row in gates if row.name not in WHOLE])
    write_report(out, report)
    return report


def _ask(chat_model: BaseChatModel, plan: Plan, shelf: Shelf, limits: Limits) -> tuple[Row | None, list[str], bool]:
    """Asks once: the conversation, or why it was dropped and whether the model itself failed."""
    try:
        answer = str(chat_model.invoke(write_request(plan, limits)).text)
    except InputError:
        raise  # a prompt is broken, which asking again does not mend
    except Exception as error:  # whatever a provider's client raises
        return None, [f"model: {type(error).__name__}: {error}"], True
    try:
        conversation = read_answer(answer, plan)
    except InputError as error:
        return None, [f"parse: {error}"], False
    reasons = shelf.find_faults(conversation, plan.contrasted)
    return (None, reasons, False) if reasons else (conversation, [], False)
