"""Soak test: many threads in one SQLite file, processes killed at random, replies cancelled in mid-stream, a full disk.

    python -m benchmarks.soak --turns 2000 --threads 64 --kills 12

A child process works on the threads; its turns count once they are in an acknowledgement file that is flushed to the
disk. Readings are scripted; replies are written greedily by the worker with four random adapters over a tiny random model and
begin with the tag of the message that they answer; every turn is pruned. In the end every thread must hold exactly its
acknowledged turns, in order, and no other thread's text; a sample of replies must be what the same expert writes when nothing
else is written beside it and nothing is remembered. Prints one JSON object; exit code 1 where something was lost or is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.scripted import TAG, script_engine
from benchmarks.tagged import build_engine, compare_replies
from empathy_agent import Settings, build_graph
from empathy_agent.threads import open_threads, prune_thread

TOP = Path(__file__).parent.parent
SETTINGS = Settings(max_revisions=0, temperature=0, max_new_tokens=8)
WORKERS = 8
CANCELLED = 0.15  # share of turns that are first begun and abandoned in mid-stream
ROOM = 200_000  # bytes by which the file of threads may grow while the disk is "full"


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
        import torch

        torch.set_num_threads(1)
        done, seen, lock = self.read_acknowledged(), Counter[str](), threading.Lock()
        with open_threads(self.path) as saver, self.acknowledged.open("ab", buffering=0) as file:
            graph = build_graph(engine=build_engine()).compile(checkpointer=saver)

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
        prune_thread(graph.checkpointer, f"user {thread}")
        return outcome

    def _is_stored(self, graph: Any, config: Any, tag: str) -> bool:
        return any(message.id == tag for message in graph.get_state(config).values.get("messages", []))

    def check(self, compared: int) -> dict[str, Any]:
        """Compares what is stored with what was acknowledged, and some replies with what is written alone."""
        done, lost, crossed, wrong, unpruned = self.read_acknowledged(), 0, 0, 0, 0
        replies: list[tuple[list[Any], Any]] = []
        with open_threads(self.path) as saver:
            graph = build_graph(engine=script_engine()).compile(checkpointer=saver)
            for thread in range(self.threads):
                config: Any = {"configurable": {"thread_id": f"user {thread}"}}
                values = graph.get_state(config).values
                messages = values.get("messages", [])
                texts = [(message.type, *TAG.findall(str(message.text))) for message in messages]
                tags = [write_tag(thread, turn) for turn in range(1, done[thread] + 1)]
                expected = [entry for tag in tags for entry in (("human", tag), ("ai", tag))]
                own = f"[t{thread} n"
                crossed += sum(not tag.startswith(own) for entry in texts for tag in entry[1:])
                lost += sum(entry not in texts for entry in expected)
                wrong += texts != expected or values.get("drift", {}).get("turns", 0) != done[thread]
                unpruned += len(list(saver.list(config))) > 1
                replies += [(messages[:at], messages[at]) for at in range(1, len(messages), 2)]
            intact = saver.conn.execute("PRAGMA integrity_check").fetchone()[0]
        sample = random.Random(self.seed).sample(replies, min(compared, len(replies)))
        return {
            "acknowledged": done.total(),
            "lost": lost,
            "crossed": crossed,
            "wrong_threads": wrong,
            "unpruned_threads": unpruned,
            "compared_replies": len(sample),
            "other_replies": compare_replies(sample, SETTINGS),
            "different_replies": len({str(reply.text).partition("]")[2] for _, reply in replies}),
            "experts": Counter(reply.response_metadata["adapter"] for _, reply in replies),
            "file": intact,
        }


def run_soak(
    folder: Path, *, threads: int, turns: int, kills: int, full_disks: int, seed: int, compared: int = 300
) -> dict[str, Any]:
    """Runs children until every turn is acknowledged, kills `kills` of them, and fills the disk `full_disks` times.

    A child is killed after a random number of acknowledged turns, or whatever came in between.
    """
    soak, rng, started = Soak(folder, threads, turns, seed), random.Random(seed), time.monotonic()
    ends = ["kill"] * kills + ["full"] * full_disks
    rng.shuffle(ends)
    ends.append("last")
    seen, pace = Counter[str](), None
    for life, end in enumerate(ends):
        command = [sys.executable, "-m", "benchmarks.soak", "--work", str(folder), "--life", str(life)]
        command += ["--turns", str(turns), "--threads", str(threads), "--seed", str(seed)]
        had = soak.read_acknowledged().total()
        goal = had + (turns - had) * rng.uniform(0.2, 1.5) / (len(ends) - life)
        with subprocess.Popen(
            [*command, *["--full"] * (end == "full")], stdout=subprocess.PIPE, text=True, cwd=TOP
        ) as child:
            while end == "kill" and child.poll() is None and soak.read_acknowledged().total() < goal:
                time.sleep(0.005)
            if end == "kill" and child.poll() is None:
                child.kill()
                seen["killed"] += 1
            assert child.stdout
            said = child.stdout.read()
        if child.returncode not in (0, -9):
            raise RuntimeError(f"a child ended with {child.returncode}")
        if said:
            report = json.loads(said)
            seen.update(report["seen"])
            pace = report["ms"] or pace
    return {
        "threads": threads,
        "turns": turns,
        "processes": len(ends),
        **soak.check(compared),
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
    wrong = [report[name] for name in ("lost", "crossed", "wrong_threads", "other_replies")]
    good = report["acknowledged"] == options.turns and not any(wrong)
    return 0 if good and report["file"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
