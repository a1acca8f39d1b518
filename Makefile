# Everyday commands. `make demo` and `make test` set everything up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TRITONSMITH_EXTRAS ?= dev,tensorrt-rtx

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types fmt bench clean

help:
	@echo "make demo    build a repository from real models, check it, serve it, call it"
	@echo "make test    the tests (no torch, docker or GPU needed; used where present)"
	@echo "make check   lint, types, tests"
	@echo "make fmt     format the code"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, a minute or two) ..."
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "Python 3.10 to 3.13 is needed, this is %s; try: make PYTHON=python3.12 demo" % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV) || { echo "could not make a virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(TRITONSMITH_EXTRAS)]"
	@touch $@

demo: setup
	@$(BIN)/python model_repository/demo.py

test: setup
	@$(BIN)/python -m pytest -q

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

check: lint types test

fmt: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
