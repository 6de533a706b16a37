# Every command that people type. `make` alone lists them.
# uv is found or put into the cache by deploy/bootstrap.py; nothing is installed into the system.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV := python3 deploy/bootstrap.py
# uv trusts what the machine trusts, as pip, npm and Go do: a company's own authority is known there. Its built-in list
# is left for a machine that has none.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/*.pem /etc/ssl/certs/*.crt /etc/pki/tls/certs/*),true,false)
# Python keeps what it has compiled, also where a person's shell says otherwise: hundreds of starts would compile it all again.
export PYTHONDONTWRITEBYTECODE :=
PYTHON := .venv/bin/python
STACK := $(PYTHON) -m deploy.embedded

.PHONY: help setup sync wheel up down status restart worker traffic demo test check test-all test-environment test-chart test-image test-browser test-slow record-bundles record-histories lint format chaos model load attack mutants fuzz bench bench-watch clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: sync  ## Install everything: Python packages, servers, builds (cached outside the checkout)
	@$(STACK) fetch

# The checkout is named relative to site-packages: Python reads such a file by the locale's encoding, and would not start
# in an ASCII locale where the path has other letters.
sync:
	@$(UV) sync --frozen --all-extras
	@for file in .venv/lib/python3*/site-packages/_editable_impl_constitution_runbook.pth; do echo ../../../.. >"$$file"; done

# make up EMBEDDED=postgres: the stack's own server again, where yours was given before.
up: sync  ## Start the real servers and our services; a second time: nothing happens. SIGSTORE=1: keyless signing besides
	@$(STACK) up $(addprefix --embedded ,$(EMBEDDED)) $(if $(SIGSTORE),--sigstore)

down:  ## Stop all of them; their data stays
	@if [ -x $(PYTHON) ]; then $(STACK) down; fi

status:  ## Show each server's state; exit 1 if one is dead; JSON when piped
	@$(STACK) status

# make restart NAME=kafka, or: make restart kafka
NAME ?= $(word 2,$(MAKECMDGOALS))
restart:  ## Start one server again: make restart NAME=kafka
	@$(if $(NAME),,echo "which one? make restart NAME=kafka" >&2; exit 2)
	@$(STACK) restart $(NAME)
ifeq ($(firstword $(MAKECMDGOALS)),restart)
%:
	@:
endif

ifneq ($(firstword $(MAKECMDGOALS)),restart)
worker: sync  ## Run one more worker in the foreground, with the settings of the running stack
	@$(STACK) worker
endif

traffic: sync  ## Example agents that call the running stack's orchestrators, until Ctrl-C
	@$(PYTHON) -m deploy.demo.traffic deploy/demo/requests.json

demo: export DEMO_STARTED := $(shell date +%s.%N)
demo: sync  ## The whole story on real servers: one good constitution, two bad ones undone; FAST=1 waits less; STOLEN=1: a stolen worker; SIGSTORE=1: signed keylessly, by passkey and by key
	@$(PYTHON) -m deploy.demo

# The tests run also when a linter objects, so that one run tells everything; the exit code is both's. The linters run
# beside them: much of a test's time is waiting for servers. So five at a time, a file each, on one set of servers.
# The chaos suite tells one story over several files, in order, on scratch servers of its own: beside the others, too.
PYTEST_ARGS ?= -n 5 --dist loadfile --no-loadscope-reorder
test: sync  ## Linters, types, import contracts, and every test that no faster one repeats
	@mkdir -p var; chaos=; $(STACK) fetch >var/fetch.log 2>&1 & fetch=$$!; \
	$(MAKE) --no-print-directory lint >var/lint.log 2>&1 & lint=$$!; \
	trap 'kill $$fetch $$lint $$chaos 2>/dev/null || true' EXIT; \
	echo "linters and chaos suite run beside the other tests (logs: var/lint.log, var/chaos.log);" \
		"waiting for downloads and builds (log: var/fetch.log)"; \
	wait $$fetch || { cat var/fetch.log; exit 1; }; \
	$(PYTHON) -m pytest tests/chaos >var/chaos.log 2>&1 & chaos=$$!; \
	code=0; $(PYTHON) -m pytest --ignore tests/chaos --ignore tests/chart $(PYTEST_ARGS) || code=1; \
	if wait $$chaos; then tail -1 var/chaos.log; else cat var/chaos.log; echo "chaos suite failed" >&2; code=1; fi; \
	if wait $$lint; then echo "lint passed"; else cat var/lint.log; echo "lint failed" >&2; code=1; fi; exit $$code

# About a minute on two free cores, where mypy has its cache; no server is started.
check: sync  ## Linters, types, import contracts and most unit tests, in about a minute; no server
	@$(MAKE) --no-print-directory lint
	@$(PYTHON) -m pytest -q -m "not slow and not simulation" --hypothesis-profile quick -n 2 tests/unit

