# One entry per thing a person does; what is longer than a line is in scripts/.
# `make` alone prints the list.

BACKEND ?= auto
BENCH   ?= .
SOAK_TIME ?= 10m
SOAK_SEED ?=

RUN ?=
KERNELS ?=

export CGO_ENABLED ?= 0
export RUN

help: ## print this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

build: ## build the programs into bin/: static, stripped, with the version that git describes
	scripts/build bin

# What cannot be installed is said first, before minutes of building: so setup comes before build, also where that needs nothing.
demo: ## show the main job on real packets (as root; BACKEND=auto|iptables|nftables)
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	@go build -o bin/tools/demo ./scripts/demo
	@bin/tools/demo -backend=$(BACKEND)

test: ## install what the tests need, and run them all (as root)
	@scripts/setup test deploy runtime
	@$(MAKE) --no-print-directory build
	@failed=0; for module in . tools/deploy tools/runtime; do \
		(cd $$module && go test -count=1 -p 1 -timeout 20m ./...) || failed=1; \
	done; exit $$failed

fresh: ## run the commands of the README on a bare Debian 12 of its own (as root; RUN='go test ./pkg/x' for another)
	@scripts/fresh "$$RUN"

kernels: ## run what faces the kernel on those of four Debian releases, in qemu (as root; KERNELS=bookworm for one)
	@scripts/kernels $(KERNELS)

userlands: ## test the iptables backend with iptables 1.8.7, 1.8.9 and 1.8.11 on this kernel (as root; RELEASES=, RUN=)
	@RUN='$(RUN)' scripts/userlands $(RELEASES)

check: build ## formatter, linters, vet, race tests, shellcheck
	@scripts/setup test check
	@CGO_ENABLED=1 scripts/check

image: ## build the container image without an engine, into bin/image/: an OCI layout, and tars for docker load
	@go run ./scripts/image

release: ## build what is published for this commit into bin/release/: archives, images, checksums, SBOM
	@go run ./scripts/release

lint: ## the quick part of check: all but the tests
	@scripts/setup check
	@scripts/check lint

bench: build ## measure against the usual ways, minutes; report in bin/bench/ (BENCH=Plugin|Agent|Start|Datapath|Egress|Repair|Translations|Memory|Resident, BENCH_FULL=1)
	@scripts/setup test
	@BENCH='$(BENCH)' scripts/bench

soak: ## break everything at once for ten minutes, against a model (SOAK_TIME=1h, SOAK_SEED=n)
	@scripts/setup test
	SOAK_TIME=$(SOAK_TIME) SOAK_SEED=$(SOAK_SEED) go test ./pkg/soak -count=1 -timeout 0 -v

fmt: ## format the Go code
	@scripts/setup check
	bin/tools/gofumpt -w cmd docs pkg plugin scripts tools

golden: build ## rewrite the golden files from what the code does now
	@scripts/setup test
	@scripts/golden

docs: build ## rewrite what docs/ shows of the programs: commands, keys, metrics, and what commands print (as root)
	@scripts/setup test deploy runtime
	@go test ./docs -count=1 -rewrite
	@cd tools/runtime && go test . -count=1 -run '^TestPages$$' -rewrite

clean: ## remove what was built
	rm -rf bin

.DEFAULT_GOAL := help
.PHONY: help build demo test fresh kernels userlands check image release lint bench soak fmt golden docs clean
