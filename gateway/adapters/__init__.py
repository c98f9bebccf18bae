"""One backend dialect per file; pure: bytes in, bytes and usage out."""
