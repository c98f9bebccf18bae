"""The hop to a backend: connections and credentials."""
