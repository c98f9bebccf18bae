"""Grants, rating, the ledger and its store: what a call costs and who pays for it."""
