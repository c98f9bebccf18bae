"""What a call asks and an answer says, whatever the dialect: what must be the same on both sides of the gateway.

Each speaker of a dialect is written here by the provider's documentation alone and knows nothing of the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

JSON = dict[str, Any]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Image:
    data: str  # base64
    mime: str = "image/png"


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: JSON


@dataclass(frozen=True)
class System:
    text: str


@dataclass(frozen=True)
class User:
    parts: tuple[Text | Image, ...]


@dataclass(frozen=True)
class Assistant:
    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ToolResult:
    id: str
    name: str
    text: str


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    schema: JSON


@dataclass(frozen=True)
class Ask:
    turns: tuple[System | User | Assistant | ToolResult, ...]
    tools: tuple[Tool, ...] = ()
    choice: str = ""  # | auto | required | none | the name of a tool
    schema: JSON | None = None
    max_tokens: int = 200
    temperature: float | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """`stop` is one of stop, length, tools, filter. Tokens read include those that were cached."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    stop: str = "stop"
    read: int = 20
    cached: int = 0
    written: int = 10


@dataclass
class Heard:
    """What a client has made of a stream so far."""

    text: str = ""
    thought: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    stop: str = ""
    read: int = 0
    cached: int = 0
    written: int = 0
    error: str = ""
    complete: bool = False

    def said(self) -> Said:
        return Said(self.text, tuple(self.calls), self.thought, self.stop, self.read, self.cached, self.written)


class Client(Protocol):
    name: str
    path: str

    def headers(self, key: str) -> dict[str, str]: ...

    def asks(self, ask: Ask, model: str, *, stream: bool) -> JSON: ...

    def hears(self, answer: JSON) -> Said: ...

    def hears_stream(self, stream: bytes) -> Heard: ...

    def error(self, answer: JSON) -> str:
        """Its message, after a look at the shape."""


class Backend(Protocol):
    kind: str
    settings: str  # further keys of it in routes.yaml

    def base_url(self, url: str) -> str: ...

    def understands(self, path: str, headers: Any, body: JSON) -> Ask: ...

    def streams(self, path: str, body: JSON) -> bool: ...

    def says(self, said: Said) -> JSON: ...

    def events(self, said: Said) -> list[bytes]: ...

    def refuses(self, status: int, message: str) -> JSON: ...
