PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Modules of a package with __all__ get a page only when they are named.
MODULES = elision $(shell find src/elision/objectives -name '[a-z]*.py' | sed 's,^src/,,; s,\.py$$,,; s,/,.,g' | sort)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# The stamp is written last, so an interrupted installation is never taken for a complete one.
$(STAMP): pyproject.toml constraints.txt Makefile
	@rm -f $(STAMP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "elision needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing elision into $(VENV) (about a minute) ..."
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then \
	    echo "  using the torch that $(PYTHON) already has"; \
	    $(PYTHON) -m venv --clear --system-site-packages $(VENV) && grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
	    $(PYTHON) -m venv --clear $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $(STAMP)

install: $(STAMP)  ## create .venv and install elision with pinned dependencies

demo: $(STAMP)  ## pretrain a small BERT on real text, look at it, fine-tune it, export it (about 10 minutes)
	$(BIN)/elision demo

test: $(STAMP)  ## run the whole test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests

lint: $(STAMP)  ## check style and imports
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench

format: $(STAMP)  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix src tests bench
	$(BIN)/ruff format src tests bench

bench: $(STAMP)  ## measure speed and memory beside peers (see bench/README.md)
	$(BIN)/python -m bench

docs: $(STAMP)  ## write the reference pages (docs/reference/) from the docstrings
	$(BIN)/python -m pdoc --output-directory docs/reference $(MODULES)
	@echo "open docs/reference/index.html"

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) demo
