#!/bin/bash
# `make fuzz`: every decoder under libFuzzer, one on each processor at a time.
#
#   BINVAULT_FUZZ_SECONDS=1800    how long each
#   BINVAULT_FUZZ_TARGETS="a b"   these decoders only
#   BINVAULT_FUZZ_JOBS=2          how many at a time
#
# What breaks one is left in fuzz/artifacts/NAME; what leads to code not seen before, in fuzz/found/NAME, where the next
# run begins. There is no sanitizer: this crate has no unsafe code, so it would look at others' only; overflows and failed
# assertions are panics here. That is also why a stable compiler does.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${BINVAULT_FUZZ_SECONDS:-1800}
jobs=${BINVAULT_FUZZ_JOBS:-$(nproc)}
read -ra targets <<< "${BINVAULT_FUZZ_TARGETS:-$(ls corpus | tr '\n' ' ')}"

if ! cargo fuzz --version > /dev/null 2>&1; then
  echo 'cargo-fuzz is not installed: cargo install cargo-fuzz --locked' >&2
  exit 1
fi
build=(cargo fuzz build --fuzz-dir . --dev --sanitizer none decoder)
"${build[@]}"
program=$(../packaging/target.sh)/$(rustc --print host-tuple)/debug/decoder

# One decoder: a line of what it came to, and `broken` beside its log if an input broke it.
fuzz() {
  local name=$1 log="artifacts/$1/log" processor
  mkdir -p "found/$name" "artifacts/$name"
  rm -f "artifacts/$name/broken"
  # A slow input is a find too. Memory: what the tests allow, and the program itself.
  if ! BINVAULT_FUZZ_TARGET=$name "$program" "found/$name" "corpus/$name" -max_total_time="$seconds" -timeout=5 \
    -max_len=65536 -rss_limit_mb=768 -malloc_limit_mb=192 -print_final_stats=1 -artifact_prefix="artifacts/$name/" \
    > "$log" 2>&1; then
    touch "artifacts/$name/broken"
    tail -n 30 "$log" >&2
  fi
  # To a file, since a pipe would have a shell of its own tell of itself; the second line is what its children took.
  times > "artifacts/$name/times"
  processor=$(sed -n '2s/ .*//p' "artifacts/$name/times")
  printf '%-18s %s of a processor, %s\n' "$name" "$processor" "$(grep -E '^#[0-9]+' "$log" | tail -n 1)"
}

for name in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
    wait -n
  done
  fuzz "$name" &
done
wait
broken=
for name in "${targets[@]}"; do
  [ ! -e "artifacts/$name/broken" ] || broken+="$name "
done
if [ -n "$broken" ]; then
  printf 'broken: %s(see fuzz/artifacts)\n' "$broken" >&2
  exit 1
fi
