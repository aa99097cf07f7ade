# `make demo` runs the main job, `make test` the whole suite; each prepares its own virtual environment first, from a
# lock file with hashes (requirements/*.txt), by uv where it is installed and by pip elsewhere. `make lock` refreshes them.
PYTHON ?= python3
VENV   := .venv
NEWEST := .venv-newest
BIN    := $(VENV)/bin
JOBS   ?= 2
UV     := $(shell command -v uv 2>/dev/null)

# $(call install,VENV) is the start of a command that installs into that virtual environment.
install = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python,$(1)/bin/python -m pip install --quiet --disable-pip-version-check)

.PHONY: demo lint test test-newest loaders fuzz mutants bench docs lock clean

demo: $(VENV)/demo.stamp
	$(BIN)/policyguard demo

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

# Gives hostile files to the real pickle, numpy, joblib, h5py, safetensors, zipfile and tarfile, each in a process that is
# thrown away (tests/loaders/sandbox.py), and compares with the scanner. COUNT files are changed at random first.
COUNT ?= 3000
loaders: $(VENV)/dev.stamp
	POLICYGUARD_LOADERS=$(COUNT) $(BIN)/python -m pytest -n 0 tests/loaders

# The same for as long as you like, from another beginning each time; install torch, hydra-core, jsonpickle and skops into
# the environment first, and their loaders take part. Keeps what scanner and loaders disagree about.
MINUTES ?= 60
SEED    ?= $(shell date +%s)
fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m tests.loaders.fuzz --minutes $(MINUTES) --seed $(SEED) --folder disagreements

# Removes and negates the checks of what decides, signs, logs and verifies, one at a time, and says which no test misses.
mutants: $(VENV)/dev.stamp
	$(BIN)/python -m tests.mutants --jobs $(JOBS)

bench: $(VENV)/bench.stamp
	$(BIN)/python -m bench

docs: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --strict

# The newest releases that pyproject.toml allows, in an environment of their own: what a user gets who installs today.
test-newest: $(NEWEST)/bin/python
	$(call install,$(NEWEST)) --upgrade $(if $(UV),,--upgrade-strategy eager) --editable '.[dev]'
	$(NEWEST)/bin/python -m pytest -n $(JOBS)

define make_venv
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
$(PYTHON) -m venv $(1)
endef

$(NEWEST)/bin/python:
	$(call make_venv,$(NEWEST))

# Whatever has no wheel is built with the locked tools of build.txt, never with what a registry offers that day.
$(VENV)/%.stamp: requirements/%.txt requirements/build.txt pyproject.toml
	$(call make_venv,$(VENV))
	$(call install,$(VENV)) --require-hashes --requirement requirements/build.txt
	$(call install,$(VENV)) --require-hashes --no-build-isolation --requirement $<
	$(call install,$(VENV)) --no-deps --no-build-isolation --editable .
	touch $@

# bench.txt holds everything that tests and benchmarks need; the others take their versions from it.
COMPILE = $(if $(UV),$(UV),$(VENV)-lock/bin/uv) pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
SAME := --constraint requirements/bench.txt

lock: $(if $(UV),,$(VENV)-lock/bin/uv)
	$(COMPILE) pyproject.toml --extra bench --output-file requirements/bench.txt
	$(COMPILE) pyproject.toml --extra dev $(SAME) --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml $(SAME) --output-file requirements/demo.txt
	$(COMPILE) pyproject.toml --extra docs $(SAME) --output-file requirements/docs.txt
	$(COMPILE) requirements/build.in $(SAME) --output-file requirements/build.txt
	$(COMPILE) requirements/lock.in --output-file requirements/lock.txt

$(VENV)-lock/bin/uv: requirements/lock.txt
	$(call make_venv,$(VENV)-lock)
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) $(VENV)-lock site dist build .lab
