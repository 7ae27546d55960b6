//! Settings read from files and the environment.

use super::*;
use crate::base::{CoordinatesFrom, DdlRule, EngineName};

fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Config> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(file.path()), env.collect::<Vec<_>>().into_iter()).and_then(Config::new)
}

const MINIMAL: &str = "[source]\nurl = \"mysql://vault@db.example:3307\"\n[archive]\nurl = \"file:///var/lib/x\"\n";

#[test]
fn the_minimal_file_is_enough() {
    let config = load_text(MINIMAL, &[]).unwrap();
    let source = config.source().unwrap();
    assert_eq!((source.user.as_str(), source.address.to_string().as_str()), ("vault", "db.example:3307"));
    assert_eq!(config.ship().unwrap().chunk_bytes, 8 << 20);
    assert!(config.recipients().is_err(), "no recipient is an error where one is needed");
}

#[test]
fn the_environment_wins_and_numbers_come_as_text() {
    let env = [
        ("BINVAULT_SOURCE__PASSWORD", "12345"),
        ("BINVAULT_SOURCE__SERVER_ID", "77"),
        ("BINVAULT_AGENT__CHUNK_SIZE", "1MiB"),
        ("BINVAULT_AGENT__FLUSH_INTERVAL", "250ms"),
        ("BINVAULT_ARCHIVE__PATH_STYLE", "true"),
        ("BINVAULT_ARCHIVE__RECIPIENTS", "age1a, age1b"),
        ("BINVAULT_CONFIG", "not a setting"),
    ];
    let config = load_text(MINIMAL, &env).unwrap();
    assert_eq!(config.agent(false).unwrap().server_id, Some(77));
    let ship = config.ship().unwrap();
    assert_eq!((ship.chunk_bytes, ship.flush_interval), (1 << 20, Duration::from_millis(250)));
    assert_eq!(config.store(false).unwrap().s3.path_style, Some(true));
    assert_eq!(config.raw.archive.recipients.0, ["age1a", "age1b"]);
    assert!(!format!("{config:?}").contains("12345"), "{config:?}");
}

