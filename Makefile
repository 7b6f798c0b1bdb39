# `make help` lists what there is. Every target sets up .venv by itself when it is missing or stale.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PORT ?= 5000
RESULTS ?= $(CURDIR)/results

.PHONY: help venv sweep test test-long test-cluster test-fast lint bench mlflow submit watch fetch

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

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

test: $(STAMP) ## the tests, real sweeps included, two at a time: a quarter of an hour on two cores
	$(RUN) -m pytest -n 2 --dist worksteal -m "not hosts and not long"

test-long: $(STAMP) ## whole sweeps, longer still: killed in many places, preempted, resumed, combined again; benchmarks
	$(RUN) -m pytest -n 2 --dist worksteal -m long

test-cluster: $(STAMP) ## clusters of three hosts on this machine, a quarter of an hour; needs root and Debian's openssh-server, rsync, nftables
	$(RUN) -m pytest -m hosts

test-fast: $(STAMP) ## the tests that take no more than a few seconds each
	$(RUN) -m pytest -n 2 --dist worksteal -m "not full and not gpu and not hosts and not long"

lint: $(STAMP) ## style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/hadolint Dockerfile

bench: $(STAMP) ## how fast it trains, augments and starts trials, beside what one would write from the libraries
	$(RUN) tests/benchmarks/augment.py
	$(RUN) tests/benchmarks/engine.py
	$(RUN) tests/benchmarks/device.py
	$(RUN) tests/benchmarks/overhead.py

mlflow: $(STAMP) ## all sweeps in the browser, at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		$(VENV)/bin/mlflow server --backend-store-uri sqlite:///$(RESULTS)/mlflow.db \
		--default-artifact-root $(RESULTS)/mlflow-artifacts --host 127.0.0.1 --port $(PORT)

# On a cluster; see "On a cluster" in README.md.
CLUSTER ?= cluster.yaml
RAY := $(VENV)/bin/ray

submit: $(STAMP) ## a sweep on the cluster's head, which goes on without this machine; ARGS="--time-budget 2h"
	$(RAY) exec $(CLUSTER) 'ray job submit --no-wait -- ~/sweeps/.venv/bin/python ~/sweeps/sweeps/arch_sweep.py $(ARGS)'

watch: $(STAMP) ## what the newest sweep on the cluster says
	$(RAY) exec $(CLUSTER) 'P=$$(pgrep -n -f "[s]weeps/arch_sweep.py"); \
		tail -n 100 $${P:+-F --pid=$$P} $$(ls -t /tmp/ray/session_latest/logs/job-driver-*.log | head -1)'

fetch: $(STAMP) ## the cluster's sweeps, into results/
	$(RAY) exec $(CLUSTER) 'python ~/sweeps/sweeps/snapshot.py ~/sweeps/results'
	mkdir -p results.fetched && $(RAY) rsync-down $(CLUSTER) '~/sweeps/results.fetched/' results.fetched/
	$(RUN) sweeps/snapshot.py results.fetched --into results
