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
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/semproxy ./cmd/semproxy

.PHONY: demo
demo: ## run the demo: real pages through real NATS
	go run ./cmd/semproxy demo

.PHONY: test
test: ## run the tests
	go test ./...

.PHONY: race
race: ## run the tests with the race detector (goleak is part of them)
	go test -race -timeout 30m ./...

.PHONY: kill
kill: ## kill sidecar, NATS server and network at random moments during 2000 pages, in each mode
	SEMPROXY_TEST_KILL_PAGES=2000 go test ./cmd/semproxy -count 1 -v -timeout 40m -run TestNothingIsLostWhateverIsKilled

.PHONY: soak
soak: ## 200000 small pages through every path, and a minute of overload
	SEMPROXY_TEST_SOAK_PAGES=200000 SEMPROXY_TEST_OVERLOAD=60s go test ./cmd/semproxy -count 1 -v -timeout 120m -run 'TestSoak|TestOverload'

.PHONY: bench-plane
bench-plane: ## measure the page plane beside its raw parts
	go run ./cmd/semproxy bench plane

.PHONY: purego
purego: ## run the tests without assembly
	go test -tags purego -timeout 30m ./...

.PHONY: arm64
arm64: ## build for linux/arm64; run the NEON kernels under qemu-aarch64
	.ci/arm64

.PHONY: gpu-check
gpu-check: ## on a machine with a GPU: parity, memcheck, racecheck, benchmarks (.ci/gpu build DIR makes a folder to carry there)
	.ci/gpu

.PHONY: nogpu
nogpu: ## build ./bin/semproxy without GPU support: one static binary
	CGO_ENABLED=0 go build -trimpath -tags nogpu -o $(BIN)/semproxy ./cmd/semproxy

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
lint: tools ## vet, golangci-lint (style, import table), length of files
	go vet ./...
	$(golangci) run
	.ci/imports $(golangci)
	.ci/lines

.PHONY: generate
generate: ## make the generated files again
	go generate ./...

.PHONY: check
check: ## what CI runs: build, lint, race, purego, arm64, fuzz, the chart, generated files
	go build ./...
	CGO_ENABLED=0 go build -tags nogpu ./...
	$(MAKE) --no-print-directory lint
	.ci/generated
	$(MAKE) --no-print-directory fuzz
	$(MAKE) --no-print-directory purego
	$(MAKE) --no-print-directory arm64
	$(MAKE) --no-print-directory test-chart
	$(MAKE) --no-print-directory race

.PHONY: test-chart
test-chart: ## lint and test the Helm chart without a cluster (installs the pinned tools into ./bin once)
	.ci/chart

PYTHON ?= python3
CONNECTORS := $(CURDIR)/connectors/python
CONNECTORS_PYTHON := $(CONNECTORS)/.venv/bin/python

.PHONY: test-connectors
test-connectors: build $(CONNECTORS)/.venv/.ready ## set up connectors/python and run its linters and tests (downloads torch once)
	cd $(CONNECTORS) && .venv/bin/ruff check src tests examples && .venv/bin/ruff format --check src tests examples && .venv/bin/mypy
	cd $(CONNECTORS) && SEMPROXY_BIN=$(BIN)/semproxy OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 .venv/bin/pytest -q

$(CONNECTORS)/.venv/.ready: $(CONNECTORS)/requirements.txt $(CONNECTORS)/pyproject.toml
	[ -x $(CONNECTORS_PYTHON) ] || $(PYTHON) -m venv $(CONNECTORS)/.venv
	$(CONNECTORS_PYTHON) -m pip install --quiet --disable-pip-version-check -r $(CONNECTORS)/requirements.txt
	$(CONNECTORS_PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable $(CONNECTORS)
	touch $@

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
