//! What a database is found to have, put into a configuration that leaves it open: the presets of the job libraries that are
//! there (`presets = ["auto"]`), and a pool of their own.

use super::{Config, Jobs, PRIMARY, Pool, pools::pinned_share};

/// The pool that jobs get where none is written takes one in so many of the connections of `primary`.
const SHARE: usize = 4;

/// A job library that was found on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundLibrary<'a> {
    /// The name of its preset.
    pub preset: &'a str,
    /// The schema of its tables.
    pub schema: &'a str,
    /// The library owns this schema, and has nothing elsewhere.
    pub is_own: bool,
}

impl Config {
    /// Whether what is found decides on the presets. Not with a job database of its own: whether jobs are there or still on
    /// the primary is not to be guessed.
    pub fn looks_for_libraries(&self) -> bool {
        self.jobs.auto && !self.has_job_database()
    }

    fn has_job_database(&self) -> bool {
        let server_of =
            |name: &str| self.pools.iter().find(|pool| pool.name == name).map(|pool| &pool.servers);
        server_of("jobs").is_some_and(|jobs| Some(jobs) != server_of(PRIMARY))
    }

    /// The same configuration with what was found. Where no pool `jobs` is written there is one then, if jobs are known of:
    /// its connections are taken from those of `primary`, so that the server has no more than before.
    #[must_use]
    pub fn with_libraries(mut self, found: &[FoundLibrary<'_>]) -> Self {
        if !self.looks_for_libraries() || found.is_empty() {
            return self;
        }
        let Jobs { presets, schemas, .. } = &mut self.jobs;
        for library in found {
            if !presets.iter().any(|known| known == library.preset) {
                presets.push(library.preset.to_owned());
            }
            let is_known = library.is_own || library.schema == "public";
            if !is_known && !schemas.iter().any(|known| known == library.schema) {
                schemas.push(library.schema.to_owned());
            }
        }
        let is_written = self.pools.iter().any(|pool| pool.name == "jobs");
        if !is_written && let Some(primary) = self.pools.iter_mut().find(|pool| pool.name == PRIMARY) {
            let share = primary.max_connections / SHARE;
            if share > 0 {
                primary.shrink_to(primary.max_connections - share);
                let mut jobs = Pool { name: "jobs".to_owned(), min_connections: 0, ..primary.clone() };
                jobs.shrink_to(share);
                self.pools.push(jobs);
            }
        }
        self
    }

    /// The found libraries, as one would write them; nothing if there are none.
    pub fn libraries_as_toml(&self, found: &[FoundLibrary<'_>]) -> Option<String> {
        let whole = self.clone().with_libraries(found);
        if whole == *self {
            return None;
        }
        let list = |names: &[String]| toml::Value::from(names.to_vec()).to_string();
        let mut lines = vec!["[jobs]".to_owned(), format!("presets = {}", list(&whole.jobs.presets))];
        if whole.jobs.schemas != self.jobs.schemas {
            lines.push(format!("schemas = {}", list(&whole.jobs.schemas)));
        }
        for pool in &whole.pools {
            let before = self.pools.iter().find(|before| before.name == pool.name);
            if before.is_none_or(|before| before.max_connections != pool.max_connections) {
                lines.push(format!("\n[pools.{}]\nmax_connections = {}", pool.name, pool.max_connections));
            }
        }
        lines.push(String::new());
        Some(lines.join("\n"))
    }
}

impl Pool {
    fn shrink_to(&mut self, max_connections: usize) {
        let had_share = self.max_pinned == pinned_share(self.max_connections);
        let max_pinned = if had_share { pinned_share(max_connections) } else { self.max_pinned };
        self.max_connections = max_connections;
        self.max_pinned = max_pinned.min(max_connections);
        self.min_connections = self.min_connections.min(max_connections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBAN: FoundLibrary<'_> = FoundLibrary { preset: "oban", schema: "public", is_own: false };

    fn config(text: &str) -> Config {
        let text = format!("[servers.primary]\nurl = \"postgres://u@h/d\"\n{text}");
        super::super::validate::parse(&text, "test", &|_| None, &["oban", "pg_boss"]).expect("it is valid")
    }

    fn sizes(config: &Config) -> Vec<(&str, usize, usize)> {
        config.pools.iter().map(|pool| (pool.name.as_str(), pool.max_connections, pool.max_pinned)).collect()
    }

    #[test]
    fn what_is_found_gets_a_pool_within_the_same_connections() {
        let found = config("").with_libraries(&[OBAN]);
        assert_eq!(sizes(&found), [("primary", 15, 11), ("jobs", 5, 3)]);
        assert_eq!(found.jobs.presets, ["oban"]);
        // The smallest has nothing to give.
        let least = config("[pools.primary]\nmax_connections = 3\n").with_libraries(&[OBAN]);
        assert_eq!((sizes(&least).len(), least.jobs.presets.len()), (1, 1));
        assert_eq!(config("").with_libraries(&[]), config(""));
    }

    #[test]
    fn what_is_written_stays() {
        let written = config("[pools.jobs]\nmax_connections = 8\n");
        assert_eq!(sizes(&written.clone().with_libraries(&[OBAN])), sizes(&written));
        for text in ["[jobs]\npresets = []\n", "[jobs]\npresets = [\"pg_boss\"]\n"] {
            assert_eq!(config(text).with_libraries(&[OBAN]), config(text), "{text}");
        }
        let auto = config("[jobs]\npresets = \"auto\"\n");
        assert_eq!(auto, config("[jobs]\npresets = [\"auto\"]\n"));
        assert_eq!(auto.with_libraries(&[OBAN]).jobs.presets, ["oban"]);
        let elsewhere = config("[servers.jobs]\nurl = \"postgres://u@j/d\"\n[pools.jobs]\n");
        assert_eq!(elsewhere.clone().with_libraries(&[OBAN]), elsewhere);
    }

    #[test]
    fn it_can_be_written_down() {
        let boss = FoundLibrary { preset: "pg_boss", schema: "pgboss", is_own: true };
        let prefixed = FoundLibrary { schema: "private", ..OBAN };
        let found = [OBAN, prefixed, boss];
        let text = config("").libraries_as_toml(&found).expect("something was found");
        assert_eq!(
            text,
            "[jobs]\npresets = [\"oban\", \"pg_boss\"]\nschemas = [\"private\"]\n\n[pools.primary]\nmax_connections = 15\n\n[pools.jobs]\nmax_connections = 5\n"
        );
        let (written, meant) = (config(&text), config("").with_libraries(&found));
        assert_eq!(sizes(&written), sizes(&meant));
        assert_eq!((written.jobs.presets, written.jobs.schemas), (meant.jobs.presets, meant.jobs.schemas));
        assert_eq!(config("").libraries_as_toml(&[]), None);
    }
}
