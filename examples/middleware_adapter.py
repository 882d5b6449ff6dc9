"""An agent whose words come from a local expert adapter, chosen for each message; here with the shipped models."""

from langchain.agents import create_agent
from scripted import call, say

from empathy_agent import EmpathyMiddleware, Settings


def find_parcel(number: int) -> str:
    """Finds a parcel."""
    return f"parcel {number}: at the Leeds depot, arrives on Friday"


empathy = EmpathyMiddleware(mode="adapter", settings=Settings(max_new_tokens=40))

# Without tools the expert takes the model's place, and its tokens stream. The model here would have nothing to say.
agent = create_agent(say(), middleware=[empathy])
for chunk, _ in agent.stream(
    {"messages": [{"role": "user", "content": "A funny film for tonight, please"}]}, stream_mode="messages"
):
    print(chunk.text, end="", flush=True)
print("\n")

# An expert calls no tools. Where some are bound the model plans, calls them and drafts, and the expert words the draft.
model = say(call("find_parcel", number=4711), "Parcel 4711 is at the Leeds depot and arrives on Friday.")
agent = create_agent(model, tools=[find_parcel], middleware=[empathy])
state = agent.invoke(
    {"messages": [{"role": "user", "content": "Parcel 4711 is late for the third time, I'm furious!"}]}
)
print("reply  ", state["messages"][-1].text)
print("wording", state["wording"])  # the shipped base is small, and what it garbles is not sent
