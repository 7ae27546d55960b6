//! The commented configuration that `binvault init` writes. A test reads it back and holds it against the defaults.

/// A configuration with every setting: the needed ones filled in, the others as comments with their defaults.
pub fn sample(source: &str, archive: &str, recipient: &str) -> String {
    format!(
        r#"# binvault: archives a MySQL binlog, encrypted, into an object store.
# Every setting can come from the environment: BINVAULT_SOURCE__PASSWORD, BINVAULT_ARCHIVE__URL, …

[source]
url = "{source}"                # or socket = "/run/mysqld/mysqld.sock" with user = "binvault"
password_file = "/etc/binvault/password"
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

[agent]
# id = "main"                   # two agents on one archive need two ids
# chunk_size = "8MiB"
# flush_interval = "1s"         # how old bytes get before they are sent: your RPO is this plus one round trip
# sealers = 2                   # compression threads
# uploads = 4                   # objects on their way at a time
# beacon_interval = "60s"
# poll_interval = "10s"

[compression]
# level = 1                     # zstd; 1 for speed
# long_window_log = 24          # for size: with level 2, a sixth to a quarter smaller where rows return, 20 MiB a thread

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

[log]
# format = "text"               # or "json"
# level = "info"
"#
    )
}