test-all: sync  ## Every test there is: test, test-slow, set-up with a release on other machines and in other shells, chart, image, browser
	@code=0; for tests in test test-slow test-environment test-chart test-image test-browser; do $(MAKE) --no-print-directory $$tests || code=1; done; exit $$code

test-environment: sync
	@$(PYTHON) -m pytest -m environment tests/environment

test-chart: sync  ## Check chart, compose file and systemd units by the schemas and tools of each; no cluster, no Docker
	@$(UV) sync --quiet --frozen --all-extras --group chart
	@$(PYTHON) -m pytest -m chart tests/chart

# Installs buildah and mmdebstrap where they are missing, so it needs root and Debian or Ubuntu; no Docker.
test-image: sync  ## Build the image without Docker, and release with every role running from it
	@deploy/image/build.sh localhost/constitution-runbook
	@$(PYTHON) -m pytest -m image tests/image

# Installs Chromium where it is missing, so it needs root and Debian there.
test-browser: sync  ## Enrol and sign with passkeys in a real Chromium
	@command -v chromium >/dev/null || { echo "installing chromium"; export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update; apt-get -qq install --yes --no-install-recommends chromium >/dev/null; }
	@$(UV) sync --quiet --frozen --all-extras --group browser
	@$(PYTHON) -m pytest -m browser tests/integration/test_passkeys_browser.py

test-slow: sync  ## The tests that wait for long timeouts, or show in further places what another test shows
	@$(PYTHON) -m pytest -m slow --ignore tests/chart $(PYTEST_ARGS)

wheel: sync  ## Build the client's wheel into dist/
	@$(UV) build -q --wheel --out-dir dist

record-bundles: sync  ## Record tests/data/sigstore/private anew, from a private Sigstore
	@$(PYTHON) -m tests.record_bundles

record-histories: sync  ## Record tests/replay/histories anew, from real runs
	@$(PYTHON) -m tests.replay.record

lint: sync  ## ruff, mypy, import-linter
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@MYPYPATH=tests .venv/bin/mypy tests/policy/*.py tests/chaos/*.py  # as the gate imports them: policy.*, chaos.*
	@.venv/bin/lint-imports

format: sync  ## Let ruff format and mend what it can
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

# make chaos SHARD=2/4 runs a quarter; what is green in var/chaos/report.json is not run again.
SHARD ?= 1/1
chaos: sync  ## Every fault at every step on real servers; the table goes to docs/reliability.md
	@$(PYTHON) -m tests.faults --shard $(SHARD)

# make model EXAMPLES=50 STEPS=15 SEED=7 draws more, longer and other programs; make model PROGRAM=FILE repeats one.
EXAMPLES ?= 20
STEPS ?= 10
model: sync  ## Programs of releases, faults and interventions; the services must do what a model says
	@EXAMPLES=$(EXAMPLES) STEPS=$(STEPS) PROGRAM="$(PROGRAM)" $(PYTHON) -m pytest tests/model -s -m slow \
		$(if $(PROGRAM),-k written,-k model_says --hypothesis-profile model --hypothesis-seed $(SEED))

# make load RELEASES=20 FAULTS=0 SEED=7: fewer, without faults, other moments.
RELEASES ?= 500
FAULTS ?= 0.5
SEED ?= 20261122
load: sync  ## A day of releases, rollbacks and faults in an hour; the table goes to bench/README.md
	@$(PYTHON) -m tests.faults.load --releases $(RELEASES) --faults $(FAULTS) --seed $(SEED)

# make attack ACTS=200 SEED=7: fewer, and others.
ACTS ?= 2000
attack: sync  ## Play somebody who reaches Temporal and has no key; nothing may change that nobody signed
	@$(PYTHON) -m tests.attack --acts $(ACTS) --seed $(SEED)

# make fuzz INPUTS=500 SEED=7: fewer, and others.
INPUTS ?= 10000
fuzz: sync  ## Read changed documents, signatures, decisions, tokens, here and at the real service; none may count
	@INPUTS=$(INPUTS) SEED=$(SEED) $(PYTHON) -m pytest tests/integration/test_fuzz.py -s -q -m slow

# make mutants SERVERS=1: also the defences whose tests start servers. About a minute each on a busy machine.
SERVERS ?=
mutants: sync  ## Take one defence at a time out of a copy of the checkout; its tests must fail there
	@SERVERS=$(SERVERS) $(PYTHON) -m tests.mutants

# On a quiet machine; make bench BUSY=1 measures although it does other work, and the tables say how busy it was.
bench: sync  ## Measure; results go to bench/README.md
	@$(PYTHON) -m bench $(if $(BUSY),--busy)

bench-compare: sync  ## Is what was measured last slower than bench/results.json? Exit 1 names each ratio that is
	@$(PYTHON) -m bench.compare

bench-watch: sync  ## Simulate 2,000 releases a cell; tables and plots go to docs/watch.md (about 50 minutes; resumable)
	@$(PYTHON) -m bench.watch --runs 2000

clean:  ## Stop everything and delete the stack's data
	@if [ -x $(PYTHON) ]; then $(STACK) clean; fi
