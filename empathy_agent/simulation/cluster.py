"""Plays sessions on a Ray cluster: every actor builds the models itself, the driver alone writes records.

A session whose actor dies is played again by a new actor, from its first turn. Does not place actors or move files: the package,
the models and what the cast needs must be on every machine of the cluster.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from empathy_agent.errors import EmpathyAgentError, InputError, MissingExtraError, ModelError
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
        self._concurrency, self._wide = concurrency, False
        self._broken: Exception | None = None
        try:
            self._write = cast()
        except Exception as error:  # for `ready` to raise: of a failed constructor Ray says only that the actor died
            self._broken = error

    async def ready(self) -> None:
        """Returns when the models are loaded, or raises what kept them from it."""
        if self._broken:
            raise self._broken

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
    cpus: float | None = None,
    concurrency: int = 32,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Plays every plan that `out` does not hold yet on Ray actors; see `simulate` for the rest.

    Args:
        plans: The sessions.
        cast: Builds engine, app and users inside an actor, and returns what makes a plan a session. Must be picklable.
        out: File of records, on the driver.
        address: Address of a cluster, `auto` for the one this machine belongs to, or `local` to start one here.
        actors: How many; None takes as many as the cluster's processors allow.
        cpus: Processors of each, above 0; None takes 2, or 1 where no machine has two. Ray holds torch to as many threads.
        concurrency: Sessions in flight in each actor.
        on_record: Called with every new record.

    Returns:
        The summary (see `summarize`), how many sessions were `skipped`, and how many actors were `lost`.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelError: The cluster does not answer, actors cannot build their models, or they die again and again.
        EmpathyAgentError: Of another kind, as an actor raised it while it built its models.
        InputError: As `simulate`, or no machine has so many processors.
    """
    if concurrency < 1 or (actors is not None and actors < 1) or (cpus is not None and cpus <= 0):
        raise InputError(
            f"concurrency is {concurrency}, actors {actors} and cpus {cpus}: the first two must be at least 1, cpus above 0"
        )
    planned, lost = {plan.id: plan.seed for plan in plans}, 0
    with open_records(out) as file:
        skipped = file.skip(planned)
        records = [record for record in file.records if record["id"] in skipped]
        if left := [plan for plan in plans if plan.id not in skipped]:
            with redirect_stdout(sys.stderr), _connected(address) as ray:  # Ray tells of deaths on stdout
                cpus, room = _find_room(ray, cpus)
                troupe = _Troupe(ray, cast, concurrency, min(actors or room, len(left)), cpus)
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


def _find_room(ray: Any, cpus: float | None) -> tuple[float, int]:
    """Processors of an actor, and how many such actors the cluster's machines hold."""
    machines = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    largest = max(machines, default=0.0)
    cpus = cpus or min(2.0, largest) or 1.0
    room = sum(int(machine // cpus) for machine in machines)
    if not room:
        raise InputError(
            f"an actor is to have {cpus:g} processors (--ray-cpus): no machine of the cluster has over {largest:g}"
        )
    return cpus, room


class _Troupe:
    """Actors that play plans; one that dies is replaced, and what it was playing is begun again."""

    def __init__(self, ray: Any, cast: Cast, concurrency: int, count: int, cpus: float):
        self.ray, self.lost, self._concurrency = ray, 0, concurrency
        player = ray.remote(Player).options(num_cpus=cpus, max_concurrency=concurrency + 1)
        self._hire = lambda: player.remote(cast, concurrency)
        self._actors: list[Any] = [None] * count
        self._ready: set[int] = set()  # places whose actor has built its models
        # Reference → session (None where `ready` is awaited), place and actor.
        self._awaited: dict[Any, tuple[Plan | None, int, Any]] = {}
        self._deaths = 0  # since an actor last finished a session

    def play(self, plans: Sequence[Plan]) -> Iterator[Record]:
        """Yields each plan's record as its session finishes."""
        errors = self.ray.exceptions
        for place in range(len(self._actors)):
            self._fill(place)
        waiting, begun = deque(plans), Counter[str]()
        while waiting or any(plan for plan, *_ in self._awaited.values()):
            self._hand_out(waiting, begun)
            (ref, *_), _ = self.ray.wait(list(self._awaited))
            plan, place, actor = self._awaited.pop(ref)
            try:
                found = self.ray.get(ref)
            except errors.RayActorError as error:
                if self._actors[place] is actor:  # the first of its sessions to tell
                    self._replace(place, error)
                if plan and begun[plan.id] < ATTEMPTS:
                    waiting.appendleft(plan)
                elif plan:
                    died = f"its actor died {ATTEMPTS} times: {_explain(error)}"
                    yield start_record(plan) | {"status": "failed", "error": died}
            except errors.RayTaskError as error:
                what = f"session {plan.id} cannot be begun" if plan else "an actor cannot build its models"
                kind = type(error.cause) if isinstance(error.cause, EmpathyAgentError) else ModelError
                raise kind(f"{what}: {_explain(error)}") from error
            else:
                if plan:
                    self._deaths = 0
                    yield found
                else:
                    self._ready.add(place)

    def _hand_out(self, waiting: deque[Plan], begun: Counter[str]) -> None:
        """Gives sessions to the actors that are ready and have the fewest."""
        busy = Counter(place for plan, place, _ in self._awaited.values() if plan)
        while waiting and self._ready and busy[place := min(self._ready, key=busy.__getitem__)] < self._concurrency:
            plan = waiting.popleft()
            begun[plan.id] += 1
            busy[place] += 1
            actor = self._actors[place]
            self._awaited[actor.play.remote(plan)] = plan, place, actor

    def _fill(self, place: int) -> None:
        self._ready.discard(place)
        actor = self._actors[place] = self._hire()
        self._awaited[actor.ready.remote()] = None, place, actor

    def _replace(self, place: int, error: Exception) -> None:
        """Hires another actor for a dead one, unless too many died in a row."""
        self.lost += 1
        self._deaths += 1
        if self._deaths > ATTEMPTS * len(self._actors):
            raise ModelError(
                f"{self._deaths} actors died and no session was finished in between, the last so: {_explain(error)}; is there "
                "memory enough? lower --concurrency, or give each more of a machine (--ray-cpus)"
            )
        self._fill(place)


def _explain(error: Exception) -> str:
    """What happened, out of Ray's account of it, which holds the remote traceback and advice."""
    if isinstance(cause := getattr(error, "cause", None), Exception):
        return str(cause) if isinstance(cause, EmpathyAgentError) else f"{type(cause).__name__}: {cause}"
    told = re.search(r"because (.+?)\.? *(?:Some common causes|\n|$)", str(error))
    return told[1] if told else str(error).partition("\n")[0]
