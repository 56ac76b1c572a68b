# A fresh machine needs Python 3.11 or 3.12 and make; everything else is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick simulate lint format bench proto requirements clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell ops/find-python)
# Each has its own servers, a Kafka of half a gigabyte included; 0 tests in one process, where a debugger works.
WORKERS ?= 2

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 16

setup: $(VENV)/.installed ## Make .venv with the hashed requirements of this Python

# Installed when the lock or the project's metadata changed; an existing .venv is brought up to date, not thrown away.
$(VENV)/.installed: pyproject.toml $(wildcard requirements/all-*.txt)
	@if [ ! -x $(BIN)/python ]; then \
		test -n "$(PYTHON)" || exit 1; \
		echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --require-hashes --requirement \
		requirements/all-$$($(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt
	@# setuptools warns of every editable install; the paths are as they should be.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@# Compiled now, for a minute, instead of by whatever process is the first to need them.
	$(BIN)/python -m featurestore warm-up
	@touch $@

demo: setup ## A minute or two: history, live payments, suspicious cards, lookups; leaves nothing running
	$(BIN)/python -m featurestore demo

test: setup ## Everything that this machine can run, two files of tests at a time; ARGS="-k name" chooses
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-quick: setup ## Without Kafka and without the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not kafka and not slow" $(ARGS)

# Five to ten minutes on two cores; it prints the seed and the smallest schedule of whatever it finds.
simulate: setup ## Ten thousand schedules of faults against the oracle; SEED=7 begins there, COUNT=1 runs one
	$(BIN)/python -m tests.simulation --seed $(or $(SEED),0) --count $(or $(COUNT),10000) $(ARGS)

lint: setup ## Style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure; ARGS chooses scenarios
	$(BIN)/python -m benchmarks $(ARGS)

proto: setup ## Compile proto/ after a change
	$(BIN)/python proto/compile_feast.py
	$(BIN)/python proto/compile_lookup.py

requirements: setup ## Compile requirements/ for this Python after a change of pyproject.toml
	requirements/lock.sh $(BIN)/python

clean: ## Remove what tools left behind, but not .venv
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
