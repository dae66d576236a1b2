# Each target does its whole set-up; on a fresh Debian or Ubuntu with Python 3.11 or later nothing else is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the tests need beside Python packages, as tool, or file, or tool:package: tshark is the oracle that the decoder is compared with.
# ip, tc (iproute2), tcpreplay and capsh (libcap2-bin): the switch with a mirror that tests/test_watch.py makes.
# rsyslogd with TLS: the receiver that tests/test_syslog.py sends alerts to.
DEBIAN := tshark tcpdump tcpreplay ip:iproute2 tc:iproute2 capsh:libcap2-bin \
  /usr/sbin/rsyslogd:rsyslog /usr/lib/*/rsyslog/lmnsd_gtls.so:rsyslog-gnutls
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test lint types bench lab systemd docs model clean

demo: $(VENV)/.installed
	$(BIN)/spamsensor replay pcaps/flood-camera.pcap --devices build/demo-devices.csv --no-progress
	@echo
	@echo "The devices that it saw (build/demo-devices.csv):"
	@$(BIN)/python -c "import pandas, sys; t = pandas.read_csv('build/demo-devices.csv'); print(t[['device', 'hostname', 'type', 'role', 'smtp25_connections', 'mx_queries', 'evidence']].to_string(index=False, na_rep='-'))"

test: $(VENV)/.tests tools lint types
	# Compile once, before two test processes would both do it.
	$(BIN)/spamsensor replay pcaps/clean-office.pcap --no-progress
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m kernel -q $(PYTEST_ARGS)
	SENSOR_BOUNDSCHECK=0 $(BIN)/spamsensor replay pcaps/clean-office.pcap --no-progress
	SENSOR_BOUNDSCHECK=0 $(BIN)/python -m pytest -n 2 --dist worksteal -m invariant -q $(PYTEST_ARGS)

lint: $(VENV)/.tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.tests
	$(BIN)/mypy

.PHONY: tools
tools:
	@missing=""; for tool in $(DEBIAN); do [ -e $${tool%%:*} ] || command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; \
	fi

bench: $(VENV)/.installed
	$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python bench/run.py $(BENCH)
	$(BIN)/python bench/scoring.py

lab: $(VENV)/.installed
	$(SUDO) $(BIN)/python pcaps/lab.py --out pcaps

# Boots a systemd of its own, which starts deploy/spamsensor.service.
systemd: $(VENV)/.installed
	@missing=""; for tool in systemd-nspawn:systemd-container tcpreplay; do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	if [ -n "$$missing" ]; then $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; fi
	$(SUDO) $(BIN)/python -m tests.systemd_trial

# The worlds that the shipped model learns from, and others, with other seeds, that it is measured on.
WORLDS := build/worlds
TRAINING := realistic-11 hostile-12 cold-13
HELD_OUT := realistic-31 hostile-32 cold-33
SIMULATE = $(BIN)/spamsensor simulate --jobs 2 --seed $(lastword $(subst -, ,$@)) --out $@.new
$(WORLDS)/realistic-11: DEVICES = --world realistic --devices 15000
$(WORLDS)/hostile-12: DEVICES = --world hostile --devices 1200
$(WORLDS)/realistic-31: DEVICES = --world realistic --devices 20000
$(WORLDS)/hostile-32: DEVICES = --world hostile --devices 1500
$(WORLDS)/cold-%: DEVICES = --world realistic --cold --devices 8000
$(WORLDS)/%: | $(VENV)/.tests
	rm -rf $@.new && $(SIMULATE) $(DEVICES) && mv $@.new $@

model: $(addprefix $(WORLDS)/,$(TRAINING) $(HELD_OUT))
	rm -rf build/default
	OMP_NUM_THREADS=2 $(BIN)/spamsensor train --jobs 2 --seed 1 --out build/default $(addprefix --data $(WORLDS)/,$(TRAINING))
	$(BIN)/spamsensor evaluate --jobs 2 --model build/default --out build/default $(addprefix --data $(WORLDS)/,$(HELD_OUT)) $(addprefix --learned-from $(WORLDS)/,$(TRAINING))
	rm -rf models/default && cp -r build/default models/default

docs: $(VENV)/.tests
	$(BIN)/python docs/generate.py
	$(BIN)/python -m tests.degraded

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV); $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@mkdir -p build && touch $@

$(VENV)/.tests: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
