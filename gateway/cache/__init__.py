"""Answers that are given again: what is the same call, where answers are kept, and calls under way that others read."""
