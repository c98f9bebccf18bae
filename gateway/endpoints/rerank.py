"""Rerank: how well each of some documents answers a query, as Jina, Cohere and vLLM ask for it.

A model reads the query with each document, so that the query is paid for as often as there are documents.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.call import JSON, Upload, Work
from gateway.endpoints.fields import boolean, integer, text
from gateway.errors import InvalidValue

MAX_DOCUMENTS: Final = 2048
MAX_QUERY_CHARS: Final = 100_000


def work(body: JSON, upload: Upload | None) -> Work:
    query = text(body, "query", MAX_QUERY_CHARS)
    documents = body.get("documents")
    if not isinstance(documents, list) or not 0 < len(documents) <= MAX_DOCUMENTS:
        raise InvalidValue(f"'documents' must be a list of 1 to {MAX_DOCUMENTS} documents.", param="documents")
    texts = [_text(document, place) for place, document in enumerate(documents)]
    integer(body, "top_n", 1, MAX_DOCUMENTS, MAX_DOCUMENTS)
    boolean(body, "return_documents")
    longest = len(query.encode()) + max([len(one.encode()) for one in texts])
    return Work(((query, len(texts)), *((one, 1) for one in texts)), longest, prompts=len(texts))


def _text(document: Any, place: int) -> str:
    inner = document.get("text") if isinstance(document, dict) else document
    if not isinstance(inner, str):
        message = 'A document must be a text, or an object such as {"text": "..."}.'
        raise InvalidValue(message, param=f"documents[{place}]")
    return inner
