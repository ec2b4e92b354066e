VENV := .venv
BIN := $(VENV)/bin
PYTHONS := python3.12 python3.11 python3 python3.13
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON = $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c '$(SUPPORTED)' 2>/dev/null && command -v $(name))))
# Where every dependency has a wheel nothing is built; elsewhere faust-streaming comes as source.
WHEELS := $(if $(filter x86_64,$(shell uname -m)),--only-binary :all:,--prefer-binary)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
UV_VERSION := 0.13.9
LOCK := compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --extra build
# Most tests wait for servers and processes most of the time: three at once keep two cores busy.
ALL_TESTS := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo check test bench chaos chaos-long lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F': ' '{printf "make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.complete ## the environment in .venv, every dependency pinned and checked by its hash

demo: $(VENV)/.runs ## the whole pipeline on embedded servers and simulated ad accounts, within a minute (ARGS="--seed 7")
	@$(BIN)/parallax demo $(ARGS)

check: $(VENV)/.complete ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(VENV)/.complete ## every test, on a real Kafka and a real Redis (ARGS="-k settings": some, one by one)
	@$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest --durations=15 $(or $(ARGS),$(ALL_TESTS))

bench: $(VENV)/.complete ## throughput and latency beside a plain Faust agent
	$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.complete ## faults on real servers with every sink compared, some 3 minutes (ARGS="--seed 7 --only zombie")
	$(BIN)/python -m tests.chaos $(ARGS)

chaos-long: $(VENV)/.complete ## the same with over 200 kills, 60 zombies and long outages, an hour at most
	$(BIN)/python -m tests.chaos --long $(ARGS)

lock: $(VENV)/.complete ## the newest versions that pyproject.toml allows, into requirements/
	$(PIP) install uv==$(UV_VERSION)
	$(BIN)/uv pip $(LOCK) --upgrade --extra dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip $(LOCK) --upgrade --constraint requirements/dev.txt pyproject.toml -o requirements/run.txt

clean: ## remove the environment, caches and local state
	rm -rf $(VENV) .parallax .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.runs: pyproject.toml requirements/run.txt
	@test -n "$(PYTHON)" || { echo "Parallax needs Python 3.11, 3.12 or 3.13: install one, with its venv module" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes $(WHEELS) -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.complete: $(VENV)/.runs requirements/dev.txt
	@$(PIP) install --require-hashes $(WHEELS) -r requirements/dev.txt
	@touch $@
