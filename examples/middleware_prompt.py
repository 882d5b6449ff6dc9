"""An agent of `create_agent` with a tool, guided: its own model writes, told how much empathy this message calls for."""

from langchain.agents import create_agent
from scripted import call, say

from empathy_agent import EmpathyMiddleware


def find_parcel(number: int) -> str:
    """Finds a parcel."""
    return f"parcel {number}: at the Leeds depot, arrives on Friday"


model = say(  # in your app: "openai:gpt-5.5", "anthropic:…", or any chat model
    call("find_parcel", number=4711),
    "A third delay is one too many. Parcel 4711 is at the Leeds depot and arrives on Friday.",
)
agent = create_agent(model, tools=[find_parcel], middleware=[EmpathyMiddleware()])

state = agent.invoke(
    {"messages": [{"role": "user", "content": "Parcel 4711 is late for the third time, I'm furious!"}]}
)
print("guided to be", state["expert"], "because of", state["need"]["emotion"], "in", state["task"]["label"])
print("reply       ", state["messages"][-1].text)
print("perceived   ", state["assessment"]["level"], "desired", state["desired"], "gap", state["drift"]["gap"])
