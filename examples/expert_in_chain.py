"""`ExpertChatModel` is a plain chat model: here in a chain of prompt, model and parser, with one expert after the other."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from empathy_agent import ExpertChatModel

prompt = ChatPromptTemplate.from_messages(
    [("system", "You are an AI program that helps people in a few plain, honest sentences."), ("user", "{text}")]
)
model = ExpertChatModel(temperature=0, max_new_tokens=30)

for expert in ("factual", "compassionate"):
    chain = prompt | model.bind(adapter=expert) | StrOutputParser()
    print(f"{expert}: ", end="")
    for piece in chain.stream({"text": "I failed the exam again."}):
        print(piece, end="", flush=True)
    print()
