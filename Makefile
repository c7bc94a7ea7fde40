# Every target sets up what it needs: on a fresh machine `make quickstart` and `make test` are enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NMT    := $(BIN)/nmt
READY  := $(VENV)/.ready
# pip would compile all of transformers and sympy, half a minute; two imports compile what is used.
IMPORTED := ctranslate2, hypothesis, matplotlib.pyplot, nmt.cli.main, pytest, sacrebleu, sacremoses, transformers
# Empty is unset: where nothing is kept compiled, each process and each test worker compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=
# Of any recipe: `SET='training.max_steps=100 training.precision=bfloat16'` is added to each of its trainings.
SET      ?=
SETTINGS := $(addprefix --set ,$(SET))
# A variable as the user gave it, or a default: recipes have defaults of their own for the same names.
given = $(filter command environment override,$(firstword $(origin $(1))))
choice = $(if $(call given,$(1)),$($(1)),$(2))
# Ends make where a variable has a word that is not among those known, or none: name, value, known.
known = $(if $(or $(filter-out $(3),$(2)),$(if $(strip $(2)),,none)),$(error $(1)="$(2)" is not known; choose from: $(strip $(3))))

# A training's stamp holds the settings it was made with: $(1), such as STEPS=100, and SET. What is done is not done again,
# so make ends where a stamp ($(2)) has others than are asked for now.
made-with = $(strip $(1) SET="$(strip $(SET))")
stamp = @printf '%s\n' '$(subst ','\'',$(made-with))' > $@
flat = x$(subst $(empty) ,_,$(strip $(1)))
same = $(foreach s,$(wildcard $(2)),$(if $(strip $(file <$(s))),$(if $(filter-out $(call flat,$(made-with)),$(call flat,$(file <$(s)))),\
  $(error $(subst .trained-,,$(s)) was trained with $(file <$(s)), not $(made-with); give the same, or remove $(dir $(s)) to begin anew))))
# Ends make where words of a variable are no numbers: name, value.
digits = 0 1 2 3 4 5 6 7 8 9
without = $(if $(1),$(call without,$(wordlist 2,10,$(1)),$(subst $(firstword $(1)),,$(2))),$(2))
numbers = $(if $(strip $(call without,$(digits),$(2))),$(error $(1)="$(2)" is not one number or more, such as "1 2 3"))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-slow check format bench clean

help:  ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-26s %s\n", $$1, $$2}'

setup: $(READY)  ## Virtual environment in .venv with the exact versions of constraints.txt
$(READY): pyproject.toml constraints.txt $(wildcard nmt/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import torch._dynamo' & \
	$(BIN)/python -c 'import $(IMPORTED)' & wait
	@touch $@

test: $(READY)  ## The fast tests
	$(BIN)/python -m pytest -n 3  # one more than cores: many tests wait

test-slow: $(READY)  ## All tests, those of minutes too
	$(BIN)/python -m pytest -m 'slow or not slow'

check: $(READY)  ## Formatting, lint, types, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory test

# mypy cannot follow the mapped folders of pyproject.toml: it reads the package through links.
.PHONY: types
types: $(READY)
	rm -rf build/types && mkdir -p build/types/nmt
	ln -s $(CURDIR)/nmt/* build/types/nmt/
	ln -s $(CURDIR)/data build/types/nmt/data
	ln -s $(CURDIR)/cli build/types/nmt/cli
	cd build/types && MYPYPATH=.:$(CURDIR)/recipes $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p nmt
	cd build/types && MYPYPATH=.:$(CURDIR)/recipes $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
	  $(wildcard $(CURDIR)/recipes/*/*.py)

format: $(READY)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# `make bench BENCH='--only translation --model runs/my --lines my.en'`; BENCH=--help lists what there is.
bench: $(READY)  ## Speed of training and translation on this machine (BENCH=...)
	PYTHONPATH=recipes $(BIN)/python -P -m bench $(BENCH)

clean:  ## Remove what can be made again; runs/ and corpora/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

include recipes/*/recipe.mk
