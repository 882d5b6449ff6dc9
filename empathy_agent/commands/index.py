"""`empathy-agent index`: builds the index of exemplars, or finds it built, and says where it is kept."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path


def run(options: argparse.Namespace) -> int:
    """Builds the index and prints how many exemplars it holds by task."""
    from empathy_agent.engine import get_encoder
    from empathy_agent.exemplars import build_index, find_cache

    index = build_index(get_encoder(None), Path(options.exemplars) if options.exemplars else None)
    tasks = dict(sorted(Counter(exemplar["task"] for exemplar in index.exemplars).items()))
    if options.json:
        print(json.dumps({"cache": str(find_cache()), "exemplars": len(index.exemplars), "tasks": tasks}))
    else:
        print(f"{len(index.exemplars)} exemplars indexed in {find_cache()}")
        print("\n".join(f"  {task:24} {count:4}" for task, count in tasks.items()))
    return 0
