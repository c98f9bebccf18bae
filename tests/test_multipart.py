"""Forms, cut into parts: each whole, byte by byte, and with bytes behind its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.multipart import Head, Malformed, Parts, boundary_of

FIELD = b'Content-Disposition: form-data; name="a"\r\n\r\n'
FILE = b'Content-Disposition: form-data; name="f"; filename="x.wav"\r\nContent-Type: audio/wav\r\n\r\n'
A, F = Head("a", None, "", ""), Head("f", "x.wav", "audio/wav", "")


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b" + end


def cut(data: bytes, size: int = 1 << 20) -> list[tuple[Head, bytes]]:
    parts, found = Parts(b"b"), list[tuple[Head, bytes]]()
    for place in range(0, len(data), size):
        for one in parts.feed(data[place : place + size]):
            if isinstance(one, Head):
                found.append((one, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + one)
    if not parts.done:
        raise Malformed("not whole")
    return found


FORMS: list[tuple[str, bytes, list[tuple[Head, bytes]]]] = [
    ("a field and a file", form(FIELD + b"1", FILE + b"xyz"), [(A, b"1"), (F, b"xyz")]),
    ("nothing in them", form(FIELD, FILE), [(A, b""), (F, b"")]),
    ("line ends in them", form(FIELD + b"\r\n", FILE + b"\r\n\r\n--\r\n"), [(A, b"\r\n"), (F, b"\r\n\r\n--\r\n")]),
    ("no part", form(), []),
    ("a preamble", b"hello\r\n" + form(FIELD + b"1"), [(A, b"1")]),
    ("nothing behind its end", form(FIELD + b"1", end=b"--"), [(A, b"1")]),
    ("what is nearly a delimiter", form(FILE + b"\r\n--a\n--b\r--b"), [(F, b"\r\n--a\n--b\r--b")]),
    ("no quotes", form(b"content-disposition:form-data; name=a\r\n\r\n1"), [(A, b"1")]),
    (
        "an escaped quote, and its name in UTF-8",
        form(b'Content-Disposition: form-data; name="f"; filename="a\\"\xc3\xa9"\r\n\r\n'),
        [(Head("f", 'a"é', "", ""), b"")],
    ),
    (
        "a name in the extended form",
        form(b"Content-Disposition: form-data; name=\"f\"; filename*=utf-8''%C3%A9.wav\r\n\r\n"),
        [(Head("f", "é.wav", "", ""), b"")],
    ),
    (
        "a coding",
        form(FIELD[:-2] + b"Content-Transfer-Encoding: Base64\r\n\r\nMQ=="),
        [(Head("a", None, "", "base64"), b"MQ==")],
    ),
]


@pytest.mark.parametrize(("name", "data", "parts"), FORMS)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_parts(name: str, data: bytes, parts: list[tuple[Head, bytes]], size: int) -> None:
    assert cut(data, size) == parts
    assert cut(data + b"\r\n--b\r\nbehind", size) == parts


BAD: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("no form", b"hello"),
    ("no end", form(FIELD + b"1", end=b"")),
    ("cut in a part", form(FIELD + b"1")[:-8]),
    ("a delimiter that goes on", form(FIELD + b"1", end=b"x--\r\n")),
    ("no disposition", form(b"Content-Type: text/plain\r\n\r\n1")),
    ("no name for its kind", form(b'Content-Disposition: attachment; name="a"\r\n\r\n1')),
    ("two names", form(b'Content-Disposition: form-data; name="a"; name="b"\r\n\r\n1')),
    ("a quote that does not end", form(b'Content-Disposition: form-data; name="a\r\n\r\n1')),
    ("a line that is none", form(FIELD[:-2] + b"hello\r\n\r\n1")),
    ("a header twice", form(FIELD[:-2] + FIELD + b"1")),
    ("a line that goes on", form(b'Content-Disposition: form-data;\r\n name="a"\r\n\r\n1')),
    ("a line end of its own", form(b'Content-Disposition: form-data; name="a\rb"\r\n\r\n1')),
    ("no UTF-8", form(b'Content-Disposition: form-data; name="\xff"\r\n\r\n1')),
    ("too long a head", form(b"X: " + b"x" * 9000 + b"\r\n\r\n1")),
    ("too long a head without an end", b"--b\r\n" + b"x" * 9000),
]


@pytest.mark.parametrize(("name", "data"), BAD)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_is_no_form(name: str, data: bytes, size: int) -> None:
    with pytest.raises(Malformed):
        cut(data, size)


@given(st.lists(st.binary(max_size=40).filter(lambda data: b"\r\n--b" not in b"\r\n" + data)), st.integers(1, 50))
def test_any_bytes_come_back(contents: list[bytes], size: int) -> None:
    assert cut(form(*[FILE + content for content in contents]), size) == [(F, content) for content in contents]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', b"a b"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=" + "b" * 71, None),
        ("multipart/form-data; boundary=é", None),
        ("multipart/mixed; boundary=b", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundary(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary
