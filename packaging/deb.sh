#!/bin/bash
# `make deb`: a package for Debian and Ubuntu, in target/debian/. What goes where stands in Cargo.toml, [package.metadata.deb].
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deb --version > /dev/null 2>&1; then
  printf 'cargo-deb is not installed\nHINT: cargo install cargo-deb --locked\n' >&2
  exit 1
fi
cargo build --locked --release
target=$(packaging/target.sh)
binvault=$target/release/binvault
made=target/deb
rm -rf "$made"
mkdir -p "$made/man"
"$binvault" man --to "$made/man"
for shell in bash zsh fish; do "$binvault" completions "$shell" > "$made/binvault.$shell"; done
# The release profile strips already.
cargo deb --locked --no-build --no-strip "$@"
