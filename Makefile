# Two commands: `make explore` opens the explorer, `make test` runs every test.
# Both make a virtual environment in .venv, install the exact versions of constraints.txt and do their job.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Options of `make explore`, for example: make explore PORT=5010 OPEN=no STORES="data/mine.zarr"
PORT ?= 5006
ADDRESS ?= localhost
OPEN ?= yes
STORES ?=

# Processes that run the tests.
WORKERS ?= 2

.PHONY: help explore test test-unit test-browser lint clean

help:
	@echo "make explore   open the explorer (makes a day of synthetic weather the first time)"
	@echo "make test      run every test"
	@echo "make lint      style and type checks"
	@echo "make clean     remove the virtual environment and caches"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tramontana needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/.python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.runtime $@

explore: $(VENV)/.runtime
	@$(BIN)/tramontana explore $(STORES) --demo --port $(PORT) --address $(ADDRESS) \
		$(if $(filter no,$(OPEN)),--no-open,--open)

test: test-unit test-browser

# Files, not single tests, are shared out: what a file's tests have in common is made once.
test-unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/browser

# A call of its own: Playwright's event loop and the asyncio tests do not share a process.
test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/browser

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
