"""Simulated users: `session(spec)` plays one conversation, `simulate(specs, out=…)` many; both give plain records."""

from __future__ import annotations

from empathy_agent.simulation.apps import graph_app, model_app, openevals_app
from empathy_agent.simulation.emotion import learned_judge, move_emotion
from empathy_agent.simulation.personas import local_user, model_user
from empathy_agent.simulation.planning import load_personas, plan_sessions
from empathy_agent.simulation.records import read_records, summarize
from empathy_agent.simulation.session import SessionSpec, session
from empathy_agent.simulation.simulating import simulate
from empathy_agent.simulation.users import Users, lines_user, load_users, local_users, model_users

__all__ = [
    "SessionSpec",
    "Users",
    "graph_app",
    "learned_judge",
    "lines_user",
    "load_personas",
    "load_users",
    "local_user",
    "local_users",
    "model_app",
    "model_user",
    "model_users",
    "move_emotion",
    "openevals_app",
    "plan_sessions",
    "read_records",
    "session",
    "simulate",
    "summarize",
]
