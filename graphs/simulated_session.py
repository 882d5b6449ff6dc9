"""A simulated user talks with the agent, for watching in LangGraph Studio: submit an empty list of messages."""

from empathy_agent.simulation.watching import build_session_graph

graph = build_session_graph().compile(name="simulated_session")
