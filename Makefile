# `make run` and `make test` need nothing but Python 3.11; they create .venv themselves.

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
SYSCTLDIR ?= /usr/lib/sysctl.d
BINDIR ?= /usr/local/bin
MANDIR ?= /usr/local/share/man
BASHDIR ?= /usr/local/share/bash-completion/completions
ZSHDIR ?= /usr/local/share/zsh/site-functions
FISHDIR ?= /usr/local/share/fish/vendor_completions.d
PIP_FLAGS ?=

# Nothing runs that is not in a lock: what an index offers may change at any time. A source
# distribution would bring a build of its own.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := --require-hashes --only-binary :all:

.DEFAULT_GOAL := help
.PHONY: help run test test-again lint format bench screenshots crash soak sim sim-slice mutants test-systemd test-integrations install uninstall lock clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# `make run` uses the pinned versions too: what was tested is what runs.
$(INSTALLED): $(VENV)/bin/python pyproject.toml requirements.lock requirements-build.lock
	$(BIN)/python $(PIP_INSTALL) $(LOCKED) -r requirements-build.lock
	$(BIN)/python $(PIP_INSTALL) $(LOCKED) -r requirements.lock
	$(BIN)/python $(PIP_INSTALL) --no-index --no-build-isolation --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-dev.lock
	$(BIN)/python $(PIP_INSTALL) $(LOCKED) -r requirements-dev.lock
	@touch $@

run: $(INSTALLED) ## start the daemon on ./var
	@echo "Send:  echo '{\"event\":\"hello\"}' | $(BIN)/logengine send --socket var/socket"
	@echo "Read:  $(BIN)/logengine tail -f --data var/data"
	@echo "Stop:  Ctrl-C"
	@mkdir -p var
	@exec $(BIN)/logengine run --data var/data --socket var/socket

test: $(INSTALLED_DEV) ## run all tests except the long campaigns
	$(BIN)/python -m pytest -n auto --dist worksteal

test-again: $(INSTALLED_DEV) ## run once more, alone, the few tests that have just failed
	$(BIN)/python -m tests.again

lint: $(INSTALLED_DEV) ## check format, lint, types and import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(INSTALLED_DEV) ## measure speed; writes benchmarks/RESULTS.md; BENCH="latency --rounds 1" for parts
	$(BIN)/python -m benchmarks $(BENCH)

screenshots: $(INSTALLED_DEV) ## draw the pictures of the README from a real run
	$(BIN)/python -m tests.docs.screenshots

crash: $(INSTALLED_DEV) ## run the whole crash campaign: about an hour; as root it also mounts file systems
	$(BIN)/python -m pytest -m campaign -s --timeout 3600 --hypothesis-profile search
	$(BIN)/python -m pytest tests/property tests/unit --hypothesis-profile search

soak: $(INSTALLED_DEV) ## run random rounds of the crash campaign: MINUTES=n; SEED=s repeats a run
	$(BIN)/python -m tests.crash.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

sim: $(INSTALLED_DEV) ## simulate the whole daemon: MINUTES=n, SEED=s (or commit), JOBS=j
	$(BIN)/python -m tests.simulation --minutes $(or $(MINUTES),1) --jobs $(or $(JOBS),1) \
	  $(if $(SEED),--seed $(SEED))

sim-slice: $(INSTALLED_DEV) ## simulate for a minute each, at once: from a fixed seed, and from the commit's hash
	$(BIN)/python -m pytest -m campaign -n 2 tests/simulation --timeout 600

mutants: $(INSTALLED_DEV) ## break one thing in the engine at a time, and run the tests that must find it; ONLY=name, JOBS=j
	$(BIN)/python -m tests.mutants $(addprefix --only ,$(ONLY)) $(addprefix --jobs ,$(JOBS))

test-systemd: $(INSTALLED_DEV) ## test with a real systemd, in a container (root, Debian)
	tests/systemd/prepare
	$(BIN)/python -m pytest -m systemd -s --timeout 900

test-integrations: $(INSTALLED_DEV) ## fetch nginx, rsyslog and others, and run the recipes of docs/integrations.md
	$(BIN)/python -m tests.integrations.programs
	$(BIN)/python -m pytest -n auto --dist worksteal tests/integrations tests/e2e/test_otlp_grpc.py

