"""`EmpathyEngine`: everything heavy, loaded at first use and shared per process. State and settings never hold it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from empathy_agent.content import find_weights
from empathy_agent.errors import InputError
from empathy_agent.tasks import DEFAULT_TASKS, SAMPLED, Tasks, load_tasks
from empathy_agent.worker import check_limits
from empathy_agent.workers import get_worker, loading, release_worker

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import Runnable
    from langchain_core.vectorstores import VectorStore

    from empathy_agent.encoder import Encoder
    from empathy_agent.exemplar_store import StoredExemplars
    from empathy_agent.exemplars import ExemplarIndex
    from empathy_agent.experts import ExpertChatModel
    from empathy_agent.heads import Head
    from empathy_agent.safety import Screen
    from empathy_agent.settings import Settings

HEADS = ("task", "need", "judge", "danger")


class EmpathyEngine:
    """The models behind a graph. Building one is instant; each part is loaded when it is first used.

    Args:
        model: Folder or hub id of a causal language model with a chat template; None is the shipped `empathy-nano`.
        adapters: Folder with one LoRA adapter per expert.
        base_url: OpenAI-compatible server that serves `model` and the experts by name, in place of a local worker.
        served_as: Names under which the server serves experts, where they are not the experts' own.
        fallback: Chat model that writes while that server does not answer, such as `ExpertChatModel()`.
        screen: A larger classifier of danger, beside the shipped one: takes the turns and returns a category of
            `safety.CATEGORIES` with the probability of danger. The higher of both decides.
        chat_model: Any LangChain chat model that writes the replies instead; experts then are prompts.
        encoder: Folder or hub id of a sentence-transformers model; None is the shipped all-MiniLM-L6-v2.
        heads: Folder of the heads of task, need, judge and danger.
        tasks: Path of a task table.
        exemplars: Folder of exemplars, or a LangChain vector store of them (see `exemplar_store.py`).
        cache: Folder of built indexes.
        max_rows: Replies that the local worker writes side by side; None takes what it runs with, or 32.
        max_queued: Requests that may wait for it before one is refused with `OverloadedError`; None likewise, or 512.
        kept_bytes: Memory for what it made of earlier turns, 0 for none; None likewise, or 256 MiB.

    Raises:
        InputError: The task table cannot be used, or a limit is out of bounds. Limits belong to the worker, which all
            engines of one base and folder of adapters share: others than it runs with are refused when it is first used.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        adapters: str | None = None,
        base_url: str | None = None,
        served_as: Mapping[str, str] | None = None,
        fallback: BaseChatModel | None = None,
        screen: Screen | None = None,
        chat_model: BaseChatModel | None = None,
        encoder: str | None = None,
        heads: Path | str | None = None,
        tasks: Path | str = DEFAULT_TASKS,
        exemplars: Path | str | VectorStore | None = None,
        cache: Path | str | None = None,
        max_rows: int | None = None,
        max_queued: int | None = None,
        kept_bytes: int | None = None,
    ):
        self.model, self.adapters, self.base_url, self._chat_model = model, adapters, base_url, chat_model
        self._encoder, self._heads = encoder, Path(heads) if heads else find_weights("heads")
        self._exemplars, self._cache = exemplars, cache
        self.tasks: Tasks = load_tasks(tasks)
        self.fallback, self.screen = fallback, screen
        self._served_as = {name: name for name in self.tasks.patterns} | dict(served_as or {})
        limits = {"max_rows": max_rows, "max_queued": max_queued, "kept_bytes": kept_bytes}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        check_limits(**self._limits)
        self.closed, self._holder = False, object()

    @cached_property
    def encoder(self) -> Encoder:
        """The sentence encoder."""
        with loading:
            return get_encoder(self._encoder)

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """The encoder of each head: through its LoRA adapter where the folder of heads has one, else the plain one."""
        adapters = {name: self._heads / name for name in HEADS}
        plain = self.encoder
        with loading:
            return {
                name: get_encoder(self._encoder, adapter) if adapter.is_dir() else plain
                for name, adapter in adapters.items()
            }

    @cached_property
    def heads(self) -> dict[str, Head]:
        """The heads `task`, `need`, `judge` and `danger`."""
        from empathy_agent.heads import load_head

        return {
            name: load_head(self._heads / f"{name}.safetensors", encoder.fingerprint)
            for name, encoder in self.encoders.items()
        }

    @cached_property
    def exemplars(self) -> ExemplarIndex | StoredExemplars:
        """The index of exemplars, or the store that was given."""
        if self._exemplars is not None and not isinstance(self._exemplars, (str, Path)):
            from empathy_agent.exemplar_store import StoredExemplars

            return StoredExemplars(self._exemplars)
        from empathy_agent.exemplars import build_index

        encoder = self.encoder
        with loading:
            folder = Path(self._exemplars) if self._exemplars else None
            return build_index(encoder, folder, Path(self._cache) if self._cache else None)

    @cached_property
    def chat_model(self) -> BaseChatModel:
        """The chat model that writes replies.

        Raises:
            InputError: The engine was closed.
        """
        self._check_open()
        if self._chat_model is not None:
            return self._chat_model
        if self.base_url:
            return self._server[0]
        from empathy_agent.experts import ExpertChatModel

        worker = get_worker(self.model, self.adapters, self._holder, **self._limits)
        self._check_open()
        return ExpertChatModel.from_worker(worker)

    @property
    def experts(self) -> list[str]:
        """Names of the expert adapters that can answer; empty where replies come from prompts."""
        if self._chat_model is None and self.base_url:
            return list(self._server[1])
        return _list_adapters(self.chat_model)

    @property
    def fallback_experts(self) -> list[str]:
        """Names of the expert adapters of the fallback."""
        return _list_adapters(self.fallback)

    def bind_expert(
        self, adapter: str | None, settings: Settings, seed: int, fallback: bool = False
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Returns the chat model, or the fallback, set to answer with `adapter`, or with the bare base."""
        chat_model = self.fallback if fallback and self.fallback else self.chat_model
        sampled = self._sample(adapter, settings)
        if getattr(chat_model, "worker", None):
            return chat_model.bind(adapter=adapter or "", max_new_tokens=settings.max_new_tokens, seed=seed, **sampled)
        if self._chat_model is None and chat_model is not self.fallback:
            return chat_model.bind(
                temperature=sampled["temperature"],
                top_p=sampled["top_p"],
                max_tokens=settings.max_new_tokens,
                seed=seed,
                **({"model": self._server[1][adapter]} if adapter else {}),
            )
        return chat_model

    @property
    def writes_candidates(self) -> bool:
        """Whether several candidates of a reply cost one batch: so with a local model, but not with others' chat models."""
        return getattr(self.chat_model, "worker", None) is not None

    def write_candidates(
        self, messages: LanguageModelInput, adapter: str | None, settings: Settings
    ) -> list[AIMessage]:
        """Writes `settings.candidates` replies in one batch; the prompt is read once."""
        model = cast("ExpertChatModel", self.chat_model)
        return model.generate_candidates(
            messages,
            settings.candidates,
            adapter=adapter or "",
            max_new_tokens=settings.max_new_tokens,
            seed=settings.seed,
            **self._sample(adapter, settings),
        )

    def _sample(self, adapter: str | None, settings: Settings) -> dict[str, Any]:
        """How a reply of `adapter` is sampled: as the task table says, with the caller's own temperature if there is one."""
        decoding = self.tasks.get_decoding(adapter)
        heat = {} if settings.temperature is None else {"temperature": settings.temperature}
        return {name: getattr(decoding, name) for name in SAMPLED} | heat

    def describe_model(self) -> str:
        """Names the model that writes and where it runs."""
        model: Any = self.chat_model
        if worker := getattr(model, "worker", None):
            size = sum(parameter.numel() for parameter in worker.local.model.parameters()) / 1e6
            return f"{worker.local.name}, {size:.1f} million parameters, context of {worker.local.context} tokens"
        return f"{type(model).__name__} at {self.base_url}" if self.base_url else type(model).__name__

    @cached_property
    def _server(self) -> tuple[BaseChatModel, dict[str, str]]:
        from empathy_agent.server import connect_server

        return connect_server(str(self.base_url), self.model, self._served_as)

    def hash_weights(self) -> str:
        """A short hash of the weights of a local base, its adapters and the heads; only of the heads where others write."""
        folders = [self._heads]
        if self._chat_model is None and not self.base_url:
            base = Path(self.model) if self.model else find_weights("nano")
            folders += [base, Path(self.adapters)] if self.adapters else [base]
            folders += [] if self.model or self.adapters else [find_weights("experts")]
        digest = hashlib.sha256(str(self.model).encode())
        for path in sorted(path for folder in folders for path in folder.rglob("*.safetensors")):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]

    def load(self) -> None:
        """Loads every part now, so that the first turn does not wait."""
        _ = self.heads, self.exemplars, self.fallback_experts if self.fallback else self.chat_model

    def close(self) -> None:
        """Lets go of the local worker, which ends unless others use it, and writes no more; may be called twice."""
        self.closed = True
        self.__dict__.pop("chat_model", None)
        release_worker(self._holder)

    def _check_open(self) -> None:
        if self.closed:
            release_worker(self._holder)  # where it was closed while the worker was being loaded
            raise InputError("the engine is closed: make a new one")


def _list_adapters(chat_model: BaseChatModel | None) -> list[str]:
    worker = getattr(chat_model, "worker", None)
    return worker.local.adapters if worker else []


@lru_cache(maxsize=4)
def get_encoder(model: str | None, adapter: Path | None = None) -> Encoder:
    """Returns the process's encoder for a folder or hub id, with an adapter merged into it if one is named."""
    from empathy_agent.encoder import Encoder

    return Encoder(model, adapter)


_default: list[EmpathyEngine] = []
_choosing = threading.Lock()


def get_engine() -> EmpathyEngine:
    """Returns the process's default engine, a new one after it was closed."""
    with _choosing:
        if not _default or _default[0].closed:
            _default[:] = [EmpathyEngine()]
        return _default[0]
