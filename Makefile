# What a developer runs. PYTHON may name another interpreter; MINUTES is the time `make zoo` may take.
PYTHON ?= python
MINUTES ?= 120

.PHONY: check lint types test bench zoo demo site release

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

# Wheel, sdist, and what is in the environment of $(PYTHON): licences (third-party notices) and an SBOM in CycloneDX's form.
release:
	.ci/wheel
	rm -rf build/release && mkdir -p build/release
	uv build --quiet --out-dir build/release
	uvx --quiet pip-licenses --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" --format plain-vertical \
		--with-license-file --no-license-path --output-file build/release/THIRD-PARTY-NOTICES.txt
	uvx --quiet --from cyclonedx-bom cyclonedx-py environment --output-file build/release/sbom.json \
		"$$($(PYTHON) -c 'import sys; print(sys.executable)')"

bench:
	$(PYTHON) -m benchmarks.kernels

zoo:
	$(PYTHON) -m studies.zoo --minutes $(MINUTES)

demo:
	$(PYTHON) -m atrous demo
