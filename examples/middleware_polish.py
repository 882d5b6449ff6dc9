"""An agent whose model finds the facts, while an expert finds the words. A rewording that loses a fact is not sent."""

from langchain.agents import create_agent
from scripted import call, say

from empathy_agent import EmpathyEngine, EmpathyMiddleware


def find_counsellor(town: str) -> str:
    """Finds grief counselling."""
    return f"{town}: grief counselling on Tuesdays at 18:30, 0113 496 0000"


LOST = {"messages": [{"role": "user", "content": "My dad died last week and I can't stop crying. I'm in Leeds."}]}
DRAFT = "Leeds has grief counselling on Tuesdays at 18:30, phone 0113 496 0000."
WARM = (
    "Losing your dad only a week ago, and the tears keep coming. Of course they do. When you want company in that, Leeds has "
    "grief counselling on Tuesdays at {time}, phone 0113 496 0000. What do you miss most?"
)

for time in ("18:30", "19:30"):
    # The expert is any chat model, told the pattern; without `chat_model` it is a local adapter.
    expert = EmpathyEngine(chat_model=say(*[WARM.format(time=time)] * 2))
    agent = create_agent(
        say(call("find_counsellor", town="Leeds"), DRAFT),
        tools=[find_counsellor],
        middleware=[EmpathyMiddleware(mode="polish", engine=expert)],
    )
    state = agent.invoke(LOST)
    print("reply  ", state["messages"][-1].text)
    print("wording", state["wording"], "\n")
