# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# PyMeasure's own tests are in its source distribution only.
PYMEASURE := $(VENV)/third-party/pymeasure-0.16.0.tar.gz

# The real data files, where they lie beside the project; else tests that need them are skipped.
SHARED_DATA := $(abspath ../shared/data)
ifneq ($(wildcard $(SHARED_DATA)),)
export PNNLAB_DATA ?= $(SHARED_DATA)
endif

.PHONY: setup test lint bench fuzz kill demo clean

setup: $(STAMP) $(PYMEASURE)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# Without a network this fetches nothing and fails nothing: the tests on it are then skipped.
$(PYMEASURE): tests/third-party.txt | $(STAMP)
	@$(BIN)/python -m pip download --quiet --retries 0 --no-deps --no-binary pymeasure \
		--require-hashes -r tests/third-party.txt -d $(@D) \
		|| echo "PyMeasure's source was not fetched: its own tests on our drivers are skipped"
	@touch -c $@

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@set -e; for script in $(sort $(wildcard tests/benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script"; \
	done

fuzz: setup
	$(BIN)/python tests/fuzz/fuzz_limits.py

kill: setup
	$(BIN)/python tests/kill/kill_training.py

demo: setup
	$(BIN)/pnnlab demo

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find lab drivers server twins tests -name __pycache__ -type d -prune -exec rm -rf {} +
