"""Which targets serve a call, in which order, and why."""
