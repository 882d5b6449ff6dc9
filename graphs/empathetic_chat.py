"""The conversation graph for LangGraph Studio and `langgraph dev`, which bring their own checkpointer."""

from empathy_agent import build_graph

graph = build_graph().compile(name="empathetic_chat")
