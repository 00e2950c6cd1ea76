# A thin door: everything here is one command that you can also type.

VENV ?= .venv
ARGS ?=
UPGRADE ?=
JOBS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

INSTALLED ?= $(VENV)/.installed
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --no-emit-package effective-contract --generate-hashes --no-emit-index-url \
	--python-version 3.11 --custom-compile-command "make requirements" $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: demo test faults bench docs pins pythons lint types format model verify requirements clean help

demo: $(INSTALLED) ## embedded broker and Postgres, the golden command and a few that are refused
	@$(BIN)/effective-worker demo $(ARGS)

test: $(INSTALLED) ## every promise, on two cores (ARGS="-k name" for some; REQUIRE_REAL_KAFKA=1 to insist on Apache Kafka)
	@$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder -m "not slow" $(ARGS)

faults: $(INSTALLED) ## exactly once, under fire: a cluster, workers and faults (ARGS="--seconds 480 --seed 7")
	@$(BIN)/python -m tests.faults $(ARGS)

bench: $(INSTALLED) ## what a command costs, beside what else one might do (ARGS="--only compare --rounds 5"; --quick)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement deploy/requirements-bench.txt
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(INSTALLED) ## all documents as a site, in build/site
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement deploy/requirements-docs.txt
	@$(BIN)/python deploy/make_site.py

model: ## the protocol, model-checked with spin and gcc; every mutant of it must break (ARGS=--deep or --quick)
	@python3 tests/model/check.py $(ARGS)

verify: $(INSTALLED) ## all there is, whatever breaks, and a table of it (ARGS="--from faults-2" goes on there; --list)
	@$(BIN)/python -m tests.gate verify $(ARGS)

pins: $(INSTALLED) ## what is pinned, against all vulnerabilities that are known (exit 2: nothing is known here)
	@$(BIN)/python -m tests.gate.pins

pythons: ## the tests without a broker under another Python (ARGS=3.13; exit 2: it is not there)
	@python3 -m tests.gate.pythons $(ARGS)

lint: $(INSTALLED) ## ruff: rules and format; import-linter: which module may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo

types: $(INSTALLED) ## mypy, strict
	@$(BIN)/mypy

format: $(INSTALLED) ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

requirements: $(INSTALLED) ## pin again what pyproject.toml asks for (UPGRADE=1 for the newest)
	@$(COMPILE) pyproject.toml --extra otel --output-file deploy/requirements.txt
	@$(COMPILE) --group build --output-file deploy/requirements-build.txt
	@$(COMPILE) pyproject.toml --all-extras --group house --constraint deploy/requirements.txt --output-file deploy/requirements-dev.txt
	@$(COMPILE) --group bench --constraint deploy/requirements-dev.txt --output-file deploy/requirements-bench.txt
	@$(COMPILE) --group docs --constraint deploy/requirements-dev.txt --output-file deploy/requirements-docs.txt
	@$(COMPILE) --group audit --output-file deploy/requirements-audit.txt

clean: ## remove what was built and cached, the environment too
	@rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-14s %s\n' "$$name" "$$what"; done

# The stamp is the last thing written, so an interrupted installation starts again. A working environment is kept.
$(INSTALLED): pyproject.toml schemas/pyproject.toml deploy/requirements-dev.txt
	@$(BIN)/python -c '' 2>/dev/null || sh deploy/make-venv.sh '$(VENV)'
	@echo 'installing into $(VENV) (once)' >&2
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement deploy/requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable schemas --editable .
	@touch $@
