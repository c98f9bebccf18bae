"""Calls that are not chat, completions or embeddings."""
