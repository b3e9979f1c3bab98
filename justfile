# What people do here. `just` lists it.

_list:
    @just --list

# Watch two agents talk.
demo:
    cargo run --release -- demo

# Run a broker in this directory.
run *args:
    cargo run --release -- up {{ args }}

# Everything that must hold before a change goes in; or only the tests whose names match.
test *names:
    ./scripts/test {{ names }}

# Format and lint.
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Measure (see docs/performance.md).
bench *args:
    cargo bench {{ args }}

# Build the documentation and open it.
docs:
    cargo doc --no-deps --document-private-items --open

# Run the tests again and again until one fails: `just soak 50 reconnect`.
soak times="20" *names="":
    for round in $(seq {{ times }}); do echo "round $round"; cargo test --locked -q {{ names }} || exit 1; done

# Licences, advisories and duplicate versions (needs cargo-deny).
deny:
    cargo deny check
