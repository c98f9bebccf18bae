"""What calls ask for that are not chat, completions or embeddings: one endpoint per file, all pure."""