#[test]
fn a_spool_goes_with_its_mode_and_has_a_least_size() {
    let with = |text: &str| load_text(&format!("{MINIMAL}{text}"), &[]);
    assert!(with("").unwrap().spool().unwrap().is_none());
    let options = with("[spool]\ndir = \"/s\"\n[semi_sync]\nmode = \"spool\"\n").unwrap().spool().unwrap().unwrap();
    assert_eq!((options.bytes_max, options.entries_max), (4 << 30, 20_000));
    for (text, wanted) in [
        ("[semi_sync]\nmode = \"spool\"\n", "no spool is configured"),
        ("[spool]\ndir = \"/s\"\n[semi_sync]\nmode = \"store\"\n", "spool.dir is set"),
        ("[spool]\ndir = \"s\"\n", "absolute"),
        ("[spool]\ndir = \"/s\"\nmax_size = \"100MiB\"\n", "less than 520 MiB"),
        ("[spool]\ndir = \"/s\"\nmax_chunks = 10\n", "less than 1000"),
    ] {
        let error = with(text).unwrap_err();
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn no_secret_is_shown_by_debug() {
    let text = "[source]\nurl = \"mysql://u:geheim@h\"\n[archive]\nurl = \"s3://b\"\naccess_key = \"a\"\n\
        secret_key = \"geheim\"\nsession_token = \"geheim\"\n[serve]\npassword = \"geheim\"\n";
    let config = load_text(text, &[]).unwrap();
    let shown = format!("{config:?} {:?} {:?}", config.source().unwrap(), config.store(false).unwrap());
    let several = load_text(&text.replace("url = \"mysql", "urls = \"mysql"), &[]).unwrap();
    assert!(!format!("{shown}{several:?}").contains("geheim"), "{shown}{several:?}");
}

#[test]
fn what_is_not_understood_is_named() {
    for (text, env, wanted) in [
        ("[source]\nurll = \"x\"\n", ("X", ""), "urll"),
        (MINIMAL, ("BINVAULT_SOURCE__PORT", "1"), "BINVAULT_SOURCE__PORT"),
        (MINIMAL, ("BINVAULT_AGENT__UPLOADS", "many"), "BINVAULT_AGENT__UPLOADS"),
        (MINIMAL, ("BINVAULT_AGENT__CHUNK_SIZE", "1TiB"), "size"),
        (MINIMAL, ("BINVAULT_AGENT__CHUNK_SIZE", "1GiB"), "16MiB"),
        (MINIMAL, ("BINVAULT_AGENT__ID", "a/b"), "agent.id"),
        (MINIMAL, ("BINVAULT_SOURCE__TLS", "maybe"), "TLS mode"),
        (MINIMAL, ("BINVAULT_SOURCE__URL", "mysql://u:geheim@h:x"), "port"),
        (MINIMAL, ("BINVAULT_SOURCE__SOCKET", "/s"), "both given"),
        ("[source]\npassword = geheim\n", ("X", ""), "line 2"),
    ] {
        let error = load_text(text, &[env]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Config);
        assert!(error.chain().contains(wanted), "{wanted}: {}", error.chain());
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
}

#[test]
fn source_urls() {
    let url = values::parse_source_url("mysql://a%40b:p%3Aw@[::1]:3310/").unwrap();
    assert_eq!((url.user.as_deref(), url.host.as_str(), url.port), (Some("a@b"), "::1", 3310));
    assert_eq!(secrecy::ExposeSecret::expose_secret(&url.password.unwrap()), "p:w");
    assert_eq!(values::parse_source_url("mysql://db").unwrap().port, 3306);
}

#[test]
fn the_sample_is_a_configuration_and_tells_the_defaults() {
    let text = sample("mysql://binvault@127.0.0.1:3306", "file:///var/lib/binvault", "age1x");
    let plain: RawConfig = text.parse::<toml::Table>().unwrap().try_into().unwrap();
    assert_eq!(plain.archive.recipients.0, ["age1x"]);
    // With the comment signs of settings taken away every name and value must be understood, and be the default
    // where there is one.
    let all: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')))
                .unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let all: RawConfig = all.parse::<toml::Table>().unwrap().try_into().unwrap();
    let default = RawConfig::default();
    assert_eq!(all.agent.chunk_size, default.agent.chunk_size);
    assert_eq!(all.agent.beacon_interval, default.agent.beacon_interval);
    assert_eq!((all.agent.sealers, all.agent.uploads), (default.agent.sealers, default.agent.uploads));
    assert_eq!(all.source.heartbeat, default.source.heartbeat);
    assert_eq!(all.source.net_write_timeout, default.source.net_write_timeout);
    assert_eq!(all.archive.give_up_after, default.archive.give_up_after);
    assert_eq!(all.compression.level, default.compression.level);
    assert_eq!(all.log.level, default.log.level);
    let (given, unset) = (&all.semi_sync, &default.semi_sync);
    assert_eq!((given.mode, given.wait_limit, given.return_after), (unset.mode, unset.wait_limit, unset.return_after));
    let (base, default) = (&all.base, &default.base);
    assert_eq!((base.lock_wait, base.long_query), (default.lock_wait, default.long_query));
    assert_eq!((base.give_up_after, base.jitter), (default.give_up_after, default.jitter));
    assert_eq!((&base.mysqldump, &base.mysqldump_options), (&default.mysqldump, &default.mysqldump_options));
    assert_eq!(base.command.snapshot_timeout, default.command.snapshot_timeout);
    let unset = Config::new(RawConfig { archive: plain.archive, ..RawConfig::default() }).unwrap().base(None).unwrap();
    // Left out, the engine is chosen by what the server can, and the size of parts by the engine: the sample shows one of each.
    assert_eq!((unset.engine, base.engine.as_deref()), (None, Some("clone")));
    assert_eq!((&base.spool_dir, base.spool_max), (&default.spool_dir, default.spool_max));
    assert_eq!((unset.ddl, base.ddl.as_deref()), (DdlRule::Watch, Some("watch")));
}

#[test]
fn base_backups() {
    let with = |text: &str| load_text(&format!("{MINIMAL}[base]\n{text}"), &[]);
    let base = with("schedule = \"@daily\"\ntime_zone = \"UTC\"\nlock_wait = \"2s\"").unwrap().base(None).unwrap();
    assert_eq!((base.engine, base.lock_wait), (None, Duration::from_secs(2)));
    assert_eq!((base.max_rate, base.part_bytes, base.spool_max), (None, 8 << 20, 1 << 30));
    let clone = with("engine = \"clone\"\nmax_rate = \"50MiB\"\nspool_max = 0").unwrap().base(None).unwrap();
    assert_eq!((clone.engine, clone.max_rate, clone.spool_max), (Some(EngineName::Clone), Some(50 << 20), 0));
    assert_eq!(base.schedule.unwrap().next_after(1), Some(86_400_000_000));
    let command = "[base.command]\nbackup = \"tool\"\ncoordinates = \"at {file}:{position}\"";
    let env = [("BINVAULT_BASE__COMMAND__RESTORE", "put back"), ("BINVAULT_BASE__COMMAND__RESTORE_INTO", "server")];
    let config = load_text(&format!("{MINIMAL}{command}"), &env).unwrap();
    let chosen = config.base(Some(EngineName::Command)).unwrap().command.unwrap();
    assert!(matches!(chosen.coordinates, CoordinatesFrom::Stderr { pattern } if pattern == "at {file}:{position}"));
    let restore = config.base_restore().unwrap().unwrap();
    assert_eq!(restore, RestoreCommand { command: "put back".into(), into: RestoreInto::Server });
    for (text, wanted) in [
        ("engine = \"xtrabackup\"", "xtrabackup"),
        ("max_rate = 10", "base.max_rate"),
        ("engine = \"command\"", "base.command.backup"),
        ("schedule = \"never\"", "base.schedule"),
        ("part_size = \"1GiB\"", "base.part_size"),
        ("ddl = \"ignore\"", "base.ddl"),
        ("[base.command]\nbackup = \"x\"", "base.command.coordinates"),
        ("[base.command]\nbackup = \"x\"\ncoordinates = \"{file}\"", "{position}"),
        ("[base.command]\nbackup = \"x\"\nsnapshot = \"y\"\ncoordinates_command = \"z\"", "both set"),
        ("[base.command]\nrestore_into = \"heaven\"", "heaven"),
    ] {
        let error = with(text).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Config);
        assert!(error.chain().contains(wanted), "{wanted}: {}", error.chain());
    }
}

#[test]
fn commits_wait_only_where_that_is_said() {
    assert_eq!(load_text(MINIMAL, &[]).unwrap().semi_sync().unwrap().mode, SemiSyncMode::Off);
    let env = [("BINVAULT_SEMI_SYNC__MODE", "store"), ("BINVAULT_SEMI_SYNC__WAIT_LIMIT", "250ms")];
    let options = load_text(MINIMAL, &env).unwrap().semi_sync().unwrap();
    assert_eq!((options.mode, options.wait_limit), (SemiSyncMode::Store, Duration::from_millis(250)));
    for (text, wanted) in [
        ("mode = \"always\"", "always"),
        ("wait_limit = \"1ms\"", "wait_limit"),
        ("return_after = \"0s\"", "return_after"),
    ] {
        let error = load_text(&format!("{MINIMAL}[semi_sync]\n{text}\n"), &[]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Config);
        assert!(error.chain().contains(wanted), "{wanted}: {}", error.chain());
    }
}

/// `docs/configuration.md` holds the sample; `BINVAULT_UPDATE=1` writes it anew.
#[test]
fn the_documentation_has_every_setting() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("```toml\n").unwrap();
    let (was, tail) = rest.split_once("```\n").unwrap();
    let is = sample("mysql://binvault@127.0.0.1:3306", "s3://bucket/prefix", "age1…");
    if std::env::var_os("BINVAULT_UPDATE").is_some() {
        std::fs::write(&path, format!("{head}```toml\n{is}```\n{tail}")).unwrap();
        return;
    }
    assert!(
        was == is,
        "docs/configuration.md is not what `binvault init` writes: BINVAULT_UPDATE=1 cargo test --lib config"
    );
}
