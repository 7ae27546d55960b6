//! The commented configuration that `binvault init` writes. A test reads it back and holds it against the defaults.

/// A configuration with every setting: the needed ones filled in, the others as comments with their defaults.
pub fn sample(source: &str, archive: &str, recipient: &str) -> String {
    format!(
        r#"# binvault: archives a MySQL binlog, encrypted, into an object store.
# Every setting can come from the environment: BINVAULT_SOURCE__PASSWORD, BINVAULT_ARCHIVE__URL, …

[source]
url = "{source}"                # or socket = "/run/mysqld/mysqld.sock" with user = "binvault"
password_file = "/etc/binvault/password"
# urls = ["mysql://binvault@db1:3306", "mysql://binvault@db2:3306"]   # instead of url: the one that takes writes is followed
# failover = false              # accept a server in the archived one's place although it lost transactions; true with urls
# tls = "auto"                  # disabled | required | verify-ca | verify-full; auto: required off the local host
# tls_ca = "/etc/binvault/mysql-ca.pem"
# tls_cert = "/etc/binvault/client-cert.pem"
# tls_key = "/etc/binvault/client-key.pem"
# start = "oldest"              # or "current": where an empty archive begins
# server_id = 4000000001        # as a replica; derived from archive and agent.id if left out
# report_host = "binvault-main" # shown by SHOW REPLICAS
# report_port = 0
# heartbeat = "5s"              # three missed: the connection is taken for dead
# net_write_timeout = "3600s"   # how long the server waits while the store is slow
# connect_timeout = "10s"

[archive]
url = "{archive}"               # s3://bucket/prefix or file:///folder
recipients = ["{recipient}"]    # public keys; any of their private keys opens the archive
# identities = ["/root/binvault.key"]   # private keys: never on the database host
# For s3://: credentials come from the AWS chain (environment, profile, web identity, instance) unless given here.
# endpoint = "https://s3.example.org"
# region = "eu-central-1"
# path_style = true
# storage_class = "STANDARD_IA"
# sse = "none"                  # AES256 | aws:kms, beside our own encryption
# sse_kms_key_id = "…"
# ca_file = "/etc/binvault/store-ca.pem"
# access_key = "…"
# secret_key_file = "/etc/binvault/secret-key"
# put_if_absent = "auto"        # always | never: whether the store honours If-None-Match
# checksums = "auto"            # when_required | when_supported
# timeout = "60s"               # one request
# give_up_after = "300s"        # a call that keeps failing

"#
    ) + REST
}

/// The sections that nobody has to fill in.
const REST: &str = r#"[agent]
# id = "main"                   # two agents on one archive need two ids
# chunk_size = "8MiB"
# flush_interval = "1s"         # how old bytes get before they are sent: your RPO is this plus one round trip
# sealers = 2                   # compression threads
# uploads = 4                   # objects on their way at a time
# beacon_interval = "60s"
# poll_interval = "10s"

[semi_sync]                     # commits that wait until they are durable: docs/rpo-zero.md
# mode = "off"                  # "store": acknowledged when the store has the chunk; "spool": when the spool has it
# wait_limit = "3s"             # when a commit has waited so long for us, we leave, and production goes on unprotected …
# return_after = "10s"          # … and come back by ourselves so much later, or later still if that happens again

[spool]                         # chunks are durable in a folder first, and go to the store from there: docs/rpo-zero.md
# dir = "/var/spool/binvault"   # without it there is no spool; on another host than the database's it outlives that one
# max_size = "4GiB"             # when it is full, archiving waits for the store
# max_chunks = 20000

[compression]
# level = 1                     # zstd; 1 for speed
# long_window_log = 24          # for size: with level 2, a sixth to a quarter smaller where rows return, 20 MiB a thread

[base]
# schedule = "0 3 * * *"        # cron; without it base backups are taken by `binvault base` only
# time_zone = "Europe/Berlin"   # of the schedule; the system's if left out
# jitter = "0s"                 # each begins up to this much later
# engine = "clone"              # or "mysqldump", "command"; left out: a clone where the server gives a whole one, else a dump
# mysqldump = "mysqldump"       # the program
# mysqldump_options = []        # more options for it
# lock_wait = "5s"              # how long the short read lock at the beginning is waited for
# long_query = "10s"            # no lock is tried while a statement has been running for this long
# ddl = "watch"                 # DDL meanwhile: "watch" begins a dump again, and lets a clone have it; "lock" makes it wait
# give_up_after = "1h"          # how long a failing backup is tried again
# part_size = "8MiB"            # unpacked bytes of a part
# max_rate = "100MiB"           # a clone takes no more bytes a second of the server; as many as come if left out
# spool_dir = "/var/tmp"        # where a clone keeps, encrypted, what comes faster than the store takes it
# spool_max = "1GiB"            # how much of it; 0: the server waits

