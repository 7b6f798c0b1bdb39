# `make help` lists what there is. Every target sets up .venv by itself when it is missing or stale.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PORT ?= 5000
RESULTS ?= $(CURDIR)/results

.PHONY: help venv sweep test test-fast lint bench mlflow

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

venv: $(STAMP) ## the virtual environment, .venv

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: $(PYTHON) is older than Python 3.11; name another with make PYTHON=..."; exit 2; }
	@echo "Setting up $(VENV): some minutes and about 7 GB, once."
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/pip install --disable-pip-version-check --no-deps -e .
	@touch $@

sweep: $(STAMP) ## a whole sweep in some minutes, on the digits that come with the project
	$(RUN) sweeps/arch_sweep.py --quick

test: $(STAMP) ## all tests, real sweeps included, two at a time
	$(RUN) -m pytest -n 2 --dist worksteal

test-fast: $(STAMP) ## the tests that take no more than a few seconds each
	$(RUN) -m pytest -m "not full and not gpu"

lint: $(STAMP) ## style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(STAMP) ## how fast it trains, augments and starts trials, beside what one would write from the libraries
	$(RUN) tests/benchmarks/augment.py
	$(RUN) tests/benchmarks/engine.py
	$(RUN) tests/benchmarks/device.py
	$(RUN) tests/benchmarks/overhead.py

mlflow: $(STAMP) ## all sweeps in the browser, at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		$(VENV)/bin/mlflow server --backend-store-uri sqlite:///$(RESULTS)/mlflow.db \
		--default-artifact-root $(RESULTS)/mlflow-artifacts --host 127.0.0.1 --port $(PORT)
