# Every target that runs Python first makes sure that .venv holds what constraints.txt says.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test lint types test-unit test-fuzz test-component soak test-api test-e2e crds docs cluster-up cluster-down services clean

help: ## show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t18

$(STAMP): pyproject.toml constraints.txt
	@command -v uv >/dev/null || { echo "==> installing uv"; $(PYTHON) -m pip install --quiet --user --break-system-packages uv 2>/dev/null || $(PYTHON) -m pip install --quiet uv; }
	@UV=$$(command -v uv || echo "$$($(PYTHON) -m site --user-base)/bin/uv"); \
	 echo "==> creating $(VENV) (about 2 GB of packages; uv keeps them in its cache)"; \
	 test -x $(BIN)/python || "$$UV" venv --quiet --python '>=3.11,<3.13' $(VENV); \
	 "$$UV" pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[operator,runtime,dev]'
	@touch $@

setup: $(STAMP) ## create .venv with everything that the other targets need

services: $(STAMP) ## install or build the servers that tests and demo start (Kafka, Redis, S3)
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster setup --services

demo: services ## the whole line without Kubernetes: Kafka -> training -> Redis -> ranking (KEEP=1 leaves it running)
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster.demo

test: lint types test-unit test-fuzz test-component soak test-api test-e2e ## all tiers, from lint to a whole cluster

lint: $(STAMP) ## ruff, import contracts, generated files up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m kuberec_api.crd --check

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

test-unit: $(STAMP) ## pure tests, under 30 s
	$(PYTEST) tests/unit -n 2 --dist loadfile

test-fuzz: $(STAMP) ## random features: oracle, numba and NumPy give the same bits (FEATUREGEN_EXAMPLES cases)
	FEATUREGEN_EXAMPLES=$${FEATUREGEN_EXAMPLES:-8000} $(PYTEST) tests/unit/featuregen/test_equality.py -n 2 --dist worksteal

test-component: services ## real Kafka, Redis, S3 and Ray on this machine
	$(PYTEST) tests/component -n 2 --dist loadfile

# `make test` has its two minutes; MINUTES=10 is a proper run. SEED=n repeats one, MODE is Async, Sync or both.
MINUTES ?= 2
MODE ?= both
soak: services ## random kills, pauses, restarts, store errors and resizes for MINUTES, then exact counts (SEED, MODE)
	PYTHONPATH=devcluster $(BIN)/python -m tests.soak --minutes $(MINUTES) --mode $(MODE) $(if $(SEED),--seed $(SEED))

test-api: $(STAMP) ## the operator against a real kube-apiserver
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster setup --control-plane
	$(PYTEST) tests/api

test-e2e: $(STAMP) ## the whole devcluster, driven by kubectl and helm
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster setup
	$(PYTEST) tests/e2e -s

crds: $(STAMP) ## regenerate CRDs and their reference from the Pydantic types
	$(BIN)/python -m kuberec_api.crd --write

cluster-up: $(STAMP) ## a one-node Kubernetes with KubeRay, Kafka, Redis, S3 and our images (or your own KUBECONFIG)
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster up

cluster-down: $(STAMP) ## stop it and clean up mounts, network and processes
	@PYTHONPATH=devcluster $(BIN)/python -m kuberec_devcluster down

clean: ## remove .venv and local state (caches stay)
	rm -rf $(VENV) .devcluster .demo .pytest_cache .mypy_cache .ruff_cache
