#!/bin/bash
# `make demo`: binvault archives a live MySQL, is killed in the middle, comes back, and gives every byte back; then a table
# is dropped, and the server is brought back to just before that.
#
# Nothing need be installed but Rust, gcc and make; nothing is left behind, on Ctrl-C either.
#   KEEP=1       leaves the folder, to look at
#   SECONDS_OF_LOAD=10   how long the workload runs before and after the kill
set -euo pipefail
cd "$(dirname "$0")/../.."
load_seconds=${SECONDS_OF_LOAD:-6}
lab=tests/lab/mysql.sh

# --- telling ------------------------------------------------------------------------------------------------------

bold='' dim='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi
n=0
step() { n=$((n + 1)); printf '\n%s%d. %s%s\n' "$bold" "$n" "$*" "$plain"; }
tell() { printf '   %s\n' "$*"; }
good() { printf '   %s✓%s %s\n' "$green" "$plain" "$*"; }
bad() { printf '   %s✗ %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }
# Shows a command as one would type it, then runs it; what it prints is indented.
show() {
  local text="$*"; text=${text//"$bv"/binvault}; text=${text//"$work/"/}; text=${text//"$bin/"/}
  printf '   %s$ %s%s\n' "$dim" "$text" "$plain"
}
run() { show "$@"; "$@" 2>&1 | sed 's/^/     /'; }
grouped() { sed ':a;s/\B[0-9]\{3\}\>/,&/;ta' <<< "$1"; }
mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
# Bytes of all files under a folder.
bytes_in() { find "$1" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }'; }

# --- what must be undone --------------------------------------------------------------------------------------------

work='' mysql=demo-$$ agent='' loads=() restored=''
clean() {
  local code=$?
  trap - EXIT INT TERM HUP
  [ -z "$agent" ] || { kill -9 "$agent"; wait "$agent"; } 2> /dev/null || true
  [ "${#loads[@]}" = 0 ] || kill "${loads[@]}" 2> /dev/null || true
  [ -z "$restored" ] || "$bin/mysqladmin" --no-defaults -uroot -S "$restored" shutdown > /dev/null 2>&1 || true
  "$lab" wipe "$mysql" > /dev/null 2>&1 || true
  if [ -z "$work" ]; then :
  elif [ -n "${KEEP:-}" ]; then printf '\nLeft for you to look at: %s\n' "$work"
  else
    if [ "$code" != 0 ] && [ -f "$work/agent.log" ]; then
      printf '\nThe agent said last:\n' >&2; tail -n 15 "$work/agent.log" >&2
    fi
    rm -rf "$work"
  fi
  exit "$code"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- 1: programs ----------------------------------------------------------------------------------------------------

step "Build binvault, get a MySQL"
cargo build --release --locked
target=$(packaging/target.sh)
bv=$target/release/binvault
from=$SECONDS
bin=$("$lab" get)
work=$(mktemp -d "${TMPDIR:-/tmp}/binvault-demo.XXXXXX")
tell "$("$bv" --version), $("$bin/mysqld" --version | sed 's/.*Ver \([^ ]*\).*/MySQL \1/')"

# --- 2: server and account ------------------------------------------------------------------------------------------

step "Start the MySQL and make an account for the agent"
port=$("$lab" start "$mysql" --max-binlog-size=8M --sync-binlog=0 --innodb-flush-log-at-trx-commit=2)
sql() { "$lab" sql "$mysql" --batch --raw --skip-column-names "$@"; }
password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
account="CREATE USER binvault@'%' IDENTIFIED BY '…'; GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO binvault@'%';"
for_bases="GRANT SELECT, RELOAD, PROCESS, SHOW VIEW, TRIGGER, EVENT, SHOW_ROUTINE, XA_RECOVER_ADMIN ON *.* TO binvault@'%';"
sql <<< "${account/…/$password} $for_bases"
good "listening on 127.0.0.1:$port"
tell "$dim$account$plain"
tell "${dim}and for base backups: $for_bases$plain"
sql < tests/demo/workload.sql

# --- 3: keys and configuration --------------------------------------------------------------------------------------

step "Make a key pair, write a configuration"
show "$bv" keygen -o "$work/key"
recipient=$("$bv" keygen -o "$work/key" 2>&1 | grep -o 'age1[0-9a-z]*' | head -n1)
(umask 077; printf '%s' "$password" > "$work/password")
# A port that nobody has.
web=$((20000 + RANDOM % 10000))
while (: < "/dev/tcp/127.0.0.1/$web") 2> /dev/null; do web=$((web + 1)); done
cat > "$work/binvault.toml" <<TOML
[source]
url = "mysql://binvault@127.0.0.1:$port"
password_file = "$work/password"

[archive]
url = "file://$work/archive"          # or "s3://bucket/prefix"
recipients = ["$recipient"]

[metrics]
listen = "127.0.0.1:$web"
survey_interval = "2s"

[base]
mysqldump = "$bin/mysqldump"
[restore]
mysqld = "$bin/mysqld"
TOML
sed "s|$work|/…|; s/^/     /" "$work/binvault.toml"
tell "The database host needs the public key only: it cannot read what it has archived."

# --- 4: archive a busy server ---------------------------------------------------------------------------------------

start_agent() {
  show "$bv" -c "$work/binvault.toml" run '&'
  "$bv" -c "$work/binvault.toml" run >> "$work/agent.log" 2>&1 < /dev/null &
  agent=$!
}
client() { sql demo -e "SET SESSION transaction_isolation = 'READ-COMMITTED'; CALL business($1)" > "$work/client-$1.log" 2>&1; }
still_there() { kill -0 "$agent" 2> /dev/null || bad "the agent ended by itself"; }
executed() { sql -e "SELECT SUM(seq) FROM demo.done"; }
chunks() { find "$work/archive/chunks" -name '*.zst.age' 2> /dev/null | wc -l; }
wait_for_chunks() {
  local want=$1 i
  for i in $(seq 150); do [ "$(chunks)" -lt "$want" ] || return 0; still_there; sleep 0.2; done
  bad "no chunk has reached the archive"
}

step "Archive it while three clients write"
start_agent
for c in 1 2 3; do client "$c" & loads+=($!); done
wait_for_chunks 2
sleep "$load_seconds"; still_there
good "$(grouped "$(executed)") transactions committed so far, $(chunks) chunks in the archive"

step "Take a base backup, while they go on writing"
run "$bv" -c "$work/binvault.toml" base

# --- 5: look at it --------------------------------------------------------------------------------------------------

# Asks the agent over HTTP; nothing but bash is needed.
ask() (
  exec 3<> "/dev/tcp/127.0.0.1/$web"
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  sed '1,/^\r*$/d' <&3
)

step "Watch it: is it ready, how far is it, what is to be done?"
for _ in $(seq 100); do
  ask /metrics | grep -q '^binvault_restorable_from' && break
  still_there; sleep 0.2
done
show curl "http://127.0.0.1:$web/readyz"
ask /readyz | sed 's/^/     /'
show curl "http://127.0.0.1:$web/metrics"
ask /metrics | grep -E '^(binvault_(streaming|lag_seconds|transactions_total|commit_to_durable_seconds_count|bases|archive_bytes.*chunks.*|restorable_from_timestamp_seconds)|process_resident_memory_bytes) ' \
  | sed 's/^/     /'
ask / | grep -q '</html>' || bad "there is no status page"
good "and for people the status page, at http://127.0.0.1:$web/ as long as it runs"
# SHOT=file.png keeps a picture of it, where there is a Chromium.
if [ -n "${SHOT:-}" ]; then
  chromium --headless=new --no-sandbox --hide-scrollbars --window-size=1280,1500 --virtual-time-budget=4000 --screenshot="$SHOT" \
    "http://127.0.0.1:$web/" > /dev/null 2>&1 || bad "no picture was taken"
  good "its picture is in $SHOT"
fi

# --- 6: the worst ----------------------------------------------------------------------------------------------------

step "Kill the agent with SIGKILL, in the middle of it"
show kill -9 "$agent"
kill -9 "$agent"; wait "$agent" 2> /dev/null || true
agent=''
before=$(executed) had=$(chunks)
sleep 2
good "dead; MySQL does not mind: $(grouped "$(($(executed) - before))") more transactions in two seconds"

step "Start it again: it finds its place in the archive, no state of its own is needed"
start_agent
wait_for_chunks "$((had + 2))"
sleep "$load_seconds"; still_there
sql -e "INSERT INTO demo.stopped VALUES (1)"
wait "${loads[@]}" || bad "a client failed: $(cat "$work"/client-*.log)"
loads=()
tables='demo.orders, demo.items, demo.done'
sums=$(sql -e "CHECKSUM TABLE $tables")
step "The accident: somebody drops a table, and nobody notices for a while"
accident() { tell "${dim}mysql> $1$plain"; sql -e "$1"; }
accident "DROP TABLE demo.orders"
accident "UPDATE demo.items SET price = 0"
sql -e "FLUSH BINARY LOGS"
read -r last position _ < <(sql -e "SHOW BINARY LOG STATUS")
committed=$(executed)
good "load stopped after $(grouped "$committed") transactions; MySQL stands at $last, $position"

# --- 7: stop politely ------------------------------------------------------------------------------------------------

step "Let it catch up, ask it to leave"
"$bv" -c "$work/binvault.toml" status > /dev/null || true
# All that was written before the last rotation is in the archive once the file after it is.
for _ in $(seq 300); do
  compgen -G "$work/archive/chunks/*/$last.*" > /dev/null && break
  still_there; sleep 0.2
done
show kill -TERM "$agent"
kill -TERM "$agent"
code=0; wait "$agent" || code=$?
agent=''
[ "$code" = 0 ] || bad "it ended with exit code $code"
good "flushed, uploaded, exit code 0"
run "$bv" -c "$work/binvault.toml" status

# --- 8: is it all there? ---------------------------------------------------------------------------------------------

step "Verify the archive, to the last event's checksum"
run "$bv" -c "$work/binvault.toml" verify --deep --identity "$work/key"

step "Export the binlog files and compare them with the server's own"
run "$bv" -c "$work/binvault.toml" export --to "$work/export" --identity "$work/key"
data=$("$lab" show "$mysql" data)
files=0 bytes=0
while read -r name; do
  name=${name##*/}
  size=$(stat -c %s "$work/export/$name") || bad "$name was not exported"
  if [ "$name" = "$last" ]; then
    # In use: its header carries one bit (at byte 22) that says so, which the server clears when it closes the file.
    [ "$size" = "$(stat -c %s "$data/$name")" ] || bad "$name has another size"
    differing=$({ cmp -l "$data/$name" "$work/export/$name" || true; } | awk '$1 != 22' | wc -l)
    [ "$differing" = 0 ] || bad "$name differs"
    good "$name  $(printf '%12s' "$(grouped "$size")") bytes  (in use; all but its in-use bit)"
  else
    cmp "$data/$name" "$work/export/$name" || bad "$name differs"
    good "$name  $(printf '%12s' "$(grouped "$size")") bytes  cmp: identical"
  fi
  files=$((files + 1)) bytes=$((bytes + size))
done < "$data/binlog.index"

step "Ask MySQL's own tool what is in them"
show "$bin/mysqlbinlog" --verify-binlog-checksum 'export/binlog.[0-9]*' '|' grep -c Xid
exported=$(cd "$work/export" && "$bin/mysqlbinlog" --no-defaults --verify-binlog-checksum binlog.[0-9]* | grep -c $'\tXid = ')
original=$(cd "$data" && "$bin/mysqlbinlog" --no-defaults --verify-binlog-checksum binlog.[0-9]* | grep -c $'\tXid = ' || true)
[ "$exported" = "$original" ] && [ "$exported" -ge "$committed" ] ||
  bad "$exported transactions exported, $original on the server, $committed acknowledged to the clients"
good "$(grouped "$exported") transactions, as on the server; every checksum right"

step "No lock-in: one chunk by hand, with age and zstd"
first=$(sed -n '1s|.*/||p' "$data/binlog.index")
chunk=$(find "$work/archive/chunks" -path "*/$first.*" -name '*.zst.age' | sort | head -n1)
show age -d -i key "chunks/…/${chunk##*/}" '|' zstd -d '|' cmp - "$first"
"$bin/age" -d -i "$work/key" "$chunk" | "$bin/zstd" -dcq > "$work/by-hand"
cmp -n "$(stat -c %s "$work/by-hand")" "$work/by-hand" "$data/$first" || bad "it differs"
good "$(grouped "$(stat -c %s "$work/by-hand")") bytes, identical"

# --- 9: the way back --------------------------------------------------------------------------------------------------

step "Find out when it happened"
run "$bv" -c "$work/binvault.toml" find --kind drop --table demo.orders --identity "$work/key"
gtid=$("$bv" -c "$work/binvault.toml" find --kind drop --table demo.orders --json --identity "$work/key" |
  sed -n 's/.*"gtid": "\([0-9a-f-]*:[0-9]*\)".*/\1/p' | tail -n1)
[ -n "$gtid" ] || bad "the DROP was not found"

step "Bring a server back to just before it, and have that proven"
since=$SECONDS
restore=("$bv" -c "$work/binvault.toml" restore --to "gtid:$gtid" --before --datadir "$work/restored" --keep-running --identity "$work/key")
show "${restore[@]}"
"${restore[@]}" 2>&1 | tee "$work/restore.out" | sed 's/^/     /'
restored=$(sed -n 's/.*--socket=\([^ ]*\).*/\1/p' "$work/restore.out")
[ -S "$restored" ] || bad "the restored server is not running"
restored_sql() { "$bin/mysql" --no-defaults -uroot -S "$restored" --batch --raw --skip-column-names "$@"; }
there=$(restored_sql -e "CHECKSUM TABLE $tables")
[ "$there" = "$sums" ] || bad "the tables differ: $there instead of $sums"
while read -r table sum; do good "$table  checksum $sum, as on the server before the accident"; done <<< "$there"
took=$((SECONDS - since))

stored=$(bytes_in "$work/archive/chunks")
printf '\n%sNothing is missing, and the table is back.%s %s transactions, %s files, %s; stored as %s encrypted chunks of %s in all: ratio %s. Restored in %s s; %s s in all.\n' \
  "$bold$green" "$plain" "$(grouped "$exported")" "$files" "$(mib "$bytes")" "$(chunks)" "$(mib "$stored")" \
  "$(awk -v a="$bytes" -v b="$stored" 'BEGIN { printf "%.1f", a / b }')" "$took" "$((SECONDS - from))"
