"""What translation costs: CPU per call of each pair of dialects against chat passed on as bytes, in one run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import orjson

from benchmarks import load, processes
from benchmarks.cpu import CONNECTIONS, cpu_us

ROUNDS = 9
CALLS = {False: 2_000, True: 1_000}  # by whether it is a stream


@dataclass(frozen=True)
class Pair:
    """A client's dialect over the kind of a backend."""

    client: str
    backend: str

    def load(self, *, stream: bool) -> load.Load:
        path, body, last = _ASKS[self.client](_MODELS[self.backend])
        body |= {"stream": True} if stream else {}
        return load.Load("", orjson.dumps(body), load.STREAM_END if stream else b"}", path, last)


_MODELS = {"openai": "m", "anthropic": "n"}
_SYSTEM, _USER = load.MESSAGES
_LIMITS = {"temperature": 0.7}


def _chat(model: str) -> tuple[str, dict[str, Any], bytes]:
    body = {"model": model, "messages": load.MESSAGES, "max_tokens": 256, **_LIMITS}
    return "/v1/chat/completions", body, b"data: [DONE]"


def _messages(model: str) -> tuple[str, dict[str, Any], bytes]:
    body = {"model": model, "system": _SYSTEM["content"], "messages": [_USER], "max_tokens": 256, **_LIMITS}
    return "/v1/messages", body, b"event: message_stop"


def _responses(model: str) -> tuple[str, dict[str, Any], bytes]:
    body = {"model": model, "instructions": _SYSTEM["content"], "input": [_USER], "max_output_tokens": 256}
    return "/v1/responses", {**body, **_LIMITS, "store": False}, b"event: response.completed"


_ASKS = {"chat": _chat, "messages": _messages, "responses": _responses}
PAIRS = [Pair(client, backend) for client in _ASKS for backend in _MODELS]


def measure(scale: float = 1.0) -> list[tuple[Pair, tuple[float, float], tuple[float, float]]]:
    """Of each pair microseconds per call and their ratio to chat over openai, for W1 and for W2."""
    found: dict[tuple[Pair, bool], list[float]] = {}
    with processes.upstream() as upstream, processes.gateway(upstream.port) as gateway:
        for stream, calls in CALLS.items():
            calls = max(100, int(calls * scale))
            for pair in PAIRS:
                cpu_us(gateway, pair.load(stream=stream), calls // 5)
            for _ in range(ROUNDS):
                for pair in PAIRS:
                    found.setdefault((pair, stream), []).append(cpu_us(gateway, pair.load(stream=stream), calls))
    return [(pair, _figures(found, pair, stream=False), _figures(found, pair, stream=True)) for pair in PAIRS]


def _figures(found: dict[tuple[Pair, bool], list[float]], pair: Pair, *, stream: bool) -> tuple[float, float]:
    ours, plain = found[pair, stream], found[PAIRS[0], stream]
    return median(ours), median(one / base for one, base in zip(ours, plain, strict=True))


def table() -> None:
    print(f"CPU per call by dialect, {CONNECTIONS} connections in a closed loop, median of {ROUNDS} rounds in turns\n")
    print("| client | backend | W1, us | ratio | W2, us | ratio |\n|---|---|---|---|---|---|")
    for pair, whole, stream in measure():
        figures = f"{whole[0]:.0f} | {whole[1]:.2f} | {stream[0]:.0f} | {stream[1]:.2f}"
        print(f"| {pair.client} | {pair.backend} | {figures} |")
    print()


if __name__ == "__main__":
    table()
