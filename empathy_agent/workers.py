"""The workers of this process: one per base and folder of adapters, shared by every engine and chat model that names the same.

Each engine holds its worker until it is closed; the worker ends when its last holder is. A chat model that was made without
an engine cannot be closed and holds its worker as long as the process runs.
"""

from __future__ import annotations

import threading

from empathy_agent.errors import InputError
from empathy_agent.worker import Worker, check_limits

loading = threading.RLock()
"""Held while a model is loaded: transformers changes settings of the process meanwhile."""

_workers: dict[tuple[str | None, str | None], tuple[Worker, set[object]]] = {}


def get_worker(model: str | None, adapters: str | None, holder: object = None, **limits: int) -> Worker:
    """Returns the process's worker for a base and a folder of adapters, and starts it where there is none.

    Args:
        model: Folder or hub id of the base; None is `empathy-nano`.
        adapters: Folder with one adapter per expert; None is as for `load_model`.
        holder: Who uses it until `release_worker`; None stands for chat models without an engine.
        **limits: Any of `max_rows`, `max_queued` and `kept_bytes` of `Worker`.

    Raises:
        InputError: A limit is out of bounds, or the worker runs with another.
        ModelError: The model cannot be loaded.
    """
    check_limits(**limits)
    with loading:
        worker, holders = _workers.get((model, adapters), (None, set()))
        if worker is None or not worker.alive:
            from empathy_agent.models import load_model

            worker, holders = Worker(load_model(model, adapters), **limits), set()
            _workers[model, adapters] = worker, holders
        for name, limit in limits.items():
            if limit != (runs := getattr(worker, name)):
                raise InputError(
                    f"{name} is {limit}: {worker.local.name} runs in this process with {runs} already; give the same, or "
                    "close the engines that use it first"
                )
        holders.add(holder)
        return worker


def release_worker(holder: object) -> None:
    """Ends what a holder uses; a worker that nobody else holds is closed."""
    unused = []
    with loading:
        for key, (worker, holders) in list(_workers.items()):
            if holders == {holder}:
                del _workers[key]
                unused.append(worker)
            holders.discard(holder)
    for worker in unused:
        worker.close()
