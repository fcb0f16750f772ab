# Two commands matter: `make run` and `make test`. Each installs what is missing, then calls cargo.
.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-smoke examples

export PATH := $(CURDIR)/target/tools:$(PATH)
# Tests wait for something most of their time.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))
ARGS ?=

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: ## Build and start one node on loopback: gateway, sandbox, telemetry, built-in agents; not optimized
	@tools/setup run
	cargo build --bin neuroflow
	@# At a terminal the node gets a process group of its own, so that Ctrl-C stops it and not make,
	@# which would report an interrupt where the node reports success.
	@if [ -t 0 ]; then bash -mc 'target/debug/neuroflow serve $(ARGS); exit $$?'; \
	else exec target/debug/neuroflow serve $(ARGS); fi

test: ## Run every test
	@tools/setup test
	cargo test --workspace --all-features --no-fail-fast
	cargo check -p neuroflow-runtime --no-default-features

lint: ## Format, lints and docs, with warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

examples: ## Run every example
	@# The build of the tests will do.
	cargo run --quiet --all-features --example embedded
	cargo run --quiet --all-features --example cluster
	cargo run --quiet --all-features --example cell -- sh -c "id; ls /"

bench: ## Measure, print one table, write JSON. ARGS="--only NAME --iterations N --compare FILE"
	@tools/setup bench
	cargo bench --bench micro
	cargo bench --bench suite -- $(ARGS)
	cargo bench --bench link
	cargo bench --bench cluster

bench-smoke: ## Run every benchmark once: that it works, not how fast
	@# The build of the tests will do.
	cargo test --workspace --all-features --bench micro -- --bench --sample-count 1 --sample-size 1
	cargo test --workspace --all-features --bench suite -- --bench --iterations 1
	NEUROFLOW_BENCH_SECONDS=1 NEUROFLOW_BENCH_LINKS=8 cargo test --workspace --all-features --bench link -- --bench
	NEUROFLOW_BENCH_SECONDS=1 NEUROFLOW_BENCH_NODES=8 cargo test --workspace --all-features --bench cluster -- --bench
