//! The reference of all keys and variables as Markdown: `docs/configuration.md`, and `bulkhead keys`.

use std::fmt::Write as _;

use super::{
    env,
    keys::{Change, KEYS, Key, Unit},
};

const HEAD: &str = "\
# Configuration

`bulkhead keys` prints this page; a test keeps the file equal to it.

Bulkhead reads the TOML file that `--config FILE` names, else `config/bulkhead.toml` if that exists, else the
environment alone. `bulkhead check` lists everything that is wrong with a configuration. `${NAME}` and
`${NAME:-default}` stand for environment variables in any text, `$${` for `${` itself.

* **address**: an IP address and a port, `\"127.0.0.1:6432\"` or `\"[::]:6432\"`.
* **duration**: a whole number and `ms`, `s`, `m`, `h` or `d`, as text: `\"500ms\"`.
* **size**: a whole number and `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`, as text: `\"64KiB\"`.
* **mode**: file permissions in octal, as text: `\"0660\"`.
* A change of a key takes effect with a **reload** (SIGHUP) or with a **restart**.
";

const ENVIRONMENT: &str = "
## Without a file

These variables stand for keys. All but the first one are optional.

| variable | key |
|---|---|
";

const COMPOSED: &str = "\
| `REPLICA_URLS` | `servers.replica_1.url`, `servers.replica_2.url`, ..: URLs with commas between them |
| `BULKHEAD_JOBS` | `jobs.presets`: names with commas between them; `oban` if only `JOBS_DATABASE_URL` is given |
";

/// All of it.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for section in KEYS {
        let title = match section.name {
            "" => "At the top".to_owned(),
            name => format!("`[{}]`", name.replace('*', "NAME")),
        };
        let _ = write!(page, "\n## {title}\n\n{}\n\n", section.about);
        page.push_str("| key | value | default | change | meaning |\n|---|---|---|---|---|\n");
        for key in section.keys.iter().filter(|key| key.unit != Unit::Section) {
            page.push_str(&row(key));
        }
    }
    page.push_str(ENVIRONMENT);
    for (variable, key) in env::VARIABLES {
        let _ = writeln!(page, "| `{variable}` | `{key}` |");
    }
    page.push_str(COMPOSED);
    page
}

fn row(key: &Key) -> String {
    let unit = match key.unit {
        Unit::Address => "address",
        Unit::Count => "number",
        Unit::Duration => "duration",
        Unit::Size => "size",
        Unit::Text => "text",
        Unit::Path => "path",
        Unit::Mode => "mode",
        Unit::Texts => "list of texts",
        Unit::Flag => "true or false",
        Unit::Section => "section",
    };
    let change = match key.change {
        Change::Restart => "restart",
        Change::Reload => "reload",
    };
    let literal =
        key.default.starts_with(['"', '[']) || key.unit == Unit::Flag || key.default.parse::<u64>().is_ok();
    let default = if literal { format!("`{}`", key.default) } else { key.default.to_owned() };
    format!("| `{}` | {unit} | {default} | {change} | {} |\n", key.name, key.meaning)
}
