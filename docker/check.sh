#!/bin/bash
# The steps of docker/Dockerfile without a container engine: the program is built from what .dockerignore lets through, and
# the image's file system is made in a folder, by the file's own RUN lines. In it the program archives a real MySQL and
# verifies the archive, under the image's account.
#
# Needs root (chroot), debootstrap, and what the tests need. The base images are Debian's own packages, not the ones of a registry.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD file=docker/Dockerfile lab=tests/lab/mysql.sh mysql=image-$$

fail() { printf 'docker/check.sh: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail 'a chroot needs root'
command -v debootstrap > /dev/null || fail 'debootstrap is not installed. HINT: apt-get install debootstrap'

work=$(mktemp -d "${TMPDIR:-/tmp}/binvault-image.XXXXXX")
agent=
clean() { [ -z "$agent" ] || kill "$agent" 2> /dev/null || true; "$lab" wipe "$mysql" > /dev/null 2>&1 || true; rm -rf "$work"; }
trap clean EXIT

# The RUN instructions of the Nth stage, one a line.
steps() {
  sed -e ':a' -e '/\\$/{N;s/\\\n */ /;ba' -e '}' "$file" \
    | awk -v stage="$1" '/^FROM /{ n++ } n == stage && sub(/^RUN /, "") { while (sub(/^--[a-z]+=[^ ]* */, "")) ; print }'
}
value() { sed -n "s/^$1 //p" "$file" | tail -n 1; }
[ "$(grep -c '^FROM ' "$file")" = 2 ] || fail 'this knows a Dockerfile of two stages'

echo '-- build stage, from what the context has'
mkdir -p "$work/context" "$work/out"
[ "$(grep -v '^#' .dockerignore | head -n 1)" = '*' ] || fail 'the context should have named things only'
sed -n 's/^!//p' .dockerignore | while read -r name; do cp -r "$name" "$work/context/"; done
target=$(packaging/target.sh)
mkdir -p "$target"
ln -s "$target" "$work/context/target"
steps 1 > "$work/build"
[ -s "$work/build" ] || fail 'the build stage runs nothing'
sed -i "s| /binvault\$| $work/out/binvault|" "$work/build"
(cd "$work/context" && env -u CARGO_TARGET_DIR bash -e "$work/build")

echo '-- the image'
image=$work/root
suite=$(sed -n 's/^FROM debian:\([a-z]*\)-slim.*/\1/p' "$file")
[ -n "$suite" ] || fail 'the image should be one of Debian'
debootstrap --variant=minbase "$suite" "$image" > "$work/debootstrap.log" || fail "debootstrap: $(tail -n 5 "$work/debootstrap.log")"
cp -L /etc/resolv.conf "$image/etc/resolv.conf"
steps 2 | while read -r step; do
  printf '   RUN %s\n' "$step"
  chroot "$image" sh -ec "$step" > "$work/step.log" 2>&1 || fail "$step: $(tail -n 5 "$work/step.log")"
done
grep -q '^COPY --from=build /binvault /usr/local/bin/binvault$' "$file" || fail 'the program is copied to another place'
cp "$work/out/binvault" "$image/usr/local/bin/binvault"

echo '-- in it'
account=$(value USER)
[ "$account" = 65532:65532 ] || fail "it runs as $account"
[ "$(value ENTRYPOINT) $(value CMD)" = '["binvault"] ["run"]' ] || fail 'it starts something else'
mapfile -t environment < <(sed -n 's/^ENV //p' "$file")
within=(chroot --userspec="$account" "$image" env -i PATH=/usr/local/bin:/usr/bin:/bin "${environment[@]}")
inside() { "${within[@]}" "$@"; }
inside binvault --version
code=0; said=$(inside binvault run 2>&1) || code=$?
[ "$code" = 2 ] && grep -q HINT <<< "$said" || fail "without a configuration it ended with $code: $said"
inside sh -c 'touch /var/lib/binvault/x && rm /var/lib/binvault/x' || fail 'the volume cannot be written to'
writable=$(inside find / -xdev -writable -not -type l -not -path '/var/lib/binvault*' -not -path '/dev/*' -not -path '/proc/*' \
  -not -path '/tmp*' -not -path '/var/tmp*' -not -path '/run/lock*' 2> /dev/null || true)
[ -z "$writable" ] || fail "it may write to $writable"

# A server, an account and a configuration as the compose file's, but for where the server and the archive are.
port=$("$lab" start "$mysql" --plugin-load-add=mysql_clone.so)
account_sql=$(sed -n '/<<SQL$/,/^SQL$/p' docker/mysql-init.sh | sed '1d;$d')
[ -n "$account_sql" ] || fail 'mysql-init.sh makes no account'
"$lab" sql "$mysql" <<< "$(sed "s/\\\${password[^}]*}/only-for-this/" <<< "$account_sql")
  CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY); INSERT INTO t.t VALUES (1), (2);"
inside binvault keygen -o - > "$work/key" 2> "$work/recipient"
sed -e "s|mysql:3306|127.0.0.1:$port|; s|\"s3://.*\"|\"file:///var/lib/binvault/archive\"|; /^endpoint/d; /^path_style/d; /^region/d" \
  -e "s|^recipients.*|recipients = [\"$(grep -o 'age1[0-9a-z]*' "$work/recipient")\"]|" docker/binvault.toml > "$image/etc/binvault/binvault.toml"
mkdir -p "$image/run/secrets"
printf only-for-this > "$image/run/secrets/mysql_password"
inside binvault check
inside binvault run --once

# Its health check, against an agent that runs and one that does not; and its first base backup comes by itself.
health=$(sed -n 's/.*test: \["CMD", "bash", "-c", "\(.*\/healthz.*\)"\]$/\1/p' docker/compose.yaml | sed 's/\\\\/\\/g')
[ -n "$health" ] || fail 'the compose file asks nothing of /healthz'
if inside bash -c "$health" 2> /dev/null; then fail 'the health check finds an agent where none runs'; fi
"${within[@]}" binvault run > "$work/agent.log" 2>&1 &
agent=$!
wait_for() {
  local what=$1 _; shift
  for _ in {1..150}; do "$@" 2> /dev/null && return; sleep 0.2; done
  fail "$what: $(tail -n 5 "$work/agent.log")"
}
# Not grep -q, which leaves at the first match: that would be an error of the program's.
has_base() { inside binvault status | grep '^base *[0-9]' > /dev/null; }
wait_for 'the health check finds no agent' inside bash -c "$health"
wait_for 'no base backup came' has_base
kill "$agent"; wait "$agent" || fail "the agent ended badly: $(tail -n 5 "$work/agent.log")"
agent=
inside binvault status
install -o 65532 -m 0400 "$work/key" "$image/var/lib/binvault/key"
inside binvault verify --deep -i /var/lib/binvault/key
size=$(du -sm "$image" | cut -f 1)
echo "-- well: $size MiB of files, the program $(du -m "$image/usr/local/bin/binvault" | cut -f 1) of them"
