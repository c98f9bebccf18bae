"""Images, by a prompt: counted, and in tokens where the backend says so."""

from __future__ import annotations

from typing import Final

from gateway.call import JSON, Upload, Work
from gateway.endpoints.fields import boolean, integer, text

MAX_IMAGES: Final = 10
MAX_PARTIAL_IMAGES: Final = 3
NUMBERS: Final = ("n", "batch_size", "num_images", "num_outputs")  # what backends call it: more would come than is held
MAX_PROMPT_CHARS: Final = 32_000  # what OpenAI takes at most


def work(body: JSON, upload: Upload | None) -> Work:
    prompt = text(body, "prompt", MAX_PROMPT_CHARS)
    n = max([integer(body, name, 1, MAX_IMAGES, 1) for name in NUMBERS])
    integer(body, "partial_images", 0, MAX_PARTIAL_IMAGES, 0)
    stream = boolean(body, "stream")
    return Work(((prompt, 1),), len(prompt.encode()), counts={"images": n}, outputs=n, stream=stream, slow=True)
