# Two commands matter: `make train` and `make test`. Both build .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
SEED ?= 0

.PHONY: help install train test lint typecheck pytest peers bench clean

help:
	@echo "make train   install into $(VENV) and train PPO on CartPole (SEED=0)"
	@echo "make test    ruff, mypy and pytest"
	@echo "make peers   install Ray and Stable-Baselines3 into $(PEERS), for the benchmarks only"
	@echo "make bench   engine and programs against Ray, PPO against Stable-Baselines3 (needs 'make peers')"
	@echo "make clean   remove both environments and caches"

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV): about 1 GB, most of it torch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev,plot]'
	@touch $@

install: $(VENV)/.installed

train: install
	@$(BIN)/rlflow train configs/ppo_cartpole.yaml --seed $(SEED)

test: install  # side by side: the type checker needs one core, and the tests wait a lot
	@$(MAKE) --no-print-directory -j3 lint typecheck pytest

lint: install
	$(BIN)/ruff check engine algorithms rlflow tests benchmarks examples

typecheck: install
	$(BIN)/mypy -p rlflow

pytest: install  # three at a time, since tests wait a lot; by whole files, since those of a file may share an engine
	$(BIN)/pytest -n 3 --dist loadfile

$(PEERS)/.installed: benchmarks/requirements-peers.txt setup.cfg constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/requirements-peers.txt
	touch $@

peers: $(PEERS)/.installed

bench: install peers
	$(BIN)/python benchmarks/engine_vs_ray.py
	$(BIN)/python benchmarks/ported_programs.py
	$(BIN)/python benchmarks/ppo_vs_sb3.py

clean:
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
