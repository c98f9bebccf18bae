"""simonw's `llm`: its command line, and its Python interface."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["HOME"]) / "llm"
os.environ["LLM_USER_PATH"] = str(FOLDER)  # before the import: it is where `llm` keeps everything

import llm  # noqa: E402
from checks import BASE_URL, KEY, REAL, run  # noqa: E402
from pydantic import BaseModel  # noqa: E402

MODELS = f"""
- {{model_id: moma, model_name: large, api_base: "{BASE_URL}", api_key_name: moma, supports_tools: true,
   supports_schema: true, vision: true}}
- {{model_id: moma-responses, model_name: large, api_base: "{BASE_URL}", api_key_name: moma, responses: true,
   supports_tools: true}}
- {{model_id: stranger, model_name: large, api_base: "{BASE_URL}", api_key_name: stranger}}
- {{model_id: real, model_name: {REAL}, api_base: "{BASE_URL}", api_key_name: moma}}
"""
WEATHER = "def weather(city: str) -> str:\n    'The weather in a city.'\n    return f'sunny in {city}'\n"
CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"


class Person(BaseModel):
    name: str
    age: int


def command(*words: str, typed: str = "", code: int = 0) -> str:
    """What `llm WORDS` prints, its errors with it."""
    done = subprocess.run([sys.executable, "-m", "llm", *words], input=typed, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def configured() -> None:
    FOLDER.mkdir()
    (FOLDER / "extra-openai-models.yaml").write_text(MODELS)
    (FOLDER / "keys.json").write_text(json.dumps({"moma": KEY, "stranger": "sk-moma-wrong"}))
    assert "moma" in command("models")


def prompt() -> None:
    assert command("-m", "moma", "hello there", "--no-stream") == "You said: hello there\n"


def prompt_streamed() -> None:
    assert command("-m", "moma", "hello there", "-s", "be brief", "-u") == "You said: hello there\n"


def chat() -> None:
    printed = command("chat", "-m", "moma", typed="hello\nagain\nquit\n")
    assert "You said: hello\n" in printed
    assert "You said: again\n" in printed


def going_on() -> None:
    assert "You said: more" in command("-c", "more")
    logged = json.loads(command("logs", "--json", "-n", "1"))
    assert logged[0]["response"].strip() == "You said: more"
    assert logged[0]["input_tokens"] > 0


def tools() -> None:
    assert command("-m", "moma", CALLS, "--functions", WEATHER).strip() == RESULTS


def schema() -> None:
    printed = command("-m", "moma", 'answer {"name": "Ann", "age": 7}', "--schema", "name, age int")
    assert json.loads(printed) == {"name": "Ann", "age": 7}


def attachment() -> None:
    picture = FOLDER / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    assert command("-m", "moma", "look", "--at", str(picture), "image/png").strip() == "You said: look"


def python() -> None:
    model = llm.get_model("moma")
    answer = model.prompt("hello there")
    assert "".join(answer) == "You said: hello there"
    assert answer.usage().input > 0
    assert json.loads(model.prompt('answer {"name": "Ann", "age": 7}', schema=Person).text())["age"] == 7


async def python_async() -> None:
    answer = llm.get_async_model("moma").prompt("hello there")
    assert "".join([piece async for piece in answer]) == "You said: hello there"


def errors() -> None:
    assert "401" in command("-m", "stranger", "hello", code=1)
    assert "429" in command("-m", "moma", "busy", code=1)
    assert "The backend failed" in command("-m", "moma", "break", code=1)


def responses() -> None:
    assert command("-m", "moma-responses", "hello there") == "You said: hello there\n"
    assert command("-m", "moma-responses", CALLS, "--functions", WEATHER).strip() == RESULTS


def real_model() -> None:
    asked = ("-m", "real", "Say hello.", "-o", "max_tokens", "16", "-o", "temperature", "0")
    whole = command(*asked, "--no-stream")
    assert whole.strip()
    assert command(*asked) == whole


configured()
run(
    importlib.metadata.version("llm"),
    chat={
        "prompt": prompt,
        "streamed prompt": prompt_streamed,
        "chat": chat,
        "conversation gone on with": going_on,
        "tools over three turns": tools,
        "schema": schema,
        "attachment": attachment,
        "Python interface": python,
        "async": python_async,
        "errors": errors,
    },
    responses={"responses": responses},
    real={"whole and streamed": real_model},
)
