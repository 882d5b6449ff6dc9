"""`empathy-agent doctor`: what is installed, which models are found, what would be used."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from empathy_agent.turns import clean_text

PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "sentence-transformers",
    "faiss-cpu",
    "langchain-core",
    "langgraph",
    "langgraph-checkpoint-sqlite",
]
EXTRAS = [
    "bitsandbytes",
    "langchain",
    "langchain-openai",
    "langgraph-checkpoint-postgres",
    "langgraph-cli",
    "openpyxl",
    "opentelemetry-api",
    "ray",
    "trl",
]


def run(options: argparse.Namespace) -> int:
    """Checks every part and prints what it found; exit code 1 where a part that is needed does not work."""
    from empathy_agent import __version__
    from empathy_agent.commands.chat import read_served_as
    from empathy_agent.engine import EmpathyEngine
    from empathy_agent.exemplars import find_cache
    from empathy_agent.threads import describe_database

    engine = EmpathyEngine(
        model=options.model,
        adapters=options.adapters,
        base_url=options.base_url,
        served_as=read_served_as(options.served_as),
    )
    checks: dict[str, Callable[[], Any]] = {
        "encoder": lambda: engine.encoder.fingerprint,
        "heads": lambda: ", ".join(engine.heads),
        "exemplars": engine.exemplars.describe,
        "base": lambda: engine.describe_model(),
        "experts": lambda: ", ".join(engine.experts) or "none: replies come from the prompt route",
    }
    report: dict[str, Any] = {
        "empathy-agent": __version__,
        "python": platform.python_version(),
        "device": _find_device(),
        "packages": {name: _find_version(name) for name in PACKAGES},
        "extras": {name: _find_version(name) for name in EXTRAS},
        "threads": describe_database(),
        "cache": str(find_cache()),
        "parts": {},
        "problems": [],
    }
    for name, check in checks.items():
        try:
            report["parts"][name] = clean_text(str(check()))  # names may come from a server
        except Exception as error:  # doctor's purpose is to report whatever is wrong
            report["problems"].append(clean_text(f"{name}: {error}"))
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 1 if report["problems"] else 0


def _print(report: dict[str, Any]) -> None:
    for key, value in report.items():
        if isinstance(value, dict):
            print(key)
            print("\n".join(f"  {name:28} {found or 'not installed'}" for name, found in value.items()))
        elif key == "problems":
            print("problems: none" if not value else "problems")
            print("\n".join(f"  {problem}" for problem in value), end="\n" if value else "")
        else:
            print(f"{key:13} {value}")


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _find_device() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
