# What there is to do here, one word each. `make` alone tells.

CARGO ?= cargo
LOCKED ?= --locked
# What `make deny` checks. Where the database of advisories cannot be reached: make deny DENY="bans licenses sources".
DENY ?= all

.PHONY: help demo test test-alerts test-browser test-image deb static bench soak-kill soak-roundtrip soak-restore soak-clone soak-rpo soak-sim soak-failover soak-chaos soak-run fuzz fuzz-corpus fmt clippy doc deny check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see it work: a MySQL, a kill -9, every byte back, a dropped table brought back (builds first; then under two minutes)
	@tests/demo/demo.sh

test: ## all tests, on a real MySQL that they fetch and start themselves
	$(CARGO) test $(LOCKED)

test-alerts: ## each alert fires when it should and only then; rules, dashboard, runbooks and metrics agree (needs promtool)
	@monitoring/test.sh

test-browser: ## the status page in a real browser, narrow and wide, light and dark
	@tests/browser/run.sh

test-image: ## the steps of the container image without an engine, and the program in what they make (needs root, debootstrap)
	@docker/check.sh

deb: ## a package for Debian and Ubuntu, in target/debian/ (needs cargo-deb)
	@packaging/deb.sh

static: ## one file that runs on any Linux, whatever its C library (needs Rust's musl target, musl-tools)
	@packaging/static.sh

bench: ## ingest, replay and base backups, each beside its stock peer and its limits: tables, and a JSON beside them
	$(CARGO) bench $(LOCKED)

soak-kill: ## 200 SIGKILLs of the agent under load, on files and on S3
	BINVAULT_SOAK=1 $(CARGO) test $(LOCKED) --features failpoints,simulation --test kill -- --nocapture

soak-roundtrip: ## all workloads, many rounds: archived, exported, compared
	$(CARGO) test $(LOCKED) --features soak --test soak_roundtrip -- --nocapture

soak-restore: ## restores to 20 random targets in a history written under load, each held against the stock tools
	BINVAULT_RESTORE_TARGETS=20 $(CARGO) test $(LOCKED) --test restore random -- --nocapture

soak-clone: ## 20 clones under load at random moments, each restored to a random place behind it and held against the stock tools
	BINVAULT_CLONE_ROUNDS=20 $(CARGO) test $(LOCKED) --test restore clones_under_load -- --nocapture

soak-rpo: ## 100 lost database hosts under load, commits waiting for the store: none lost; the same for the spool, and without protection
	BINVAULT_STALL_SECONDS=120 $(CARGO) test $(LOCKED) --test semi_sync a_store_that_stalls -- --nocapture
	BINVAULT_RPO_ROUNDS=100 $(CARGO) test $(LOCKED) --test semi_sync experiment -- --nocapture --test-threads=1

soak-sim: ## 10,000 simulated histories, each with its faults and all promises checked (BINVAULT_SIM_HISTORIES, BINVAULT_SIM_SEED)
	BINVAULT_SIM_HISTORIES=$${BINVAULT_SIM_HISTORIES:-10000} $(CARGO) test $(LOCKED) --features failpoints,simulation --test sim no_history -- --nocapture

soak-failover: ## 20 changes of the primary under load, planned and by SIGKILL, three real servers: none lost, none twice
	BINVAULT_SWITCHOVERS=20 $(CARGO) test $(LOCKED) --test breaks switchovers -- --nocapture

soak-chaos: ## half an hour of all faults mixed, real server and S3, under load; then every byte, gap and restore judged (BINVAULT_CHAOS_SECONDS)
	BINVAULT_CHAOS_SECONDS=$${BINVAULT_CHAOS_SECONDS:-1800} $(CARGO) test $(LOCKED) --test chaos -- --nocapture

soak-run: ## an hour of load with a chunk each second: memory flat, no descriptor left open (BINVAULT_RUN_SECONDS)
	BINVAULT_RUN_SECONDS=$${BINVAULT_RUN_SECONDS:-3600} $(CARGO) test $(LOCKED) --test operate memory -- --nocapture

fuzz: ## every decoder under a fuzzer, BINVAULT_FUZZ_SECONDS (1800) each, BINVAULT_FUZZ_JOBS at a time; what breaks one is kept (needs cargo-fuzz)
	@fuzz/run.sh

fuzz-corpus: ## what the fuzzer and the tests begin with, anew, from real servers
	$(CARGO) test $(LOCKED) --test corpora make_the_corpora -- --ignored

fmt: ## format the sources
	$(CARGO) fmt

clippy: ## lints, as errors
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings

doc: ## the documentation, warnings as errors; begin reading at the crate's page
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps --document-private-items

deny: ## licences, bans, sources and advisories of the dependencies (needs cargo-deny)
	$(CARGO) deny --all-features --config .deny.toml check $(DENY)

check: ## all that continuous integration does
	@.ci/run
