"""What a live backend has and can do, found out by asking it."""
