# One Makefile for people and for CI. It brings uv by itself; uv brings the rest, as locked.
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-extras

.PHONY: help environment demo up test check format bench bench-serving bench-soak bench-features bench-scoring bench-fleet

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.uv/bin/uv:
	python3 -m pip install --quiet --disable-pip-version-check --target .uv uv

environment: $(filter .uv/bin/uv,$(UV))
	$(UV) sync --frozen --all-extras --quiet

demo: environment  ## A year of flights through the whole loop; leaves the console running
	$(RUN) relevo demo

up: environment  ## Start Relevo on the home folder .relevo
	$(RUN) relevo up

test: environment check  ## Everything that must hold
	tests/prerequisites.sh
	$(RUN) pytest --numprocesses 2 --dist loadfile

check: environment  ## Format, lint, types, import directions
	$(RUN) ruff format --check src tests examples bench
	$(RUN) ruff check src tests examples bench
	$(RUN) mypy
	$(RUN) lint-imports

format: environment  ## Write the code as `make check` wants it
	$(RUN) ruff format src tests examples bench
	$(RUN) ruff check --fix src tests examples bench

bench: environment  ## Every benchmark, one after the other; figures go to bench/results
	$(RUN) python bench/serving.py --page
	$(RUN) python bench/soak.py --page
	$(RUN) python bench/features.py --page
	$(RUN) python bench/scoring.py
	$(RUN) python bench/fleet.py

bench-serving: environment  ## Serving beside five other servers of models and bare uvicorn (needs wrk)
	$(RUN) python bench/serving.py --page

bench-soak: environment  ## Ten minutes of mixed requests at half the peak rate (needs wrk)
	$(RUN) python bench/soak.py --page

bench-features: environment  ## Joins, lookups and filling of features beside Feast and the bare engines (needs Redis)
	$(RUN) python bench/features.py --page

bench-scoring: environment  ## Bulk scoring beside a bare script of Polars and LightGBM
	$(RUN) python bench/scoring.py

bench-fleet: environment  ## Three thousand endpoints in one gateway worker
	$(RUN) python bench/fleet.py
