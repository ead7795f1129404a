# `make run` and `make test` need Python 3.11 and nothing else; they make .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

DESTDIR ?=
PREFIX ?= /opt/logengine
SYSCONFDIR ?= /etc
UNITDIR ?= /usr/lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
BINDIR ?= /usr/local/bin
PIP_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench crash soak sim sim-slice mutants test-systemd install uninstall lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The pinned versions hold for running, too: what was tested is what runs.
$(INSTALLED): $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

run: $(INSTALLED) ## start the daemon on ./var
	@echo "Send:  echo '{\"event\":\"hello\"}' | $(BIN)/logengine send --socket var/socket"
	@echo "Read:  $(BIN)/logengine tail -f --data var/data"
	@echo "Stop:  Ctrl-C"
	@mkdir -p var
	@exec $(BIN)/logengine run --data var/data --socket var/socket

test: $(INSTALLED_DEV) ## all tests but the long campaigns
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(INSTALLED_DEV) ## format, lint, types, imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## mend what can be mended
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(INSTALLED_DEV) ## measure speed; writes benchmarks/RESULTS.md; BENCH="latency --rounds 1" for parts
	$(BIN)/python -m benchmarks $(BENCH)

crash: $(INSTALLED_DEV) ## the whole crash campaign: an hour or so; as root it mounts file systems too
	$(BIN)/python -m pytest -m campaign -s --timeout 3600

soak: $(INSTALLED_DEV) ## the crash campaign at random: MINUTES=n, and SEED=s to run it again
	$(BIN)/python -m tests.crash.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

sim: $(INSTALLED_DEV) ## the whole daemon simulated: MINUTES=n, SEED=s (or commit), JOBS=j
	$(BIN)/python -m tests.simulation --minutes $(or $(MINUTES),1) --jobs $(or $(JOBS),1) \
	  $(if $(SEED),--seed $(SEED))

sim-slice: $(INSTALLED_DEV) ## two minutes of it: from a fixed seed, and from the commit's hash
	$(BIN)/python -m pytest -m campaign tests/simulation --timeout 600

mutants: $(INSTALLED_DEV) ## the engine with one thing wrong at a time, and who finds it; ONLY=name, JOBS=j
	$(BIN)/python -m tests.mutants $(addprefix --only ,$(ONLY)) $(addprefix --jobs ,$(JOBS))

test-systemd: $(INSTALLED_DEV) ## in a real systemd, in a container (root, Debian)
	tests/systemd/prepare
	$(BIN)/python -m pytest -m systemd -s --timeout 900

install: ## install for this machine (root): $(PREFIX), units, configuration
	install -d $(DESTDIR)$(PREFIX) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) \
	  $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(SYSCONFDIR)/logengine
	test -x $(DESTDIR)$(PREFIX)/bin/python || $(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
	  -r requirements.lock
	$(DESTDIR)$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
	  --no-deps --force-reinstall .
	ln -sf $(PREFIX)/bin/logengine $(DESTDIR)$(BINDIR)/logengine
	install -m 644 systemd/logengine.service systemd/logengine.socket $(DESTDIR)$(UNITDIR)
	install -m 644 systemd/logengine.sysusers $(DESTDIR)$(SYSUSERSDIR)/logengine.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/logengine/logengine.toml || \
	  install -m 644 config/logengine.toml $(DESTDIR)$(SYSCONFDIR)/logengine/logengine.toml
	@test -n "$(DESTDIR)" || echo "Now: systemd-sysusers && systemctl daemon-reload && systemctl enable --now logengine.socket logengine.service"

uninstall: ## remove what `install` made, but the configuration and the logs
	rm -rf $(DESTDIR)$(PREFIX) $(DESTDIR)$(BINDIR)/logengine
	rm -f $(DESTDIR)$(UNITDIR)/logengine.service $(DESTDIR)$(UNITDIR)/logengine.socket
	rm -f $(DESTDIR)$(SYSUSERSDIR)/logengine.conf

lock: $(INSTALLED_DEV) ## pin the newest versions that fit
	$(BIN)/pip-compile --quiet --no-header --strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --no-header --strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --extra dev --allow-unsafe \
	  --output-file requirements-dev.lock pyproject.toml

clean: ## remove what was built, not ./var
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
