"""What the backend of the clients' tests answers: calls of tools that the prompt writes down, else the demo's echo.

    call weather {"city": "Guiyang"} and clock {"zone": "UTC"} then add {"a": 2, "b": 3}

calls two tools at once, with the next answer a third, and then says what the tools said. `answer {"name": "Ann"}` is
what is answered where JSON is asked for, or given to the tool that stands for it. A prompt that writes nothing down
gets a call of the tool that `tool_choice` demands, or of the first one, filled in from the prompt's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.demo.answers import count, header, minimal, usage
from gateway.demo.backend import DONE, error, event
from gateway.demo.scripted import HANG, Fault, Reply, Seen, refusal

Json = dict[str, Any]
ToolCall = tuple[str, Json]

# What a coding assistant is asked, and the block it understands.
EDIT = "Change the greeting to a farewell"
BLOCK = """The greeting becomes a farewell:

greet.py
```python
<<<<<<< SEARCH
    return "Hello"
=======
    return "Goodbye"
>>>>>>> REPLACE
```
"""
CHAT = "/v1/chat/completions"
STEP = re.compile(r'(?:^|.*\n|.*\s)call (?=\w+ \{["}])', re.DOTALL)
NAME = re.compile(r'\s*(?P<link>and|then)?\s*(?P<name>\w+)\s+(?=\{["}])')
QUOTED = re.compile(r"[\"'“]([^\"'”]+)[\"'”]")
WORD = re.compile(r"\s*\S+\s*$|\s*\S+")
NUMBER = re.compile(r"-?\d+")
ANSWER = re.compile(r"answer (?=\{[\"}])")
BROKEN = Reply(stream=(event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
    {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]}), Fault.EOF))  # fmt: skip
TROUBLE = {"fail": refusal(500), "busy": refusal(429, retry_after="1"), "slow": HANG, "break": BROKEN}


def answers(seen: Seen) -> Reply | None:
    """A script for `ScriptedBackend`; None is the demo's honest answer."""
    if seen.path != CHAT:
        return None
    body = seen.body
    messages = body["messages"]
    prompt = last_prompt(messages)
    if prompt in TROUBLE:
        return TROUBLE[prompt]
    problem = out_of_order(messages)
    if problem:
        return Reply(400, body=error(problem, "invalid_value"))
    message = next_message(body, prompt)
    return None if message is None else said(body, message)


def next_message(body: Json, prompt: str) -> Json | None:
    """What the assistant says now; None leaves it to the demo."""
    if prompt.startswith(EDIT):
        return {"content": BLOCK}
    results = results_since_the_prompt(body["messages"])
    steps = written_steps(prompt)
    done = sum(bool(message.get("tool_calls")) for message in since_the_prompt(body["messages"]))
    if done < len(steps):
        return calling(steps[done], body)
    if results:
        return {"content": "Results: " + "; ".join(results)}
    form = (body.get("response_format") or {}).get("type")
    written = written_answer(prompt)
    if form and written is not None:
        return {"content": json.dumps(written)}
    if form == "json_object":
        return {"content": json.dumps({name: name for name in QUOTED.findall(prompt)})}
    function = demanded(body)
    return None if function is None else calling([(function["name"], written or filled(function, prompt))], body)


def last_prompt(messages: list[Json]) -> str:
    users = [message for message in messages if message["role"] == "user"]
    return text_of(users[-1]) if users else ""


def text_of(message: Json) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part.get("type") == "text")


def since_the_prompt(messages: list[Json]) -> list[Json]:
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    return messages[last + 1 :]


def results_since_the_prompt(messages: list[Json]) -> list[str]:
    return [text_of(message) for message in since_the_prompt(messages) if message["role"] == "tool"]


def out_of_order(messages: list[Json]) -> str | None:
    """What OpenAI refuses: a result without its call, or a call without its result."""
    open_calls: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                return f"{message.get('tool_call_id')} answers no tool call"
            open_calls.discard(message["tool_call_id"])
        elif open_calls:
            return f"no result for {sorted(open_calls)}"
        open_calls |= {call["id"] for call in message.get("tool_calls") or ()}
    return f"no result for {sorted(open_calls)}" if open_calls else None


def written_steps(prompt: str) -> list[list[ToolCall]]:
    """The calls that a prompt writes down: `and` is at once, `then` after the results."""
    start = STEP.match(prompt)
    steps: list[list[ToolCall]] = []
    at = start.end() if start else len(prompt)
    while found := NAME.match(prompt, at):
        arguments, at = json.JSONDecoder().raw_decode(prompt, found.end())
        if not steps or found["link"] == "then":
            steps.append([])
        steps[-1].append((found["name"], arguments))
    return steps


def written_answer(prompt: str) -> Json | None:
    """The JSON of a prompt like `answer {"name": "Ann"}`."""
    found = ANSWER.search(prompt)
    if found is None:
        return None
    value: Json
    value, _ = json.JSONDecoder().raw_decode(prompt, found.end())
    return value


def demanded(body: Json) -> Json | None:
    """The function that `tool_choice` names, else the first; only in answer to a user."""
    functions: list[Json] = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    if not functions or body["messages"][-1]["role"] != "user" or choice == "none":
        return None
    named = choice["function"]["name"] if isinstance(choice, dict) else functions[0]["name"]
    return next(function for function in functions if function["name"] == named)


def filled(function: Json, prompt: str) -> Json:
    """The smallest arguments that fit, with the numbers and the quoted texts of the prompt where their types fit."""
    schema = function.get("parameters") or {}
    found: dict[str, Iterator[Any]] = {
        "integer": (int(number) for number in NUMBER.findall(prompt)),
        "string": iter(QUOTED.findall(prompt) or [prompt]),
    }
    arguments: Json = minimal(schema)
    for name, property_ in (schema.get("properties") or {}).items():
        if name in arguments and "enum" not in property_:
            arguments[name] = next(found.get(property_.get("type"), iter(())), arguments[name])
    return arguments


def calling(calls: list[ToolCall], body: Json) -> Json:
    turn = len(body["messages"])  # ids differ from turn to turn, as a provider's do
    return {
        "content": None,
        "tool_calls": [
            {"id": f"call_{turn}_{at}", "type": "function",
             "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
            for at, (name, arguments) in enumerate(calls)
        ],
    }  # fmt: skip


def said(body: Json, message: Json) -> Reply:
    """A message as a whole answer or as a stream, as the body asks."""
    written = json.dumps(body["messages"]), json.dumps(message)
    counted = usage(count(written[0]), []) | {"completion_tokens": count(written[1])}
    counted["total_tokens"] = counted["prompt_tokens"] + counted["completion_tokens"]
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    if body.get("stream"):
        return Reply(stream=list(events(body, message, reason, counted)))
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": reason}
    return Reply(body=header("chat.completion", body) | {"choices": [choice], "usage": counted})


def events(body: Json, message: Json, reason: str, counted: Json) -> Iterator[bytes]:
    shared = header("chat.completion.chunk", body)
    for delta in deltas(message):
        yield event(shared | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})
    yield event(shared | {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event(shared | {"choices": [], "usage": counted})
    yield DONE


def deltas(message: Json) -> Iterator[Json]:
    yield {"role": "assistant", "content": message["content"] and ""}
    for piece in WORD.findall(message["content"] or ""):
        yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]}
        for at in range(0, len(arguments), 7):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 7]}}]}
