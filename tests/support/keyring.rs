//! A server with a keyring: the file component, loaded by a manifest beside a program of its own.
//!
//! A manifest (`mysqld.my`) stands beside the program and holds for every server of it. So the program is linked (or
//! copied) into the instance's folder, and the component beside its configuration likewise: the lab's other servers
//! know nothing of it.

use super::lab;
use std::path::{Path, PathBuf};

const COMPONENT: &str = "component_keyring_file";

/// Makes a program in the instance's folder that runs the lab's mysqld with a keyring, and returns it.
pub fn program(instance: &Path) -> PathBuf {
    let keys = instance.join("keys");
    make(
        instance,
        &format!(r#"{{"components": "file://{COMPONENT}"}}"#),
        &format!(r#"{{"path": "{}", "read_only": false}}"#, keys.display()),
    )
}

/// Makes a program that takes the keyring which its data directory names, and none if it names none.
pub fn local_program(folder: &Path) -> PathBuf {
    make(folder, r#"{"read_local_manifest": true}"#, r#"{"read_local_config": true}"#)
}

fn make(instance: &Path, manifest: &str, config: &str) -> PathBuf {
    let wrapper = std::fs::read_to_string(lab::bin().join("mysqld")).expect("the lab's mysqld is started by a script");
    // The last quoted word that names the program itself: `exec [loader ..] "/..../mysqld" "$@"`.
    let real = wrapper.split('"').rfind(|word| word.ends_with("/mysqld")).expect("the script names the program");
    let component = plugin(Path::new(real));
    let (programs, plugins) = (instance.join("programs"), instance.join("plugins"));
    for folder in [&programs, &plugins] {
        std::fs::create_dir_all(folder).expect("make a folder in the instance's");
    }
    link(Path::new(real), &programs.join("mysqld"));
    std::fs::write(programs.join("mysqld.my"), manifest).unwrap();
    link(&component, &plugins.join(format!("{COMPONENT}.so")));
    // The folder takes the place of the server's own one.
    let clone = component.with_file_name("mysql_clone.so");
    if clone.exists() {
        link(&clone, &plugins.join("mysql_clone.so"));
    }
    std::fs::write(plugins.join(format!("{COMPONENT}.cnf")), config).unwrap();
    let program = instance.join("mysqld");
    let ours = wrapper
        .replace(&format!("\"{real}\""), &format!("\"{}\"", programs.join("mysqld").display()))
        .replace("\"$@\"", &format!("\"$@\" \"--plugin-dir={}\"", plugins.display()));
    std::fs::write(&program, ours).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    program
}

/// The keyring component of a mysqld, in the places where packages put it.
fn plugin(mysqld: &Path) -> PathBuf {
    let file = format!("{COMPONENT}.so");
    mysqld
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|top| {
            ["lib/mysql/plugin", "lib/plugin", "lib64/mysql/plugin"].map(|folder| top.join(folder).join(&file))
        })
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{} has no {file} beside it", mysqld.display()))
}

/// A hard link, or a copy where that cannot be.
fn link(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
}
