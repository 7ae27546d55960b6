#!/bin/bash
# `make static`: one file that runs on any Linux of this processor, whatever its C library, in target/<target>/release/.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-musl

missing() { printf '%s\nHINT: %s\n' "$1" "$2" >&2; exit 1; }
[ -d "$(rustc --print target-libdir --target "$target")" ] || missing "Rust's library for $target is not installed" "rustup target add $target"
command -v musl-gcc > /dev/null || missing 'musl-gcc is not installed' 'apt-get install musl-tools'
export "CC_${target//-/_}=musl-gcc"
cargo build --release --locked --target "$target" --bin binvault
built=$(packaging/target.sh)/$target/release/binvault
needs=$(ldd "$built" 2>&1 || true)
grep -qE 'statically linked|not a dynamic executable' <<< "$needs" || missing "it still needs $needs" 'look at what was linked'
"$built" --version
echo "$built"
