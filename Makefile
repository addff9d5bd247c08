# Two commands: `make demo` shows it, `make test` proves it. The rest is for who works on it.
#
# Everything builds with one profile into one folder outside of the clone, because RocksDB alone is fifteen minutes
# of compiler: only the first build on a machine pays for it.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/weir/target
parts_dir := $(if $(WEIR_PARTS),$(WEIR_PARTS),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/weir/parts)
cargo_deny_version := 0.20.2
cargo_deny := $(parts_dir)/cargo-deny/bin/cargo-deny
promtool = $(or $(shell command -v promtool),$(parts_dir)/promtool/promtool)

.PHONY: demo test bench soak lint docs deny advisories rules parts build help

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: build ## a stream with duplicates arrives clean in ClickHouse; SCENARIO=transactions, DEMO="--for 60s" and the like
	"$(CARGO_TARGET_DIR)/release/weir" demo $(if $(SCENARIO),--scenario $(SCENARIO)) $(DEMO)

# Named targets: `--all-targets` would run the benches, too. Clippy has compiled those.
test: parts lint docs rules deny ## everything that CI checks
	cargo test --release --lib --bins --tests
	cargo test --release --doc
	@cat "$(CARGO_TARGET_DIR)/tmp/restarts"
	@echo "make test: all of it passed"

bench: parts ## throughput against the real Kafka; a table, and JSON in target/bench
	cargo build --release --bins
	cargo bench --bench end_to_end

soak: parts ## more of the simulation (WEIR_SIM_RUNS), and the kills for as long as SOAK says
	WEIR_SIM_RUNS=$${WEIR_SIM_RUNS:-500000} cargo test --release --test simulation random_schedules -- --nocapture
	SOAK=$${SOAK:-1h} cargo test --release --test end_to_end two_instances_get_through_everything -- --nocapture

lint: ## format and clippy
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings

# With the one profile: another would build RocksDB again.
docs: ## the pages of `cargo doc`, whose links all lead somewhere
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --quiet

deny: $(cargo_deny) ## licences, bans, sources of the dependencies
	"$(cargo_deny)" check licenses bans sources

advisories: $(cargo_deny) ## known weaknesses of the dependencies; needs a network
	"$(cargo_deny)" check advisories

rules: parts ## the alerts, with Prometheus' own tool
	"$(promtool)" check rules config/prometheus/rules.yml
	"$(promtool)" test rules config/prometheus/rules.test.yml

# Once per machine: five minutes of compiler.
$(cargo_deny):
	env -u CARGO_TARGET_DIR cargo install --locked --quiet cargo-deny --version $(cargo_deny_version) --root "$(parts_dir)/cargo-deny"

parts: ## fetches what building and testing need and this machine lacks
	./scripts/parts.sh

build: ## weir itself
	./scripts/parts.sh demo
	cargo build --release --bins
