# Two commands do everything on a machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
TRAIN_SECONDS ?= 285
JAXDIFF = $(VENV)/bin/jaxdiff

.PHONY: demo test slow lint format clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxdiff needs Python 3.11 or later, $(PYTHON) is %d.%d; say make PYTHON=python3.x" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(JAXDIFF) train digits --out $(OUT) --seconds $(TRAIN_SECONDS) --overwrite
	$(JAXDIFF) sample $(OUT) --n 1797 --steps 50 --out $(OUT)/samples.npz --plot $(OUT)/samples.png
	$(JAXDIFF) evaluate $(OUT) --data digits --samples $(OUT)/samples.npz --out $(OUT)/metrics.csv
	$(JAXDIFF) inspect $(OUT) --plot $(OUT)/loss.png
	@echo
	@echo "Samples: $(OUT)/samples.png   loss: $(OUT)/loss.png   table: $(OUT)/metrics.csv"
	@echo "Try next:"
	@echo "  $(JAXDIFF) sample $(OUT) --n 36 --label 3 --steps 10 --out three.npz --plot three.png"
	@echo "  $(JAXDIFF) train digits --out runs/mine --seconds 600 --optimizer.lr 1e-3"
	@echo "  $(JAXDIFF) train --help"

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4

slow: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -m slow

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
