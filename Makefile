# Everything a person types. `make` alone says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test check lint chaos up down bench full-size fuzz migration clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

demo: $(READY) ## set up, start the local stack, caption pictures and draw prompts into demo-output/
	$(BIN)/python docs/demo.py

check: lint ## format, lint, types, import rules and unit tests; two or three minutes, offline
	$(PYTEST) tests/unit tests/architecture

lint: $(READY) ## of these, all but the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY) ## every test that needs no GPU, on real local servers
	@# Two at a time: the one mostly waits for servers, the other mostly computes. Each starts servers of its own.
	$(PYTEST) -m "not full_size" --ignore=tests/acceptance & rest=$$!; trap 'kill $$rest' INT TERM; \
	$(PYTEST) -m "not full_size" tests/acceptance; acceptance=$$?; wait $$rest && exit $$acceptance

chaos: $(READY) ## fault storms on the whole local system: make chaos STORMS=5 SEED=1 ITEMS=1000; or POINTS=1, or BLIND=1
	$(BIN)/python -m tests.chaos --storms $(or $(STORMS),5) --seed $(or $(SEED),1) --items $(or $(ITEMS),1000) \
		--settings $(or $(SETTINGS),short) $(if $(FAULTS),--faults $(FAULTS)) $(if $(POINTS),--points) $(if $(BLIND),--blind)

full-size: $(READY) ## build, load and run random models of full size: 8 GB of disk, 6 GB of memory, some minutes
	$(PYTEST) -m full_size -s

fuzz: $(READY) ## made-up requests at every operation of the API, 10,000 and more; some minutes. EXAMPLES=... SEED=...
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) FUZZ_SEED=$(or $(SEED),1) $(PYTEST) -s -o timeout=3600 tests/integration/test_fuzz.py

up: $(READY) ## start the local stack with the models of last time
	$(BIN)/janus up

down: $(READY) ## stop the local stack; its data stays
	$(BIN)/janus down

bench: $(READY) ## measure system and engine, beside its peers, on a machine that does nothing else; hours; writes benchmarks/
	$(BIN)/python benchmarks/system.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/engine.py

migration: $(READY) ## a new migration from the tables: make migration name=add_something
	$(BIN)/python -m orchestrator.admin new-migration "$(name)"

clean: ## remove the virtual environment and caches; data of the local stack stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
