//! A configuration without a file, from environment variables.
//!
//! Owns the variables' names. It writes the file that one would have written, so that defaults, bounds and
//! wording are those of files; only the places in the problems become the variables.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    Config, Environment, Problem, Problems,
    overrides::{Override, overridden},
    validate,
};

/// Variables that stand for one key each. `REPLICA_URLS` (a comma between two) and `BULKHEAD_JOBS` (presets)
/// come on top.
pub const VARIABLES: &[(&str, &str)] = &[
    ("DATABASE_URL", "servers.primary.url"),
    ("JOBS_DATABASE_URL", "servers.jobs.url"),
    ("BULKHEAD_LISTEN", "listen.address"),
    ("BULKHEAD_HTTP", "listen.http"),
    ("BULKHEAD_HTTP_TOKEN", "listen.http_token"),
    ("BULKHEAD_TLS_MODE", "listen.tls.mode"),
    ("BULKHEAD_TLS_CERTIFICATE", "listen.tls.certificate"),
    ("BULKHEAD_TLS_KEY", "listen.tls.key"),
    ("BULKHEAD_THREADS", "listen.threads"),
    ("BULKHEAD_MAX_CLIENTS", "limits.max_clients"),
    ("BULKHEAD_AUTH", "auth.method"),
    ("BULKHEAD_USERS_FILE", "auth.users_file"),
    ("BULKHEAD_MAX_CONNECTIONS", "pools.primary.max_connections"),
    ("BULKHEAD_REPLICA_MAX_CONNECTIONS", "pools.replicas.max_connections"),
    ("BULKHEAD_CONSISTENCY", "pools.replicas.consistency"),
    ("BULKHEAD_JOBS_MAX_CONNECTIONS", "pools.jobs.max_connections"),
];
const REPLICAS: &str = "REPLICA_URLS";
const PRESETS: &str = "BULKHEAD_JOBS";
/// The preset where a job database is given without a word on what its jobs are.
const PRESET_DEFAULT: &str = "oban";

pub(super) fn from_environment(
    environment: Environment<'_>,
    known_presets: &[&str],
    overrides: &[Override],
) -> Result<Config, Problems> {
    let get = |name: &str| environment(name).filter(|value| !value.is_empty());
    if get("DATABASE_URL").is_none() {
        return Err(Problems { file: "environment".to_owned(), problems: vec![no_database_url()] });
    }
    // The variables' values are in the text already, and a $ in them is only a $.
    let text = overridden(as_file(&get), overrides)?;
    let named = |problems: Problems| Problems {
        file: problems.file,
        problems: problems.problems.into_iter().map(name_variable).collect(),
    };
    let config = validate::parse(&text, "environment", &|_| None, known_presets).map_err(named)?;
    let warnings = named(config.warnings.clone());
    Ok(Config { warnings, ..config })
}

fn no_database_url() -> Problem {
    Problem {
        line: 0,
        column: 0,
        key: "DATABASE_URL".to_owned(),
        message: "is not set, and there is no configuration file".to_owned(),
        hint: format!(
            "set DATABASE_URL=postgres://user:password@host:5432/database, or write {}",
            super::DEFAULT_PATH
        ),
    }
}

fn as_file(get: &dyn Fn(&str) -> Option<String>) -> String {
    let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut set = |path: &str, value: String| {
        let (section, key) = path.rsplit_once('.').expect("every key stands in a section");
        sections.entry(section.to_owned()).or_default().push((key.to_owned(), value));
    };
    for (variable, path) in VARIABLES {
        if let Some(value) = get(variable) {
            set(path, quoted(&value));
        }
    }
    let list = |value: String| -> Vec<String> {
        value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let replicas = get(REPLICAS).map(list).unwrap_or_default();
    for (n, url) in (1..).zip(&replicas) {
        set(&format!("servers.replica_{n}.url"), quoted(url));
    }
    let job_server = get("JOBS_DATABASE_URL").is_some();
    let presets = get(PRESETS).or_else(|| job_server.then(|| PRESET_DEFAULT.to_owned())).map(list);
    if let Some(presets) = presets {
        let presets: Vec<_> = presets.iter().map(|preset| quoted(preset)).collect();
        set("jobs.presets", format!("[{}]", presets.join(", ")));
    }

    let mut text = String::new();
    // Sections that must be there even if no variable sets a key of theirs.
    for (section, wanted) in [("pools.jobs", job_server), ("pools.replicas", !replicas.is_empty())] {
        if wanted {
            sections.entry(section.to_owned()).or_default();
        }
    }
    for (section, keys) in sections {
        writeln!(text, "[{section}]").expect("a String takes any text");
        for (key, value) in keys {
            writeln!(text, "{key} = {value}").expect("a String takes any text");
        }
    }
    text
}

/// A TOML string of this value, in which nothing is a variable.
fn quoted(value: &str) -> String {
    toml::Value::String(value.replace("${", "$${")).to_string()
}

/// Puts the variable's name in the place of line, column and key.
fn name_variable(problem: Problem) -> Problem {
    let named = VARIABLES.iter().find(|(_, path)| *path == problem.key).map(|(variable, _)| *variable);
    let key = match named {
        Some(variable) => variable.to_owned(),
        None if problem.key.starts_with("servers.replica") => REPLICAS.to_owned(),
        None if problem.key == "jobs.presets" => PRESETS.to_owned(),
        None => problem.key,
    };
    Problem { line: 0, column: 0, key, ..problem }
}
