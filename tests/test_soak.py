"""A short run of benchmarks/soak.py: kills, cancellations and a full disk lose nothing and cross nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import run_soak


def test_nothing_is_lost_or_crossed_by_kills_cancellations_and_a_full_disk(tmp_path: Path):
    report = run_soak(tmp_path, threads=6, turns=36, kills=1, full_disks=1, seed=1)
    assert report["acknowledged"] == 36
    assert (report["lost"], report["crossed"], report["wrong_threads"]) == (0, 0, 0)
    assert report["file"] == "ok"
    assert report["processes"] == 3
