//! What each job library calls its objects. Data only.
//!
//! A library either owns a schema, then everything in it is a job object, or it lives among other tables
//! and is known by names. Names are globs (`*`, `?`) on folded identifiers.

/// The names of one job library.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// Whole schemas of the library.
    pub(super) schemas: &'static [&'static str],
    pub(super) tables: &'static [&'static str],
    pub(super) functions: &'static [&'static str],
    pub(super) types: &'static [&'static str],
    /// Beyond those that follow from a table's name.
    pub(super) indexes: &'static [&'static str],
    /// `{schema}` stands for each schema that the tables may live in.
    pub(super) channels: &'static [&'static str],
    /// A preset that this one adds to.
    pub(super) extends: Option<&'static str>,
    /// How it adds jobs.
    pub(super) enqueues: Enqueues,
}

/// How jobs are added that can be relayed from the primary to a job database. A statement that uses nothing else of the
/// library's may run in a transaction of the application.
#[derive(Debug)]
pub(super) struct Enqueues {
    /// The tables that jobs are added to.
    pub(super) tables: &'static [&'static str],
    /// What decides on additions, such as the queues: the same on both sides.
    pub(super) mirrored: &'static [&'static str],
    /// Functions that do nothing but add jobs, or only compute.
    pub(super) functions: &'static [&'static str],
}

const NO_ENQUEUES: Enqueues = Enqueues { tables: &[], mirrored: &[], functions: &[] };

const NOTHING: Preset = Preset {
    name: "",
    schemas: &[],
    tables: &[],
    functions: &[],
    types: &[],
    indexes: &[],
    channels: &[],
    extends: None,
    enqueues: NO_ENQUEUES,
};

/// All presets, by name.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "oban",
        tables: &["oban_jobs", "oban_peers", "oban_leaders", "oban_producers", "oban_beats"],
        functions: &["oban_count_estimate", "oban_jobs_notify", "oban_wrap_id", "oban_state_to_bit"],
        types: &["oban_job_state"],
        indexes: &["oban_jobs_*", "oban_peers_*"],
        channels: &["{schema}.oban_*", "oban_insert"],
        enqueues: Enqueues { tables: &["oban_jobs"], ..NO_ENQUEUES },
        ..NOTHING
    },
    Preset {
        name: "oban_pro",
        tables: &["oban_queues", "oban_crons", "oban_workflows", "oban_batches", "oban_jobs_*"],
        extends: Some("oban"),
        ..NOTHING
    },
    Preset {
        name: "pg_boss",
        schemas: &["pgboss"],
        channels: &["pgboss_*"],
        enqueues: Enqueues {
            tables: &["job", "job_common", "j????????????????????????????????*"],
            mirrored: &["queue"],
            ..NO_ENQUEUES
        },
        ..NOTHING
    },
    Preset {
        name: "graphile_worker",
        schemas: &["graphile_worker"],
        channels: &["jobs:insert", "worker:migrate"],
        ..NOTHING
    },
    Preset {
        name: "procrastinate",
        tables: &["procrastinate_*"],
        functions: &["procrastinate_*"],
        types: &["procrastinate_*"],
        indexes: &["procrastinate_*", "idx_procrastinate_*"],
        channels: &["procrastinate_any_queue*", "procrastinate_queue*"],
        enqueues: Enqueues {
            tables: &["procrastinate_jobs"],
            functions: &["procrastinate_defer_*"],
            ..NO_ENQUEUES
        },
        ..NOTHING
    },
    Preset {
        name: "river",
        tables: &[
            "river_job",
            "river_leader",
            "river_queue",
            "river_migration",
            "river_client",
            "river_client_queue",
            "river_notification",
        ],
        functions: &["river_job_state_in_bitmask", "river_job_notify"],
        types: &["river_job_state"],
        indexes: &["river_*"],
        channels: &["{schema}.river_*", "river_*"],
        enqueues: Enqueues {
            tables: &["river_job"],
            functions: &["river_job_state_in_bitmask"],
            ..NO_ENQUEUES
        },
        ..NOTHING
    },
    Preset {
        name: "good_job",
        tables: &["good_jobs", "good_job_*"],
        indexes: &["index_good_job*"],
        channels: &["good_job"],
        enqueues: Enqueues { tables: &["good_jobs", "good_job_batches"], ..NO_ENQUEUES },
        ..NOTHING
    },
    Preset { name: "solid_queue", tables: &["solid_queue_*"], indexes: &["index_solid_queue_*"], ..NOTHING },
    Preset {
        name: "que",
        tables: &["que_jobs", "que_values", "que_lockers"],
        functions: &["que_*", "lock_and_update_priorities"],
        types: &["que_query_result"],
        channels: &["que_listener_*", "que_state"],
        enqueues: Enqueues { tables: &["que_jobs"], ..NO_ENQUEUES },
        ..NOTHING
    },
    Preset { name: "pgmq", schemas: &["pgmq"], channels: &["pgmq.*"], ..NOTHING },
    Preset {
        name: "delayed_job",
        tables: &["delayed_jobs"],
        indexes: &["delayed_jobs_*"],
        enqueues: Enqueues { tables: &["delayed_jobs"], ..NO_ENQUEUES },
        ..NOTHING
    },
    Preset {
        name: "pgqueuer",
        tables: &["pgqueuer", "pgqueuer_*"],
        functions: &["fn_pgqueuer_*"],
        types: &["pgqueuer_status"],
        indexes: &["pgqueuer_*"],
        channels: &["ch_pgqueuer"],
        ..NOTHING
    },
    Preset { name: "dbos", schemas: &["dbos"], channels: &["dbos_*_channel"], ..NOTHING },
    Preset { name: "absurd", schemas: &["absurd"], channels: &["absurd.*"], ..NOTHING },
];

/// The preset of a name.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The known name that a mistyped one is nearest to, if it is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    PRESETS
        .iter()
        .map(|preset| (distance(&folded, preset.name), preset.name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, in bytes: enough for names in ASCII.
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in two.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest() {
        assert_eq!(nearest("pgboss"), Some("pg_boss"));
        assert_eq!(nearest("Oban"), Some("oban"));
        assert_eq!(nearest("graphile-worker"), Some("graphile_worker"));
        assert_eq!(nearest("sidekiq_enterprise"), None);
    }

    #[test]
    fn what_is_extended_exists() {
        for preset in PRESETS {
            assert!(preset.extends.is_none_or(|base| find(base).is_some()), "{}", preset.name);
        }
    }
}
