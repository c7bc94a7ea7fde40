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
# A variable as the user gave it, or a default: recipes have defaults of their own for the same names.
given = $(filter command environment override,$(firstword $(origin $(1))))
choice = $(if $(call given,$(1)),$($(1)),$(2))
# Of any recipe, for each of its trainings: `STEPS=100` (training.max_steps), `SET='training.precision=bfloat16 ...'`.
SET      ?=
LENGTH   := $(if $(call given,STEPS),STEPS=$(STEPS))
SETTINGS := $(if $(LENGTH),--set training.max_steps=$(STEPS)) $(addprefix --set ,$(SET))
# Ends make where a variable has a word that is not among those known, or none: name, value, known.
known = $(if $(or $(filter-out $(3),$(2)),$(if $(strip $(2)),,none)),$(error $(1)="$(2)" is not known; choose from: $(strip $(3))))

# A training's stamp holds the settings it was made with. What is done is not done again, so make ends where a
# stamp ($(1)) has others than are asked for now.
made-with = $(strip $(LENGTH) SET="$(strip $(SET))")
stamp = @printf '%s\n' '$(subst ','\'',$(made-with))' > $@
flat = x$(subst $(empty) ,_,$(strip $(1)))
same = $(foreach s,$(wildcard $(1)),$(if $(strip $(file <$(s))),$(if $(filter-out $(call flat,$(made-with)),$(call flat,$(file <$(s)))),\
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
	for path in nmt/*; do ln -s "../../../$$path" build/types/nmt/; done
	ln -s ../../../data ../../../cli build/types/nmt/
	cd build/types && MYPYPATH=.:../../recipes ../../$(BIN)/mypy --config-file ../../pyproject.toml -p nmt
	cd build/types && MYPYPATH=.:../../recipes ../../$(BIN)/mypy --config-file ../../pyproject.toml ../../recipes/*/*.py

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
