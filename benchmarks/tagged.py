"""A real worker whose replies say which message they answer, so that one that reaches another conversation is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from benchmarks.scripted import TAG, script_engine
from benchmarks.subjects import build_peft, load_tokenizer
from empathy_agent import EmpathyEngine, ExpertChatModel, Settings
from empathy_agent.honesty import remove_claims
from empathy_agent.turns import clean_text

CONTEXT = 384  # tokens


class TaggedExpert(ExpertChatModel):
    """Says the tag of the message that it answers, and then what the worker makes of the conversation without system prompt."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any
    ) -> Iterator[ChatGenerationChunk]:
        tag = ChatGenerationChunk(message=AIMessageChunk(content=find_tag(messages)))
        if run_manager:
            run_manager.on_llm_new_token(tag.text, chunk=tag)
        yield tag
        yield from super()._stream(drop_system(messages), stop, run_manager, **given)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **given: Any) -> ChatResult:
        result = super()._generate(drop_system(messages), stop, run_manager, **given)
        message = result.generations[0].message
        message.content = f"{find_tag(messages)}{message.text}"
        return result


def find_tag(messages: Any) -> str:
    """The last tag of the last message."""
    return str(TAG.findall(str(messages[-1].text))[-1])


def drop_system(messages: Any) -> list[Any]:
    """All but the system prompt, whose exemplars are not in a thread's messages."""
    return [message for message in messages if message.type != "system"]


def build_engine(**limits: int) -> EmpathyEngine:
    """Scripted readings over a worker of a tiny random model, the same in every process, whose replies depend on the prompt."""
    import torch

    from empathy_agent.models import LocalModel
    from empathy_agent.stacking import stack_adapters
    from empathy_agent.worker import Worker

    model = build_peft(smallest=True).float()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3 if "lora_" in name else 0.15)
    stacked, rows = stack_adapters(model)
    worker = Worker(LocalModel("soak", stacked.eval(), load_tokenizer(), rows, CONTEXT), **limits)
    return script_engine(TaggedExpert.from_worker(worker))


def compare_replies(sample: list[tuple[list[Any], Any]], settings: Settings) -> int:
    """Counts replies that are not what their expert writes to the same conversation when it does nothing else."""
    engine, others = build_engine(max_rows=1, kept_bytes=0), 0
    for before, reply in sample:
        alone = engine.bind_expert(reply.response_metadata["adapter"], settings, settings.seed).invoke(before)
        others += remove_claims(clean_text(str(alone.text)).strip()) != reply.text
    cast(TaggedExpert, engine.chat_model).worker.close()
    return others
