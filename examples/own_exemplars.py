"""Your own exemplars: a folder of JSONL files in place of the shipped ones. The index is built at first use and cached."""

import json
import tempfile
from pathlib import Path

from scripted import say

from empathy_agent import EmpathyEngine, build_graph

exemplar = {
    "id": "night-1",
    "task": "therapy",
    "pattern": "compassionate",
    "level": 0.9,  # how much empathy a reader finds in the reply, 0 to 1
    "emotion": "grief",
    "situation": "first weeks after a parent's death",
    "user": "Dad died on Monday and the house is so quiet.",
    "reply": "A house that had his sounds in it, and now this quiet. Which of them do you listen for?",
}
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "therapy.jsonl").write_text(json.dumps(exemplar), encoding="utf-8")
    engine = EmpathyEngine(exemplars=folder, chat_model=say(*["The quiet is where he was."] * 2))
    state = (
        build_graph(engine=engine)
        .compile()
        .invoke({"messages": [{"role": "user", "content": "My dad died last week and I can't stop crying"}]})
    )
print("shown to the model:", [(shown["id"], shown["score"]) for shown in state["exemplars"]])
print("reply:", state["messages"][-1].text)
