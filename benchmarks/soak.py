"""Soak test: many threads in one SQLite file, processes killed at random, replies cancelled in mid-stream, a full disk.

    python benchmarks/soak.py --turns 2000 --threads 64 --kills 12

A child process works on the threads; its turns count once they are in an acknowledgement file that is flushed to the
disk. In the end every thread must hold exactly its acknowledged turns, in order, and no other thread's text. Readings and
replies are scripted, so that only the graph, the checkpointer and the disk are tried. Prints one JSON object; exit code 1
where something was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from empathy_agent import EmpathyEngine, Settings, build_graph
from empathy_agent.engine import HEADS
from empathy_agent.exemplars import ExemplarIndex, build_index
from empathy_agent.heads import Group, Head
from empathy_agent.judge import DIMENSIONS, MECHANISMS
from empathy_agent.need import PARTS
from empathy_agent.safety import CATEGORIES
from empathy_agent.threads import open_threads

TAG = re.compile(r"\[t\d+ n\d+\]")
SETTINGS = Settings(max_revisions=0)
WORKERS = 8
CANCELLED = 0.15  # share of turns that are first begun and abandoned in mid-stream
ROOM = 200_000  # bytes by which the file of threads may grow while the disk is "full"


class Echo(BaseChatModel):
    """Repeats the tag of the message that it answers, in several chunks."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        tag = TAG.findall(str(messages[-1].text))[-1]
        for piece in ("This ", "answers ", f"{tag}", " and ", "nothing else."):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        text = "".join(str(chunk.text) for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class ScriptedEncoder:
    """Unit vectors that depend on a text alone and mean nothing."""

    dimension = 16
    fingerprint = "scripted"

    def encode(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of shape (len(texts), 16)."""
        seeds = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=64).digest() for text in texts]
        vectors = np.array([np.frombuffer(seed, np.uint32) for seed in seeds], np.float64).reshape(-1, 16) / 2**31 - 1
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def script_head(groups: list[Group], inputs: int, favour: int | None = None) -> Head:
    """A random linear head; `favour` is an output that always wins."""
    outputs = sum(len(group.labels) for group in groups)
    bias = np.zeros((1, outputs), np.float32)
    if favour is not None:
        bias[0, favour] = 20
    weights = np.random.default_rng(outputs).normal(size=(1, inputs, outputs)).astype(np.float32)
    return Head(groups, "scripted", {"w2": weights, "b2": bias})


def script_engine(chat_model: BaseChatModel | None = None, *, exemplars: bool = True) -> EmpathyEngine:
    """An engine whose readings are scripted, so that a turn takes milliseconds."""
    engine, size = EmpathyEngine(chat_model=chat_model or Echo()), ScriptedEncoder.dimension
    engine.encoder = ScriptedEncoder()  # type: ignore[assignment]
    engine.encoders = dict.fromkeys(HEADS, engine.encoder)
    engine.heads = {
        "task": script_head([Group("task", "softmax", list(engine.tasks.profiles))], size),
        "need": script_head([Group("need", "number", ["need"]), Group("emotion", "softmax", list(PARTS))], 3 * size),
        "judge": script_head(
            [
                Group("level", "number", ["level"]),
                Group("applies", "number", DIMENSIONS),
                Group("dimensions", "number", DIMENSIONS),
                Group("mechanisms", "number", MECHANISMS),
            ],
            4 * size + 6,
        ),
        "danger": script_head([Group("danger", "softmax", CATEGORIES)], size, favour=CATEGORIES.index("none")),
    }
    engine.exemplars = build_index(engine.encoder) if exemplars else ExemplarIndex([], None)  # type: ignore[arg-type]
    return engine


def write_tag(thread: int, turn: int) -> str:
    """What every text of a turn holds."""
    return f"[t{thread} n{turn}]"


class Soak:
    """One folder under test: the file of threads, and the acknowledged turns."""

    def __init__(self, folder: Path, threads: int, turns: int, seed: int):
        self.folder, self.threads, self.seed = folder, threads, seed
        self.turns = [turns // threads + (number < turns % threads) for number in range(threads)]
        self.path, self.acknowledged = folder / "threads.sqlite", folder / "acknowledged.txt"

    def read_acknowledged(self) -> Counter[int]:
        """Acknowledged turns by thread; a line that a kill cut short does not count."""
        text = self.acknowledged.read_text() if self.acknowledged.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return Counter(int(line.split()[0]) for line in lines if line)

    def work(self, life: int, full: bool) -> None:
        """Takes every turn that is not acknowledged yet; the child process does this until it is killed."""
        done, seen, lock = self.read_acknowledged(), Counter[str](), threading.Lock()
        with open_threads(self.path) as saver, self.acknowledged.open("ab", buffering=0) as file:
            graph = build_graph(engine=script_engine()).compile(checkpointer=saver)

            def acknowledge(thread: int) -> None:
                with lock:
                    os.write(file.fileno(), f"{thread}\n".encode())
                    os.fsync(file.fileno())

            def count(what: str) -> None:
                with lock:
                    seen[what] += 1

            def serve(numbers: range) -> None:
                rng = random.Random(f"{self.seed}/{life}/{numbers.start}")
                for turn in range(1, max(self.turns) + 1):
                    for thread in numbers:
                        if not done[thread] < turn <= self.turns[thread]:
                            continue
                        try:
                            started = time.perf_counter()
                            count(self.take_turn(graph, thread, turn, cancel=rng.random() < CANCELLED))
                            acknowledge(thread)
                            with lock:
                                seconds.append(time.perf_counter() - started)
                        except (sqlite3.Error, OSError) as error:
                            if not full:
                                raise
                            count(f"refused: {error}")
                            return

            seconds: list[float] = []
            if full:
                size = self.path.stat().st_size if self.path.exists() else 0
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + ROOM, resource.RLIM_INFINITY))
            print("ready", flush=True)
            with ThreadPoolExecutor(WORKERS) as pool:
                for outcome in [pool.submit(serve, range(w, self.threads, WORKERS)) for w in range(WORKERS)]:
                    outcome.result()
            if full:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        median = sorted(seconds)[len(seconds) // 2] * 1000 if seconds else None
        print(json.dumps({"seen": seen, "ms": median}), flush=True)

    def take_turn(self, graph: Any, thread: int, turn: int, *, cancel: bool) -> str:
        """Takes one turn, going on with whatever an earlier life left of it, and says how it came about."""
        tag = write_tag(thread, turn)
        config = {"configurable": {"thread_id": f"user {thread}"}}
        how = {"context": SETTINGS, "durability": "sync" if thread % 2 else "exit"}
        ask = {"messages": [{"role": "user", "content": f"{tag} what now?", "id": tag}]}
        outcome = "answered"
        if cancel and not self._is_stored(graph, config, tag):
            stream = graph.stream(ask, config, stream_mode="messages", **how)
            next(stream)  # the first token is there; the caller goes away
            stream.close()
            outcome = "cancelled, then answered"
        snapshot = graph.get_state(config)
        if not self._is_stored(graph, config, tag):
            state = graph.invoke(ask, config, **how)
        elif snapshot.tasks:  # `next` is empty where the last node had ended but what it wrote was not applied yet
            state, outcome = graph.invoke(None, config, **how), outcome if cancel else "gone on with"
        else:
            state, outcome = snapshot.values, outcome if cancel else "in doubt, was stored"
        reply = state["messages"][-1]
        assert (reply.type, TAG.findall(str(reply.text))) == ("ai", [tag]), (tag, outcome, snapshot, reply)
        return outcome

    def _is_stored(self, graph: Any, config: Any, tag: str) -> bool:
        return any(message.id == tag for message in graph.get_state(config).values.get("messages", []))

    def check(self) -> dict[str, Any]:
        """Compares what is stored with what was acknowledged."""
        done, lost, crossed, wrong = self.read_acknowledged(), 0, 0, 0
        with open_threads(self.path) as saver:
            graph = build_graph(engine=script_engine()).compile(checkpointer=saver)
            for thread in range(self.threads):
                values = graph.get_state({"configurable": {"thread_id": f"user {thread}"}}).values
                texts = [(message.type, *TAG.findall(str(message.text))) for message in values.get("messages", [])]
                tags = [write_tag(thread, turn) for turn in range(1, done[thread] + 1)]
                expected = [entry for tag in tags for entry in (("human", tag), ("ai", tag))]
                own = f"[t{thread} n"
                crossed += sum(not tag.startswith(own) for entry in texts for tag in entry[1:])
                lost += sum(entry not in texts for entry in expected)
                wrong += texts != expected or values.get("drift", {}).get("turns", 0) != done[thread]
            intact = saver.conn.execute("PRAGMA integrity_check").fetchone()[0]
        return {"acknowledged": done.total(), "lost": lost, "crossed": crossed, "wrong_threads": wrong, "file": intact}


def run_soak(folder: Path, *, threads: int, turns: int, kills: int, full_disks: int, seed: int) -> dict[str, Any]:
    """Runs children until every turn is acknowledged, kills `kills` of them, and fills the disk `full_disks` times."""
    soak, rng, started = Soak(folder, threads, turns, seed), random.Random(seed), time.monotonic()
    ends = ["kill"] * kills + ["full"] * full_disks
    rng.shuffle(ends)
    seen, lives, pace = Counter[str](), 0, None
    given = [str(folder), "--turns", str(turns), "--threads", str(threads), "--seed", str(seed)]
    for end in [*ends, "last"]:
        command = [
            sys.executable,
            __file__,
            "--work",
            *given,
            "--life",
            str(lives),
            *(["--full"] if end == "full" else []),
        ]
        lives += 1
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            said = child.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=rng.uniform(0.2, 2.5) if end == "kill" else None)
            if child.poll() is None:
                child.kill()
                seen["killed"] += 1
            said += child.stdout.read()
        if child.returncode not in (0, -9):
            raise RuntimeError(f"a child ended with {child.returncode}")
        if said.count("\n") > 1:
            report = json.loads(said.splitlines()[1])
            seen.update(report["seen"])
            pace = report["ms"] or pace
    return {
        "threads": threads,
        "turns": turns,
        "processes": lives,
        **soak.check(),
        "events_of_whole_processes": seen,
        "ms_per_turn": pace and round(pace, 1),
        "file_bytes": soak.path.stat().st_size,
        "seconds": round(time.monotonic() - started, 1),
        "seed": seed,
        "versions": {name: version(name) for name in ("langgraph", "langgraph-checkpoint-sqlite")},
    }


def main() -> int:
    """Runs the whole soak, or the work of one child (`--work`)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--full-disks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--life", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        Soak(options.work, options.threads, options.turns, options.seed).work(options.life, options.full)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("EMPATHY_AGENT_CACHE", folder)
        report = run_soak(
            Path(folder),
            threads=options.threads,
            turns=options.turns,
            kills=options.kills,
            full_disks=options.full_disks,
            seed=options.seed,
        )
    print(json.dumps(report, indent=2))
    good = report["acknowledged"] == options.turns and not (
        report["lost"] or report["crossed"] or report["wrong_threads"]
    )
    return 0 if good and report["file"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
