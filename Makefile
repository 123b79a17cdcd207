# Two commands on a fresh machine with git, make and Python 3.11 or newer: make train, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-oldest check format clean

train: .venv/core data/drawn/index.json ## draw bins, train ResNet34 on the CPU, evaluate
	$(BIN)/bincount train

test: check ## everything that can run on this machine
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile --durations 15 --ignore tests/test_stopping.py
	$(BIN)/pytest -m slow --durations 5 tests/test_stopping.py # its limits of time are of a machine to itself

check: .venv/dev ## the quick round while working: lint, types, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" --numprocesses auto --dist loadfile --durations 15

test-oldest: .venv-oldest/dev ## the tests with the oldest torch that is supported
	.venv-oldest/bin/pytest -m "not slow"
	.venv-oldest/bin/pytest tests/test_train.py tests/test_ranks.py tests/test_resume.py tests/test_container.py -m slow

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data/drawn/index.json: | .venv/core
	$(BIN)/bincount prepare

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv-oldest/dev: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	@touch $@

clean: ## remove the environment and what the default commands made
	rm -rf .venv .venv-oldest data/drawn
