# Dataset Factory. `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCE ?=
CLIP ?=
# What is said of the source on make's own command line; the environment has an IMAGE of its own in many places.
given = $(if $(filter command,$(firstword $(origin $1))),--$2 '$($1)')
MAPPING = $(call given,IMAGE,image) $(call given,CAPTION,caption) $(call given,KEY,key) $(call given,METADATA,metadata)
PIP := $(BIN)/python -m pip --disable-pip-version-check install
# A build of torch for accelerators names what it needs besides, and the other builds don't.
WANTS_CUDA := import importlib.metadata as m, sys; sys.exit(not any('nvidia' in r or 'cuda' in r for r in m.requires('torch')))
export OMP_NUM_THREADS ?= 1
# Each command, engine and worker is a process that imports anew: without kept bytecode that takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo dev docs test week lint bench lock audit clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with pinned packages

$(STAMP): pyproject.toml requirements.lock torch-cpu.lock accelerator.lock installer.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# Torch without CUDA is 3 GB less: it is taken where pip finds it, by PIP_FIND_LINKS or an index of its own.
	@$(PIP) --no-deps --require-hashes --requirement torch-cpu.lock 2> /dev/null || true
	$(BIN)/python .ci/install.py requirements.lock
	@! $(BIN)/python -c "$(WANTS_CUDA)" || { set -x; $(BIN)/python .ci/install.py accelerator.lock; }
	$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

demo: $(STAMP) ## run the whole asset graph on rendered images; SOURCE=path-or-uri runs it on your own shards (CAPTION=…, IMAGE=…, KEY=…, METADATA=…), CLIP=checkpoint judges them
	@$(BIN)/factory demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(CLIP),--clip '$(CLIP)') $(MAPPING)

dev: $(STAMP) ## the Dagster UI, the shard sensor and the automation
	@$(BIN)/factory up

test: $(STAMP) ## the test suite
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

week: $(STAMP) ## all events of a week under Dagster's daemon, ten minutes and more
	$(BIN)/python -m pytest -m "week or not week" tests/test_week.py

docs: $(STAMP) ## the documentation as a site, links checked
	$(BIN)/zensical build --strict --clean
	@echo "build/site/index.html is its first page; with the search: $(BIN)/python -m http.server --directory build/site 8000"

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## the figures of the README, measured here
	@for name in versions ingest signals loader; do $(BIN)/python -m bench.$$name || exit 1; done

lock: ## settle the pinned versions and their hashes anew (needs uv)
	$(PYTHON) .ci/lock.py > constraints.new && mv constraints.new constraints.txt
	$(PYTHON) .ci/hashes.py

audit: ## known vulnerabilities of the pinned packages; needs a network
	@$(PYTHON) .ci/audit.py

clean: ## remove .venv and the local data folder
	rm -rf $(VENV) .venv-audit .factory .cache build
