"""routes.test.yaml: calls, and what is expected to become of them."""
