"""`empathy-agent forget`: deletes a conversation and proves it."""

from __future__ import annotations

import argparse
import json


def run(options: argparse.Namespace) -> int:
    """Deletes the thread and prints the proof; exit code 1 where anything of it is left."""
    from empathy_agent.forgetting import forget_thread

    proof = forget_thread(options.thread, options.database)
    if options.json:
        print(json.dumps({"thread": options.thread, **proof}))
    else:
        print(
            f"thread {options.thread}: {proof['deleted']} rows deleted, {proof['left']} left; "
            f"traces found in {', '.join(proof['searched'])}: {proof['traces']}"
        )
    return int(proof["left"] > 0 or proof["traces"] > 0)