[base.command]
# Any tool that writes a backup to stdout; docs/base-backups.md has examples.
# backup = "xtrabackup --defaults-file=$BINVAULT_DEFAULTS_FILE --backup --stream=xbstream --target-dir=/tmp"
# coordinates = "filename '{file}', position '{position}'"   # where they stand in its stderr
# coordinates_command = "…"     # or in what this prints
# snapshot = "…"                # or taken under a read lock while this runs (LVM, ZFS)
# snapshot_timeout = "30s"
# cleanup = "…"
# restore = "xbstream -x -C $BINVAULT_DATADIR && xtrabackup --prepare --target-dir=$BINVAULT_DATADIR"
# restore_into = "datadir"      # or "server": what `restore` needs

[restore]
# mysqld = "/usr/sbin/mysqld"   # the server that `binvault restore --datadir` and `binvault drill` run
# mysql = "/usr/bin/mysql"      # the client that loads a dump
# mysqld_options = ["--innodb-buffer-pool-size=8G"]
# keyring = "/var/lib/keyring"  # where the keyring of an encrypted clone is written; DIR.keyring if left out
# workers = 8                   # appliers; by the number of cores if left out

[drill]
# folder = "/var/tmp"           # the throw-away data directory is made in it
# check_tables = true
# assertions = [{ sql = "SELECT COUNT(*) > 0 FROM shop.orders", expect = "1" }]   # the first column of the first row

[objectives]                    # judged by `binvault status` and `binvault check`
# rpo = "10s"                   # most data that may be lost, as a time
# rto = "1h"                    # longest a restore may take, by the last drill

[retention]                     # what `binvault prune` leaves
# keep = "30d"                  # every moment of so long can be restored
# bases = 2                     # at least so many base backups, and every moment since
# daily = 7                     # and the newest base backup of each of so many days, for its own place,
# weekly = 4                    # weeks,
# monthly = 12                  # and months
# grace = "1d"                  # longest restore: nothing goes that was needed so long ago
# schedule = "30 4 * * *"       # cron, in base.time_zone: `run` prunes then; without it, only `binvault prune` does

[purge_guard]                   # has the server's own binlogs purged when they are safe: docs/purge-guard.md
# enabled = false               # needs BINLOG_ADMIN
# min_age = "1d"                # how long ago a file must have been closed
# keep_files = 2                # so many always stay
# step = 2                      # at a time, each beacon_interval

[verify]
# schedule = "0 5 * * 0"        # cron: `run` reads all of the archive then and holds it against its digests: a GET an object
# bases = true                  # base backups too

[serve]
# listen = "127.0.0.1:3307"     # `binvault serve`: the archive as a replication source
# user = "replica"
# password_file = "/etc/binvault/serve-password"   # at most 32 characters, as replicas take them
# tls_cert = "/etc/binvault/serve-cert.pem"        # off the local host TLS is needed …
# tls_key = "/etc/binvault/serve-key.pem"
# plaintext = false             # … unless this says that the network is safe
# replicas_max = 16
# server_id = 4000000002        # no replica's; derived from the archive if left out
# poll_interval = "2s"          # how often the archive is looked at

[metrics]
# listen = "127.0.0.1:9188"     # `run` shows its status page there, and its metrics, to anybody: docs/metrics.md
# survey_interval = "10m"       # how often the archive is looked at for them
# storage_price = 0.023         # of a GiB and month,
# put_price = 0.005             # and of 1000 PUTs: for the estimate of what the archive costs

[notify]                        # a message when something goes wrong, and when it is well again: docs/notify.md
# url_file = "/etc/binvault/hook"   # or url: the web hook; it is a secret
# template = "json"             # or "slack"
# min_interval = "5m"           # between two messages of a kind
# ca_file = "/etc/binvault/hook-ca.pem"

[log]
# format = "text"               # or "json"
# level = "info"
"#;
