"""The providers that LiteLLM knows by a prefix, and which of them speak the OpenAI dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Provider:
    """`base_url` is used without an api_base; `path` is put behind an api_base that does not end with it.

    `key_env` is the variable that LiteLLM reads where no api_key is written; "" where none is needed.
    """

    base_url: str = ""
    key_env: str = ""
    path: str = ""
    note: str = ""


_COMPATIBLE: Final = "it is spoken to at its OpenAI-compatible address, where features of its own dialect are missing"
_AZURE: Final = "Azure is spoken to at its v1 address, which needs no api_version; `as` is the name of the deployment"

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "text-completion-openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "custom_openai": Provider(),
    "openai_like": Provider(),
    "litellm_proxy": Provider("", "LITELLM_PROXY_API_KEY"),
    "azure": Provider("", "AZURE_API_KEY", "/openai/v1", _AZURE),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "/v1", _COMPATIBLE),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "/v1beta/openai", _COMPATIBLE
    ),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "together_ai": Provider("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "sambanova": Provider("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "nvidia_nim": Provider("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "deepinfra": Provider("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "dashscope": Provider("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "moonshot": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "volcengine": Provider("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "cohere": Provider("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "/compatibility/v1", _COMPATIBLE),
    "hosted_vllm": Provider(),
    "vllm": Provider(),
    "lm_studio": Provider("http://localhost:1234/v1"),
    "llamafile": Provider("http://127.0.0.1:8080/v1"),
    "xinference": Provider("http://127.0.0.1:9997/v1"),
    "ollama": Provider("http://localhost:11434/v1", "", "/v1", _COMPATIBLE),
    "ollama_chat": Provider("http://localhost:11434/v1", "", "/v1", _COMPATIBLE),
}
# They have dialects, or ways to sign a call, that this gateway does not speak.
FOREIGN: Final = frozenset({
    "bedrock", "bedrock_converse", "sagemaker", "sagemaker_chat", "vertex_ai", "vertex_ai_beta", "azure_ai",
    "azure_text", "huggingface", "replicate", "watsonx", "watsonx_text", "databricks", "snowflake", "cohere_chat",
    "ai21", "ai21_chat", "palm", "nlp_cloud", "petals", "aleph_alpha", "predibase", "cloudflare", "oci", "github",
    "github_copilot", "triton", "voyage", "jina_ai", "infinity", "deepgram", "elevenlabs", "assemblyai",
    "stability", "recraft", "topaz", "baseten",
})  # fmt: skip
# What LiteLLM takes a name without a prefix for.
BARE: Final = (
    ("gpt-", "openai"), ("chatgpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"),
    ("text-embedding-", "openai"), ("claude-", "anthropic"), ("command-", "cohere"), ("gemini-", "vertex_ai"),
)  # fmt: skip


def provider_of(model: str) -> tuple[str, str]:
    """(provider, the provider's name for the model); the provider is "" where the name tells of none."""
    prefix, slash, rest = model.partition("/")
    if slash and (prefix in PROVIDERS or prefix in FOREIGN):
        return prefix, rest
    return next((provider for start, provider in BARE if model.startswith(start)), ""), model
