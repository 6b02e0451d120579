# Everything is set up in .venv by the first target that needs it; Python 3.11 and make are all it takes.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DATA ?=
LIMIT ?=
FULL ?=
TITLES ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench ablation faults fuzz mutants

help:  ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: .venv/ready  ## make .venv with everything in it

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[embedded,train,dev]'
	@touch $@

demo: .venv/ready  ## run the whole stream on a catalogue: make demo [DATA=folder] [LIMIT=rows]
	$(BIN)/tagstream demo $(if $(DATA),--data $(DATA)) $(if $(LIMIT),--limit $(LIMIT))

test: .venv/ready  ## all tests: unit, contract, integration, cluster, model
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/ready  ## lint, format, types, and the order of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy tagstream
	$(BIN)/python -m pytest -q tests/unit/test_imports.py tests/unit/test_house.py

faults: .venv/ready  ## break everything on purpose and audit: embedded broker, and Apache Kafka if KAFKA_HOME is set
	$(BIN)/python tests/faults/run.py --broker embedded --seeds 1,2,3 --parallel 4
	@if [ -n "$$KAFKA_HOME" ]; then \
		$(BIN)/python tests/faults/run.py --broker apache --seeds 1,2,3 --parallel 3 && \
		$(BIN)/python tests/faults/run.py --broker apache --seeds 1,2,3 --parallel 3 --delivery exactly_once; \
	else echo "set KAFKA_HOME to run them on Apache Kafka too"; fi
	$(BIN)/python tests/faults/ray_faults.py

fuzz: .venv/ready  ## a million hostile inputs through decode and decide, and many through the API
	$(BIN)/python tests/fuzz/run.py --inputs 1000000 --api 20000

mutants: .venv/ready  ## break the promise in the code and see a test catch it
	$(BIN)/python tests/mutants.py

ablation: .venv/ready  ## towers, fusion and losses side by side, in small: make ablation DATA=folder [FULL=1]
	$(BIN)/python tests/bench/ablation.py --data $(DATA) $(if $(FULL),,--small)

bench: .venv/ready  ## the README's figures, a JSON line each: make bench [DATA=folder] [TITLES=file]
	@for bench in overhead throughput memory tagger_speed delivery_cost; do \
		$(BIN)/python tests/bench/$$bench.py $(if $(DATA),--data $(DATA)) || exit 1; \
	done
	@$(if $(DATA),$(BIN)/python tests/bench/quality.py --data $(DATA) $(if $(TITLES),--extra $(TITLES)),\
		echo "quality is measured on real products: make bench DATA=folder")
