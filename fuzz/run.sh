#!/bin/bash
# `make fuzz`: every decoder under libFuzzer, one after the other.
#
#   BINVAULT_FUZZ_SECONDS=1800    how long each
#   BINVAULT_FUZZ_TARGETS="a b"   these decoders only
#
# What breaks one is left in fuzz/artifacts/NAME; what leads to code not seen before, in fuzz/found/NAME, where the next
# run begins. There is no sanitizer: this crate has no unsafe code, so it would look at others' only; overflows and failed
# assertions are panics here. That is also why a stable compiler does.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${BINVAULT_FUZZ_SECONDS:-1800}
read -ra targets <<< "${BINVAULT_FUZZ_TARGETS:-$(ls corpus | tr '\n' ' ')}"

if ! cargo fuzz --version > /dev/null 2>&1; then
  echo 'cargo-fuzz is not installed: cargo install cargo-fuzz --locked' >&2
  exit 1
fi
build=(cargo fuzz build --fuzz-dir . --dev --sanitizer none decoder)
"${build[@]}"
program=$(find target -path '*/debug/decoder' -type f | head -n 1)

broken=()
for name in "${targets[@]}"; do
  mkdir -p "found/$name" "artifacts/$name"
  # A slow input is a find too. Memory: what the tests allow, and the program itself.
  if ! BINVAULT_FUZZ_TARGET=$name "$program" "found/$name" "corpus/$name" -max_total_time="$seconds" -timeout=5 \
    -max_len=65536 -rss_limit_mb=768 -malloc_limit_mb=192 -print_final_stats=1 -artifact_prefix="artifacts/$name/" \
    > "artifacts/$name/log" 2>&1; then
    broken+=("$name")
    tail -n 30 "artifacts/$name/log" >&2
  fi
  printf '%-18s %s\n' "$name" "$(grep -E '^#[0-9]+' "artifacts/$name/log" | tail -n 1)"
done
if [ ${#broken[@]} -gt 0 ]; then
  printf 'broken: %s (see fuzz/artifacts)\n' "${broken[*]}" >&2
  exit 1
fi
