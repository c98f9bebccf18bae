"""The endpoints beside chat, completions and embeddings, as backends of OpenAI's dialect and their likes offer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from gateway.adapters.adapter import AnswerReader, StreamReader
from gateway.adapters.chunks import parsed
from gateway.adapters.counted import Counted, rerank_usage
from gateway.call import JSON, Call, Usage
from gateway.config.model import Model
from gateway.errors import AttemptFailed


class WorkAnswer:
    """A whole answer in JSON: checked, its usage read, its bytes left as they are."""

    def __init__(self, call: Call, model: Model, holds: str, counted: Counted) -> None:
        """`holds`: the field that an answer has in any case."""
        self._call = call
        self._model = model
        self._holds = holds
        self._counted = counted

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        answer = parsed(body, status)
        if not isinstance(answer.get(self._holds), list):
            raise AttemptFailed("broken", "the backend's answer holds nothing", backend_status=status)
        return body, self._counted(self._call, self._model, answer)

    def passed_text(self) -> str:
        return ""


@dataclass(frozen=True)
class Way:
    """One endpoint: where it is, and how answers are read."""

    path: str
    holds: str
    counted: Counted


WAYS: Final[Mapping[str, Way]] = {"rerank": Way("/rerank", "results", rerank_usage)}


def work_body(call: Call, as_name: str) -> bytes:
    body: JSON = {**call.body, "model": as_name}
    return orjson.dumps(body)


def work_answer(call: Call, model: Model) -> AnswerReader:
    way = WAYS[call.endpoint]
    return WorkAnswer(call, model, way.holds, way.counted)


def work_stream(call: Call, model: Model) -> StreamReader:
    raise NotImplementedError
