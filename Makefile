# The two commands of the README, and what CI calls. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Two test files in parallel: a twelfth less time on two cores.
TWO := -n 2 --dist loadfile
LAKE ?= lake$(if $(QUICK),-quick)
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Python 3.12 on PATH, or in pyenv.
PYTHON312 ?= $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null \
  || ls $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.12*/bin/python 2>/dev/null | tail -n 1)
LAKE_TESTS := $(addprefix tests/lake/test_,tables.py ledger.py outputs.py snapshot.py session.py views.py) tests/test_clean.py

.PHONY: help venv demo run test test-slow test-databricks stress lint lock generated bench bundle-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## create .venv with the locked dependencies

$(VENV)/.installed: requirements.lock pyproject.toml install.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash install.sh
	@touch $@

demo: venv ## run every stage on 25,000 real reviews and print a summary (QUICK=1: on 2,000)
	@$(BIN)/python jobs/demo.py --lake "$(LAKE)" $(if $(QUICK),--max-rows 2000)

run: venv ## run a job of databricks.yml on this machine: make run JOB=score ARGS="--in-process --resume"
	@$(BIN)/python -m pipelines.bundle run $(or $(JOB),pipeline) --target local --var lake="$(LAKE)" $(ARGS)

test: venv ## run the ordinary tests: less than 10 minutes
	@$(BIN)/python -m pytest -q $(TWO)

test-slow: venv ## run the slow tests: the real encoder and reviews, every job in other places
	@$(BIN)/python -m pytest -q -m slow --timeout 2400 $(TWO)

test-databricks: venv ## run the lake's tests on Python 3.12 with Spark 4.0 and Databricks' packages
ifeq ($(PYTHON312),)
	@echo "test-databricks: skipped, Python 3.12 is neither on PATH nor in pyenv" >&2
else
	@uv venv --quiet --allow-existing --python "$(PYTHON312)" .venv-databricks
	@uv pip install --quiet --python .venv-databricks --requirement requirements-databricks.txt
	@uv pip install --quiet --python .venv-databricks --no-deps --editable .
	@.venv-databricks/bin/python -m pytest -q $(TWO) $(LAKE_TESTS)
endif

stress: venv ## run four concurrent writers, a vacuum of 50 versions, stages killed at CRASH_KILLS points (0 = all: days)
	@CRASH_KILLS=$(or $(CRASH_KILLS),3) $(BIN)/python -m pytest -q -m stress --timeout 0

lint: venv ## check the code: ruff, the layers of imports, mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy

lock: ## resolve the dependencies again, to their newest versions
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --all-extras --upgrade pyproject.toml -o requirements.lock

generated: venv ## write TABLES.md and spark-defaults.conf from their sources
	@$(BIN)/python -m schemas.document > TABLES.md
	@$(BIN)/python -m pipelines.lake.session > spark-defaults.conf

bench: venv ## measure for BENCHMARKS.md: two hours (ONLY=training,scoring: only these)
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

bundle-check: venv ## deploy databricks.yml with the real CLI (on PATH, or DATABRICKS_CLI=…) to a fake workspace
	@$(BIN)/python -m tests.bundle.bundle_check

clean: ## remove the environment, not the lakes
	rm -rf $(VENV) dist
