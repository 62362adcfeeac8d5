# setup makes .venv with everything in it; the other targets call it when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo serve test lint bench fuzz chaos

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[service,model,client,train,embedded,dev]'
	touch $@

setup: $(VENV)/.installed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# Two at a time: most tests wait for processes of their own.
test: setup
	$(BIN)/pytest -n 2 --dist loadfile

demo: setup
	$(BIN)/python scripts/demo.py

serve: setup
	exec $(BIN)/face-anon serve

# More than 2,000 cases.
fuzz: setup
	$(BIN)/python -m scripts.fuzz --examples 400

# Kills workers and the server while 200 jobs run; takes some minutes.
chaos: setup
	$(BIN)/python -m scripts.chaos

bench: setup
	$(BIN)/python -m bench.detection
	$(BIN)/python -m bench.identity
	$(BIN)/python -m bench.photo
	mkdir -p demo && $(BIN)/python -m bench.renderer demo/rendered-faces.png
	$(BIN)/python -m bench.step
	$(BIN)/python -m bench.load
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.engine --full --slots 1 2 --steps 2
	$(BIN)/python -m bench.worker
