# The commands of daily life. `just` lists them.

_default:
    @just --list --unsorted

# Run everything in one process on 127.0.0.1:8283
dev *ARGUMENTS:
    cargo run --release -- dev {{ARGUMENTS}}

# Check and test everything, as CI does
test *ARGUMENTS:
    scripts/test {{ARGUMENTS}}

# Format the code
fmt:
    cargo fmt --all

# Formatting and lints, without tests
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
