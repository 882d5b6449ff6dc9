"""Plays sessions on a Ray cluster: every actor builds the models itself, the driver alone writes records.

A session whose actor dies is played again by a new actor, from its first turn. Does not place actors or move files: the package,
the models and what the cast needs must be on every machine of the cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from empathy_agent.errors import InputError, MissingExtraError, ModelError
from empathy_agent.simulation.planning import Plan
from empathy_agent.simulation.records import Record, open_records, summarize
from empathy_agent.simulation.session import SessionSpec, session, start_record
from empathy_agent.simulation.simulating import widen_executor

Cast = Callable[[], Callable[[Plan], SessionSpec]]
LOCAL = "local"
ATTEMPTS = 3  # times a session is begun before it counts as failed: it may be what kills its actors


class Player:
    """An actor: builds app, users and judge once, then plays many sessions at a time."""

    def __init__(self, cast: Cast, concurrency: int):
        self._write, self._concurrency, self._wide = cast(), concurrency, False

    async def ready(self) -> None:
        """Returns when the models are loaded."""

    async def play(self, plan: Plan) -> Record:
        """Plays one session."""
        if not self._wide:
            self._wide = True
            widen_executor(self._concurrency)
        return await session(self._write(plan))


def simulate_on_ray(
    plans: Sequence[Plan],
    cast: Cast,
    *,
    out: Path,
    address: str = LOCAL,
    actors: int | None = None,
    concurrency: int = 32,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Plays every plan that `out` does not hold yet on Ray actors; see `simulate` for the rest.

    Args:
        plans: The sessions.
        cast: Builds engine, app and users inside an actor, and returns what makes a plan a session. Must be picklable.
        out: File of records, on the driver.
        address: Address of a cluster, `auto` for the one this machine belongs to, or `local` to start one here.
        actors: How many; None takes one for every two processors of the cluster.
        concurrency: Sessions in flight in each actor.
        on_record: Called with every new record.

    Returns:
        The summary (see `summarize`), how many sessions were `skipped`, and how many actors were `lost`.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelError: The cluster does not answer, or an actor cannot build its models.
        InputError: As `simulate`.
    """
    if concurrency < 1 or (actors is not None and actors < 1):
        raise InputError(f"concurrency is {concurrency} and actors {actors}: both must be at least 1")
    planned, lost = {plan.id: plan.seed for plan in plans}, 0
    with open_records(out) as file:
        skipped = file.skip(planned)
        records = [record for record in file.records if record["id"] in skipped]
        if left := [plan for plan in plans if plan.id not in skipped]:
            with _connected(address) as ray:
                count = actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // 2)
                troupe = _Troupe(ray, cast, concurrency, min(count, len(left)))
                for record in troupe.play(left):
                    file.append(record)
                    records.append(record)
                    on_record(record)
                lost = troupe.lost
    return {**summarize(records), "skipped": len(skipped), "lost": lost}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster for as long as this lasts, or to the one that the process is connected to already."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError('--ray needs Ray: pip install "empathy-agent[ray]"') from error
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:
        raise ModelError(f"no Ray cluster at {address!r}: {error}; start one, or use `{LOCAL}`") from error
    try:
        yield ray
    finally:
        ray.shutdown()


class _Troupe:
    """Actors that play plans; one that dies is replaced, and what it was playing is begun again."""

    def __init__(self, ray: Any, cast: Cast, concurrency: int, count: int):
        self.ray, self.lost, self._concurrency = ray, 0, concurrency
        player = ray.remote(Player).options(num_cpus=1, max_concurrency=concurrency + 1)
        self._hire = lambda: player.remote(cast, concurrency)
        self._count = count

    def play(self, plans: Sequence[Plan]) -> Iterator[Record]:
        """Yields each plan's record as its session finishes."""
        errors = self.ray.exceptions
        actors = [self._hire() for _ in range(self._count)]
        try:
            self.ray.get([actor.ready.remote() for actor in actors])
        except errors.RayError as error:
            raise ModelError(f"an actor cannot build its models: {error}") from error
        waiting, begun = list(reversed(plans)), Counter[str]()
        playing: dict[Any, tuple[Plan, int, Any]] = {}
        while waiting or playing:
            busy = Counter(place for _, place, _ in playing.values())
            while waiting and busy[place := min(range(self._count), key=busy.__getitem__)] < self._concurrency:
                plan = waiting.pop()
                begun[plan.id] += 1
                busy[place] += 1
                playing[actors[place].play.remote(plan)] = plan, place, actors[place]
            (ref, *_), _ = self.ray.wait(list(playing))
            plan, place, actor = playing.pop(ref)
            try:
                record = self.ray.get(ref)
            except errors.RayActorError as error:
                if actors[place] is actor:  # the first of its sessions to tell
                    actors[place], self.lost = self._hire(), self.lost + 1
                if begun[plan.id] < ATTEMPTS:
                    waiting.append(plan)
                    continue
                died = f"its actor died {ATTEMPTS} times: {error}"
                record = start_record(plan) | {"status": "failed", "error": died}
            except errors.RayError as error:
                raise ModelError(f"session {plan.id} cannot be begun: {error}") from error
            yield record
