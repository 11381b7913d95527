//! Names of databases that bind a connection to a pool: `app@jobs` is the database `app`, and whatever is sent there
//! goes to the pool `jobs`.

use crate::route::PoolId;

/// The database and the pool that a client's name for a database stands for. Only a whole pool's name after the last
/// `@` counts: any other name is taken as it is. A database that is itself called `a@jobs` is reached as
/// `a@jobs@jobs`, or through another pool.
pub(super) fn split(name: &str, pool_named: impl Fn(&str) -> Option<PoolId>) -> (&str, Option<PoolId>) {
    match name.rsplit_once('@') {
        Some((database, pool)) if !database.is_empty() => match pool_named(pool) {
            Some(pool) => (database, Some(pool)),
            None => (name, None),
        },
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_pools_count() {
        let known = |name: &str| (name == "jobs").then_some(PoolId(2));
        for (name, database, pool) in [
            ("app", "app", None),
            ("app@jobs", "app", Some(PoolId(2))),
            ("app@job", "app@job", None),
            ("app@", "app@", None),
            ("@jobs", "@jobs", None),
            ("a@jobs@jobs", "a@jobs", Some(PoolId(2))),
            ("a@jobs@b", "a@jobs@b", None),
        ] {
            assert_eq!(split(name, known), (database, pool), "{name}");
        }
    }
}
