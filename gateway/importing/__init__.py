"""Configurations of other gateways, carried over to routes.yaml."""
