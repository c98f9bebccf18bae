"""The status page: what the gateway does right now, for a person with a browser."""
