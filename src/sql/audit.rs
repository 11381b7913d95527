//! Built-in functions and extensions that were audited: which of them leave nothing on their backend.
//!
//! Built-in functions that are immutable or stable are harmless unless they are on the list of risky ones, volatile ones
//! are not unless they are on the list of harmless ones. A test asks a server for volatile functions that are on no
//! list: a new major adds some.

/// Built-in functions that run what they are given, or leave state that nobody carries.
pub(super) const RISKY: &str = include_str!("audit/risky.txt");

/// Volatile ones that leave nothing, or what is carried.
pub(super) const HARMLESS: &str = include_str!("audit/harmless.txt");

/// Volatile ones that leave what is carried, if the text itself calls them.
pub(super) const VISIBLE: &str = include_str!("audit/visible.txt");

/// The names of a list: what stands between quotes, outside of comments.
pub(super) fn names(list: &str) -> impl Iterator<Item = &str> {
    let lines = list.lines().filter(|line| !line.starts_with("--"));
    lines.flat_map(|line| line.split('\'').skip(1).step_by(2))
}

/// Extensions whose functions in C leave nothing that matters to the next session.
const EXTENSIONS: &[&str] = &[
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intagg",
    "intarray",
    "lo",
    "ltree",
    "moddatetime",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_stat_statements",
    "pg_trgm",
    "pg_visibility",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "postgis",
    "seg",
    "sslinfo",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// Functions of those that are not harmless all the same: they set parameters.
const EXCEPTIONS: &[&str] = &["set_limit"];

/// More extensions whose libraries keep nothing that a later session could find after DISCARD ALL. Not among them: `dblink`,
/// which keeps connections by name, `http` and `isn`, which keep what they were told in variables of their own (`http_set_curlopt`,
/// `isn_weak`), `hypopg` and procedural languages.
const FORGETFUL: &[&str] = &[
    "amcheck",
    "autoinc",
    "bloom",
    "dict_int",
    "dict_xsyn",
    "file_fdw",
    "insert_username",
    "intagg",
    "lo",
    "moddatetime",
    "pageinspect",
    "pg_buffercache",
    "pg_cron",
    "pg_freespacemap",
    "pg_graphql",
    "pg_net",
    "pg_partman",
    "pg_prewarm",
    "pg_repack",
    "pg_stat_statements",
    "pg_visibility",
    "pg_walinspect",
    "pgaudit",
    "pgrowlocks",
    "pgsodium",
    "pgstattuple",
    "plpgsql",
    "postgres_fdw",
    "refint",
    "seg",
    "sslinfo",
    "supabase_vault",
    "tablefunc",
    "tcn",
    "timescaledb",
    "tsm_system_rows",
    "tsm_system_time",
    "xml2",
];

/// Whether an extension's library keeps nothing beyond DISCARD ALL.
pub(super) fn knows_extension(extension: &str) -> bool {
    EXTENSIONS.contains(&extension) || FORGETFUL.contains(&extension)
}

/// Whether a function in C of an extension is harmless.
pub(super) fn is_harmless_of_extension(extension: &str, function: &str) -> bool {
    EXTENSIONS.contains(&extension) && !EXCEPTIONS.contains(&function)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `http_set_curlopt` and `isn_weak` set what no parameter of the server shows.
    #[test]
    fn libraries_with_variables_of_their_own_are_not_known() {
        for extension in ["http", "isn", "dblink", "hypopg", "plpython3u"] {
            assert!(!knows_extension(extension), "{extension}");
        }
        assert!(knows_extension("pgcrypto") && knows_extension("plpgsql"));
    }

    #[test]
    fn lists_are_apart() {
        let mut all: Vec<_> = [RISKY, HARMLESS, VISIBLE].into_iter().flat_map(names).collect();
        assert!(all.len() > 200 && all.contains(&"query_to_xml") && all.contains(&"nextval"));
        let len = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), len, "a function is on two lists");
    }
}
