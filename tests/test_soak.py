"""A short run of benchmarks/soak.py: kills, cancellations and a full disk lose nothing and cross nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import WORKERS, run_soak


def test_nothing_is_lost_or_crossed_by_kills_cancellations_and_a_full_disk(tmp_path: Path):
    report = run_soak(tmp_path, threads=64, turns=256, kills=2, full_disks=1, seed=1, compared=64)
    assert report["acknowledged"] == 256
    assert (report["lost"], report["crossed"], report["wrong_threads"]) == (0, 0, 0)
    assert (report["compared_replies"], report["other_replies"]) == (64, 0)
    assert report["different_replies"] > 100, "a reply to another conversation would be seen"
    assert len(report["experts"]) == 4
    assert report["unpruned_threads"] <= WORKERS, "of those that the full disk met"
    assert report["file"] == "ok"
    events = report["events_of_whole_processes"]
    assert events["killed"] == 2
    assert sum(count for name, count in events.items() if name.startswith("refused")) >= 1
    assert events["cancelled, then answered"] >= 1
