"""The dialects of clients, one per file: a request to the middle form, and answers back."""
