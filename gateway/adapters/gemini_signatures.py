"""Thought signatures: Gemini signs parts of an answer, and wants each signature back on the part that it came with.

Clients give them back in two ways. A thinking block of the middle form carries `gemini:PLACE:SIGNATURE`, where PLACE is
`text` or the number of a tool call: so it is known whose it is, which part it belongs to, and that one of another
provider (base64 has no colon) is none. A tool call carries it in `extra_content`, as on Google's own endpoint in
OpenAI's form. https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

from typing import Any, Final

from gateway.call import JSON

TEXT: Final = "text"
# What Google's page tells to send for a call that Gemini did not make, or whose signature a client lost: newer models
# refuse a call of the turn in progress without one.
STAND_IN: Final = "skip_thought_signature_validator"
_MARK: Final = "gemini:"


def block(place: str, signature: str) -> JSON:
    """What ends the thinking before the signed part."""
    return {"type": "thinking", "signature": f"{_MARK}{place}:{signature}"}


def extra_content(signature: str) -> JSON:
    return {"google": {"thought_signature": signature}}


def by_place(blocks: Any) -> dict[str, str]:
    """The signatures among thinking blocks that are Gemini's."""
    found = {}
    for given in blocks if isinstance(blocks, list) else ():
        signature = given.get("signature") if isinstance(given, dict) else None
        if isinstance(signature, str) and signature.startswith(_MARK):
            place, _, rest = signature[len(_MARK) :].partition(":")
            found[place] = rest
    return found


def of_call(call: JSON) -> str | None:
    """The signature that a tool call carries itself."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None
