"""MoMA gateway: one OpenAI-compatible endpoint over many model backends, every call charged exactly once."""

__version__ = "0.1.0"
