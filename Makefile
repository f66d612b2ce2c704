# Every target first makes .venv whole: it is built when it is missing, and
# brought up to date when one of the files that describe it has changed.
#
#   make install PYTHON=/path/to/python3.12     to choose the interpreter

SHELL := bash
EXTRAS := dev,hf,serve,edge
BIN := .venv/bin
READY := .venv/ready
SOURCES := setup.py pyproject.toml constraints.txt .python-version

# A shim may be on PATH and not run, so each of these is tried. FOUND is the
# first that is recent enough and its version, or "none" and what there was.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3.12 \
  $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python) python3)
PROBE := import sys; v = sys.version_info[:3]; \
  print("%d.%d.%d" % v); sys.exit(v < (3, 12))
FOUND = $(shell found="no Python"; for python in $(PYTHONS); do \
  version=$$($$python -c '$(PROBE)' 2>/dev/null) && \
  echo "$$python $$version" && exit; \
  found=$${version:-$$found}; done; echo "none $$found")

NOTEBOOKS := $(wildcard experiments/colab/*.ipynb)
BENCHES := $(patsubst experiments/bench/%.py,%, \
  $(wildcard experiments/bench/[a-z]*.py))

.PHONY: help install demo test test-all lint type compilers system \
  oracle peers golden bench notebooks

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12

install: $(READY)  ## Set up .venv with the pinned packages

demo: $(READY)  ## Teacher to measured small reasoner, under ten minutes
	$(BIN)/python -m experiments.run \
	  --config=experiments/configs/quickstart.py --workdir=runs/quickstart

# LLVM optimises nothing, for programs that are tiny and run once: a third less to
# compile. `test-all` runs what users run. A file's tests compile much the same
# programs, so that one worker has them all.
test: $(READY)  ## The fast tests
	XLA_FLAGS="--xla_backend_optimization_level=0 $$XLA_FLAGS" $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY)  ## All tests
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(READY)  ## Style, and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest tests/architecture

type: $(READY)  ## Types of the three floors
	$(BIN)/pyright

# Not in .venv: with libtpu there, jax looks for a TPU whenever it starts.
compilers: $(READY)  ## TPU's compiler in .venv-tpu, for tests/compile
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --upgrade --target .venv-tpu libtpu --constraint constraints.txt

system:  ## Debian's bubblewrap and stockfish, where they can be installed
	@PATH="$$PATH:/usr/games"; \
	{ command -v bwrap && command -v stockfish; } >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && apt-get update --quiet --quiet && \
	  apt-get install --yes --quiet bubblewrap stockfish; } || \
	echo "bubblewrap or stockfish is missing: what needs them is skipped"

oracle:  ## Ask transformers anew, in .venv-torch (Python 3.11, CPU torch)
	[ -d .venv-torch ] || $(or $(PYTHON311),python3.11) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet \
	  --disable-pip-version-check --requirement tests/oracle/requirements.txt
	.venv-torch/bin/python tests/oracle/worker.py make tests/golden/huggingface
	.venv-torch/bin/python tests/oracle/templates_worker.py make \
	  tests/golden/templates
	.venv-torch/bin/python tests/oracle/peft_worker.py make tests/golden/peft
	.venv-torch/bin/python tests/oracle/trl_worker.py tests/golden

peers:  ## Tunix in .venv-tunix, to be timed by experiments.bench.peers
	[ -d .venv-tunix ] || $(firstword $(FOUND)) -m venv .venv-tunix
	.venv-tunix/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement experiments/bench/_peers/requirements.txt

golden: $(READY)  ## Rewrite tests/golden: read the diff before you commit
	$(BIN)/pytest --golden
	git diff --stat -- tests/golden

bench: $(READY)  ## Run every benchmark of experiments/bench
	@$(foreach bench,$(BENCHES),echo "bench $(bench)" && \
	  $(BIN)/python -m experiments.bench.$(bench) &&) \
	  $(if $(BENCHES),true,echo "experiments/bench holds no benchmark yet.")

notebooks: $(READY)  ## Execute the notebooks, small
	@$(if $(NOTEBOOKS),$(BIN)/pytest tests/experiments/colab,\
	  echo "experiments/colab holds no notebook yet.")

$(READY): $(SOURCES)
	$(eval found := $(FOUND))
	$(if $(filter none,$(found)),$(error Pith needs Python 3.12 or newer; \
	  found $(wordlist 2,9,$(found)). Install 3.12 (pyenv install 3.12) \
	  or pass PYTHON=/path/to/python3.12))
	@echo "Setting up .venv with Python $(lastword $(found)): minutes, once."
	@[ "$$($(BIN)/python -c '$(PROBE)' 2>/dev/null)" = $(lastword $(found)) ] \
	  || $(firstword $(found)) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[$(EXTRAS)]' --constraint constraints.txt
	@touch $@
