# What a developer runs. PYTHON may name another interpreter; MINUTES is the time `make zoo` may take.
PYTHON ?= python
MINUTES ?= 120

.PHONY: check lint types test bench zoo demo site

check: lint types site test

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest -q -n logical --maxprocesses 4 --dist worksteal

site:
	$(PYTHON) -m docs.site

bench:
	$(PYTHON) -m benchmarks.kernels

zoo:
	$(PYTHON) -m studies.zoo --minutes $(MINUTES)

demo:
	$(PYTHON) -m atrous demo
