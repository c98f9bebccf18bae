"""LlamaIndex: its models for OpenAI-like endpoints and for Anthropic's, embeddings, an agent, an index."""

from __future__ import annotations

import importlib.metadata

import anthropic
import openai
from checks import BASE_URL, KEY, PATIENT, URL, raises, run
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"
HELLO = [ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="hello there")]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def chat(**more) -> OpenAILike:
    base = {"model": "large", "api_base": BASE_URL, "api_key": KEY, "max_retries": 0, "context_window": 100_000}
    return OpenAILike(**{**base, "is_chat_model": True, "is_function_calling_model": True, **more})


def claude(**more) -> Anthropic:
    return Anthropic(**{"model": "claude-sonnet-4-5", "base_url": URL, "api_key": KEY, "max_retries": 0, **more})


def answer(model) -> None:
    assert model.chat(HELLO).message.content == "You said: hello there"
    assert model.complete("hello there").text == "You said: hello there"


def stream(model) -> None:
    *_, last = model.stream_chat(HELLO)
    assert last.message.content == "You said: hello there"


def called(model) -> None:
    tool = FunctionTool.from_defaults(weather)
    made = model.chat_with_tools([tool], user_msg='call weather {"city": "Hohhot"}')
    [call] = model.get_tool_calls_from_response(made)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Hohhot"})


async def agent(model) -> None:
    """Streamed, as agents are by default."""
    done = await FunctionAgent(tools=[weather], llm=model, system_prompt="be brief").run(user_msg=CALLS)
    assert str(done) == RESULTS


def structured(model) -> None:
    made = model.as_structured_llm(Person).complete('answer {"name": "Ann", "age": 7}')
    assert made.raw == Person(name="Ann", age=7)


def picture(model) -> None:
    blocks = [ImageBlock(image=b"\x89PNG\r\n\x1a\n" + b"\0" * 20, image_mimetype="image/png"), TextBlock(text="look")]
    assert model.chat([ChatMessage(role="user", blocks=blocks)]).message.content == "You said: look"


def completion() -> None:
    plain = chat(is_chat_model=False, max_tokens=50)
    assert plain.complete("hello").text == "You said: hello"
    *_, last = plain.stream_complete("hello")
    assert last.text == "You said: hello"


def embedder() -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name="large", api_base=BASE_URL, api_key=KEY, max_retries=0)


def embeddings() -> None:
    assert [len(vector) for vector in embedder().get_text_embedding_batch(["one", "two"])] == [16, 16]


def an_index() -> None:
    documents = [Document(text="Hohhot is in the north."), Document(text="Guiyang is in the southwest.")]
    index = VectorStoreIndex.from_documents(documents, embed_model=embedder())
    assert "Guiyang" in str(index.as_query_engine(llm=chat(), similarity_top_k=2).query("Where is Guiyang?"))


def errors() -> None:
    raises(openai.AuthenticationError, lambda: chat(api_key="sk-moma-wrong").chat(HELLO))
    raises(openai.NotFoundError, lambda: chat(model="none").chat(HELLO))
    raises(openai.RateLimitError, lambda: chat().complete("busy"))
    raises(openai.APITimeoutError, lambda: chat(timeout=0.5).complete("slow", extra_headers=PATIENT))


def claude_errors() -> None:
    raises(anthropic.AuthenticationError, lambda: claude(api_key="sk-moma-wrong").chat(HELLO))
    raises(anthropic.RateLimitError, lambda: claude().complete("busy"))


CHECKS = {
    "chat": answer,
    "stream": stream,
    "tools": called,
    "agent over three turns": agent,
    "structured output": structured,
    "vision": picture,
}
run(
    importlib.metadata.version("llama-index-core"),
    chat={
        **{name: lambda check=check: check(chat()) for name, check in CHECKS.items()},
        "completions": completion,
        "embeddings": embeddings,
        "an index asked": an_index,
        "errors as classes": errors,
    },
    messages={
        **{name: lambda check=check: check(claude()) for name, check in CHECKS.items()},
        "errors as classes": claude_errors,
    },
)
