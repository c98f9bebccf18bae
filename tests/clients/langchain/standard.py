"""LangChain's standard tests of chat models and embeddings. `exercise.py` runs them, in LangChain's environment.

Their pictures and documents come from the web; here an empty one of each kind stands in.
"""

from __future__ import annotations

import httpx
import pytest
from checks import BASE_URL, KEY, URL
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.integration_tests import chat_models as standard

FILES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-1.4\n", "wav": b"RIFF\0\0\0\0WAVE"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, **_: object) -> httpx.Response:
        return httpx.Response(200, content=FILES[url.rpartition(".")[2]])

    monkeypatch.setattr(standard.httpx, "get", get)


class TestOpenAI(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = {  # noqa: RUF012
        "model": "large", "base_url": BASE_URL, "api_key": KEY, "stream_usage": True, "max_retries": 0
    }  # fmt: skip
    model_override_value = "medium"
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_pdf_tool_message = True
    supports_json_mode = True
    supports_model_override = True


class TestOpenAIResponses(TestOpenAI):
    chat_model_params = {**TestOpenAI.chat_model_params, "use_responses_api": True}  # noqa: RUF012
    supports_pdf_tool_message = False  # a result of a tool is text and pictures between dialects


class TestAnthropic(ChatModelIntegrationTests):
    chat_model_class = ChatAnthropic
    chat_model_params = {  # noqa: RUF012
        "model": "large", "base_url": URL, "api_key": KEY, "max_tokens": 1000, "max_retries": 0
    }  # fmt: skip
    model_override_value = "medium"
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = False
    supports_anthropic_inputs = True
    supports_model_override = True


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params = {  # noqa: RUF012
        "model": "large", "base_url": BASE_URL, "api_key": KEY, "check_embedding_ctx_length": False
    }  # fmt: skip
