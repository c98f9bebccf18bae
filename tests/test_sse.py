from __future__ import annotations

import pytest

from gateway.errors import AttemptFailed
from gateway.sse import EventSplitter, event_data, split_complete

STREAMS = [
    (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b": note\n\ndata:a\ndata: b\n\n", [None, b"a\nb"]),
    (b"event: x\ndata\n\n", [b""]),
]


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("trailing", [b"", b"data: cut"])
def test_events(stream: bytes, expected: list[bytes | None], step: int, trailing: bytes) -> None:
    splitter, data, events = EventSplitter(), stream + trailing, list[bytes]()
    for start in range(0, len(data), step):
        events += splitter.feed(data[start : start + step])
    assert [event_data(event) for event in events] == expected
    assert (b"".join(events), splitter.rest) == (stream, trailing)


def test_an_event_is_bounded() -> None:
    with pytest.raises(AttemptFailed):
        EventSplitter(100).feed(b"data: " + b"x" * 200)
    with pytest.raises(AttemptFailed):
        EventSplitter(100).feed(b"data: " + b"x" * 200 + b"\n\n")


def test_split_complete() -> None:
    assert split_complete(b"data: a\n\nda") == (b"data: a\n\n", b"da")