install: ## install for this machine (root): $(PREFIX), units, configuration
	install -d $(DESTDIR)$(PREFIX) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) \
	  $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(SYSCTLDIR) $(DESTDIR)$(SYSCONFDIR)/logengine \
	  $(DESTDIR)$(SYSCONFDIR)/lnav/formats/logengine $(DESTDIR)$(MANDIR) \
	  $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	test -x $(DESTDIR)$(PREFIX)/bin/python || $(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/python $(PIP_INSTALL) $(PIP_FLAGS) $(LOCKED) -r requirements.lock
	set -e; build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; \
	$(PYTHON) -m venv "$$build"; \
	"$$build/bin/python" $(PIP_INSTALL) $(PIP_FLAGS) $(LOCKED) -r requirements-build.lock; \
	"$$build/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-index \
	  --no-build-isolation --no-deps --wheel-dir "$$build/wheel" .; \
	$(DESTDIR)$(PREFIX)/bin/python $(PIP_INSTALL) --no-index --no-deps --force-reinstall \
	  "$$build"/wheel/*.whl
	ln -sf $(PREFIX)/bin/logengine $(DESTDIR)$(BINDIR)/logengine
	install -m 644 systemd/logengine.service systemd/logengine.socket $(DESTDIR)$(UNITDIR)
	install -m 644 systemd/logengine.sysusers $(DESTDIR)$(SYSUSERSDIR)/logengine.conf
	install -m 644 systemd/logengine.sysctl $(DESTDIR)$(SYSCTLDIR)/50-logengine.conf
	install -m 644 logengine/lnav.json $(DESTDIR)$(SYSCONFDIR)/lnav/formats/logengine/lnav.json
	$(DESTDIR)$(PREFIX)/bin/python -P -m logengine.cli.man_pages --config config/logengine.toml \
	  $(DESTDIR)$(MANDIR)
	$(DESTDIR)$(PREFIX)/bin/python -P -m logengine completion bash >$(DESTDIR)$(BASHDIR)/logengine
	$(DESTDIR)$(PREFIX)/bin/python -P -m logengine completion zsh >$(DESTDIR)$(ZSHDIR)/_logengine
	$(DESTDIR)$(PREFIX)/bin/python -P -m logengine completion fish >$(DESTDIR)$(FISHDIR)/logengine.fish
	test -e $(DESTDIR)$(SYSCONFDIR)/logengine/logengine.toml || \
	  install -m 644 config/logengine.toml $(DESTDIR)$(SYSCONFDIR)/logengine/logengine.toml
	@test -n "$(DESTDIR)" || echo "Now: systemd-sysusers && sysctl --system && systemctl daemon-reload && systemctl enable --now logengine.socket logengine.service"

uninstall: ## remove what `install` created, except the configuration and the logs
	rm -rf $(DESTDIR)$(PREFIX) $(DESTDIR)$(BINDIR)/logengine
	rm -f $(DESTDIR)$(UNITDIR)/logengine.service $(DESTDIR)$(UNITDIR)/logengine.socket
	rm -f $(DESTDIR)$(SYSUSERSDIR)/logengine.conf $(DESTDIR)$(SYSCTLDIR)/50-logengine.conf
	rm -f $(DESTDIR)$(SYSCONFDIR)/lnav/formats/logengine/lnav.json
	rm -f $(DESTDIR)$(MANDIR)/man1/logengine.1 $(DESTDIR)$(MANDIR)/man1/logengine-*.1
	rm -f $(DESTDIR)$(MANDIR)/man5/logengine.toml.5 $(DESTDIR)$(BASHDIR)/logengine
	rm -f $(DESTDIR)$(ZSHDIR)/_logengine $(DESTDIR)$(FISHDIR)/logengine.fish

lock: $(INSTALLED_DEV) ## pin the newest compatible versions of the dependencies
	$(BIN)/pip-compile --quiet --no-header --strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --no-header --strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --extra dev --allow-unsafe \
	  --output-file requirements-dev.lock pyproject.toml
	$(BIN)/pip-compile --quiet --no-header --strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --constraint requirements-dev.lock \
	  --all-build-deps --only-build-deps --output-file requirements-build.lock pyproject.toml

clean: ## remove everything that was built, but not ./var
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
