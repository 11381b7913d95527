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
    "isn",
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
const EXCEPTIONS: &[&str] = &["set_limit", "isn_weak"];

/// Whether a function in C of an extension is harmless.
pub(super) fn is_harmless_of_extension(extension: &str, function: &str) -> bool {
    EXTENSIONS.contains(&extension) && !EXCEPTIONS.contains(&function)
}

#[cfg(test)]
mod tests {
    use super::*;

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
