# Everyday commands. `make demo` and `make test` set everything up on a fresh machine.
# The first Python from 3.10 to 3.13; `make PYTHON=... demo` takes another.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10 python3.13; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
TRITONSMITH_EXTRAS ?= dev,tensorrt-rtx
# Of the soak: which of how many parts of the tests, and how many calls.
PART ?= 1/1
CALLS ?= 500000
PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadgroup --no-loadscope-reorder

# A pipe fails when any of its commands does.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
# One line that shows where pip is, on a terminal only.
SHOW := while IFS= read -r line; do test -t 1 && printf '\r\033[K%.76s' "$$line"; done; test -t 1 && printf '\r\033[K'; true

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-torch test check lint types fmt bench soak clean

help:
	@echo "make demo    build a repository from real models, check it, serve it, call it"
	@echo "make test    the tests (no torch, docker or GPU needed; used where present)"
	@echo "make check   lint, types, tests"
	@echo "make fmt     format the code"
	@echo "make bench   each benchmark prints a ratio against a peer"
	@echo "make soak    what takes longer: more tests, and half a million calls, every answer checked"
	@echo "make clean   remove what setup and demo made"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, a minute or two) ..."
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' || { echo "Python 3.10 to 3.13 is needed, $(or $(PYTHON),python3) is none; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "could not make a virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[$(TRITONSMITH_EXTRAS)]" | { $(SHOW); }
	@touch $@

demo: setup
	@$(BIN)/gen-repo build model_repository/models.yaml
	@if $(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("onnxscript")))'; \
	then $(MAKE) --no-print-directory demo-torch; \
	else echo "MobileNetV2 is left out: PyTorch is not installed ($(BIN)/pip install -c constraints.txt '.[torch]')"; fi
	@$(BIN)/gen-repo check --live model_repository

demo-torch: model_repository/mobilenet_v2.onnx
	@$(BIN)/gen-repo build $< --target onnxruntime

model_repository/mobilenet_v2.onnx: model_repository/mobilenet_v2.py
	@$(BIN)/gen-repo export $<:mobilenet_v2 $@ --force

test: setup
	@$(PYTEST)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python client/generate_sync.py --check
	@said=$$($(BIN)/lint-imports --no-logo) || { echo "$$said"; exit 1; }

types: setup
	@$(BIN)/mypy

check: lint types test

fmt: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python client/generate_sync.py

bench: setup
	@for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

soak: setup
	@$(PYTEST) --soak $(PART)
	@$(BIN)/python benchmarks/soak.py --calls $(CALLS)

clean:
	rm -rf model_repository/*/ model_repository/*.lock.json model_repository/mobilenet_v2.onnx
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
