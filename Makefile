# `make help` lists the targets. Every one installs what it needs first (scripts/setup.sh; silent when all is there).

.DEFAULT_GOAL := build
.PHONY: build demo test attack drill check-consistency check-drivers check-page conformance bench fmt lint setup help

build: ## the release binary: target/release/bulkhead
	@scripts/setup.sh build
	cargo build --release --locked

demo: ## users beside busy workers, with one pool and with separate ones; ARGS=--once ends after the table
	@scripts/setup.sh build demo
	cargo build --profile demo --no-default-features --locked
	@exec $${CARGO_TARGET_DIR:-target}/demo/bulkhead demo $(ARGS)

test: ## formatting, lints, documentation, then every test against real Postgres servers
	@scripts/setup.sh build test
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items
	scripts/test.sh

attack: ## attacks on the state of sessions in all ways and manners, then random ones; FOR=seconds, an hour if not given
	@scripts/setup.sh build test
	BULKHEAD_ATTACK_SECONDS=$(or $(FOR),3600) cargo test --locked --test it -- attack:: --nocapture --test-threads=2

drill: ## every fault of README's table, at random moments, then jobs of transactions (enqueue); ROUNDS of each (20), ONLY those with this in their name
	@scripts/setup.sh build test
	BULKHEAD_DRILL_ROUNDS=$(or $(ROUNDS),20) BULKHEAD_DRILL_ONLY='$(ONLY)' cargo test --locked --test it -- --exact drill::long --ignored --nocapture

check-consistency: ## reads of replicas that fall behind, stop and crash, against every acknowledged write; READS of each promise (1000000)
	@scripts/setup.sh build test
	BULKHEAD_CHECK_READS=$(or $(READS),1000000) cargo test --locked --test it -- --exact consistency::long --ignored --nocapture

check-drivers: ## what drivers and ORMs of Python, Node, Java and Ruby have written they find, beside a replica that is behind; ROUNDS of each (10000)
	@scripts/setup.sh build test drivers
	BULKHEAD_OWN_WRITES=$(or $(ROUNDS),10000) cargo test --locked --test it -- what_was_written_is_found_by --include-ignored --nocapture --test-threads=2

check-page: ## the live page in Chromium, which must be installed, as Node must be; pictures are left in the folder PICTURES
	@scripts/setup.sh build test
	BULKHEAD_PICTURES='$(PICTURES)' cargo test --locked --test it -- --exact api::page::chromium_shows_who_waits_and_runs_no_name --ignored --nocapture

conformance: ## PostgreSQL's own regression suite, straight at a server and through Bulkhead: the output must be the same; ARGS=--churn
	@scripts/setup.sh build test
	scripts/conformance.sh $(ARGS)

bench: ## CPU per transaction, memory per client and latency beside workers; Bulkhead, PgBouncer, direct
	@scripts/setup.sh build bench
	cargo bench --locked --bench pooler

fmt: ## format all Rust files
	cargo fmt

lint: ## formatting and clippy, warnings are errors
	@scripts/setup.sh build
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

setup: ## install everything that the other targets use
	@scripts/setup.sh build demo test bench

help: ## this list
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' Makefile
