"""Responses that are kept, so that a tenant can go on from one of them, look at it again, and delete it."""
