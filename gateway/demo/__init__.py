"""The scripted backend and routes.yaml of `make run`; tests and benchmarks use them too."""
