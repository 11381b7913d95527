//! Files with secrets that everybody on the machine can read.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use crate::config::{Config, DEFAULT_PATH};

/// A line for each file with a secret in it that everybody may read: the configuration at `path`, as far as it has
/// passwords in it, the users file, and private keys. Blocks.
pub fn exposed(config: &Config, path: Option<&Path>) -> Vec<String> {
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    let path = path.unwrap_or(Path::new(DEFAULT_PATH));
    if holds_passwords(config, path) {
        files.push(("the passwords in", path.to_owned()));
    }
    files.extend(config.auth.users_file.clone().map(|path| ("the passwords in", path)));
    let keys = config
        .listen
        .tls
        .key
        .iter()
        .chain(config.servers.iter().filter_map(|server| server.tls.key.as_ref()));
    files.extend(keys.map(|path| ("the private key in", path.clone())));
    files.dedup();
    files
        .iter()
        .filter(|(_, path)| is_readable_by_all(path))
        .map(|(what, path)| {
            format!("everybody on this machine can read {what} {}; chmod 600", path.display())
        })
        .collect()
}

fn is_readable_by_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o004 != 0)
}

/// Whether a password stands in the file itself, and not in the environment.
fn holds_passwords(config: &Config, path: &Path) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    let decoded = percent_decode_str(&text).decode_utf8_lossy();
    let mut passwords = config.servers.iter().filter_map(|server| server.password.as_ref());
    passwords
        .any(|password| decoded.contains(&format!(":{password}@")) || text.contains(&format!(":{password}@")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_everybody_can_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            path
        };
        let users = file("users", "\"a\" \"b\"\n", 0o644);
        let own = format!(
            "[servers.primary]\nurl = \"postgres://u:s%2Fcret@h/d\"\n[auth]\nusers_file = {users:?}\n"
        );
        let config = |text: &str| {
            crate::config::parse(text, "x", &|_| Some("postgres://u:s%2Fcret@h/d".to_owned()), &[])
        };
        let parsed = config(&own).expect("valid");
        let found = exposed(&parsed, Some(&file("a.toml", &own, 0o644)));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("a.toml") && found[1].contains("users"), "{found:?}");
        assert!(!found.concat().contains("cret"), "{found:?}");
        assert_eq!(exposed(&parsed, Some(&file("b.toml", &own, 0o640))).len(), 1);
        // The password comes from the environment.
        let text = "[servers.primary]\nurl = \"${DATABASE_URL}\"\n";
        let parsed = config(text).expect("valid");
        assert_eq!(exposed(&parsed, Some(&file("c.toml", text, 0o644))), [""; 0]);
    }
}
