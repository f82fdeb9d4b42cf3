# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DRIVER := node/engine/driver/driver.so

.PHONY: setup demo test check lint types imports tests tests-of-processes tests-of-modules bench soak docs clean

setup: $(STAMP) $(DRIVER)

# The build backend comes first, pinned like all else: isolated builds would fetch one of their own choice.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(STAMP): requirements/build.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# The engine's native helper: nothing needs it, but calls are quicker with it.
$(DRIVER): $(wildcard node/engine/driver/*.[ch]) node/engine/driver/build.py $(STAMP)
	$(BIN)/python -m node.engine.driver.build

demo: setup
	$(BIN)/python -m examples.demo

test: check tests

check: lint types imports

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# Tests of whole processes mostly wait: the others run beside them.
PROCESSES := tests/benchmarks tests/docs tests/e2e tests/examples tests/faults
MODULES := $(filter-out $(PROCESSES),$(patsubst %/,%,$(wildcard tests/*/)))

tests: setup
	$(MAKE) --jobs=2 --output-sync=target tests-of-processes tests-of-modules

tests-of-processes: setup
	$(BIN)/python -m pytest $(PROCESSES)

tests-of-modules: setup
	$(BIN)/python -m pytest -p no:cacheprovider $(MODULES)

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
