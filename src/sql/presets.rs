//! What each job library calls its objects. Data only.
//!
//! A library either owns a schema, then everything in it is a job object, or it lives among other tables
//! and is known by names. Names are globs (`*`, `?`) on folded identifiers.

use super::glob::Glob;

/// The names of one job library.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// The table that tells that the library is there; of one that owns schemas, in one of these.
    pub(super) known_by: &'static str,
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
    /// Where jobs enqueued on the primary are written to, from where a relay moves them to the job database. None: they
    /// cannot be, since their rows name others by numbers that each database gives out for itself.
    pub(super) outbox: Outbox,
}

/// How jobs that are enqueued on the primary come to the job database.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Tables whose rows are moved.
    pub(super) relayed: &'static [Relayed],
    /// Functions that insert into them and do nothing else that lasts.
    pub(super) enqueues: &'static [&'static str],
    /// Functions that make or take away tables, such as those of a queue: run on both servers.
    pub(super) defines: &'static [&'static str],
    /// Tables that an enqueue reads: the primary has a copy of the job database's rows.
    pub(super) mirrored: &'static [&'static str],
}

/// A table whose rows are moved from the primary to the job database.
#[derive(Debug)]
pub struct Relayed {
    /// The table's name; or a glob, where the library has a table for each queue.
    pub table: &'static str,
    /// The column that tells when a job was enqueued, if it has one: in UTC if it is without time zone.
    pub enqueued_at: Option<&'static str>,
    /// Waking the library's workers, if its table has no trigger that does.
    pub notify: Option<Notify>,
    /// Rows of other tables that a row names by numbers which each database gives out for itself.
    pub parents: &'static [Parent],
    /// A column that is NULL in each row that is moved: by what it means, a row that has it may change one that is in the job
    /// database already, which the primary cannot know.
    pub absent: Option<&'static str>,
    /// The library's function that makes such a table, if it makes one for each queue.
    pub made_by: Option<Maker>,
    /// How rows that have the column `absent` come to be all the same: by the calls that would add them.
    pub calls: Option<Calls>,
}

/// Calls that are noted on the primary, and made in the job database: what they do depends on the jobs that are there.
///
/// In its texts `{schema}` stands for the library's schema, `{name}` for that as a literal, and `{calls}` for the table of
/// calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Calls {
    /// The library's functions, which are put aside on the primary, as `bulkhead_` and their name. Those in their places
    /// note calls.
    pub functions: &'static [Function],
    /// The one that notes a call, as JSON in the column `arguments`. It is beside them.
    pub note: Function,
    /// The call, in SQL over the row `c` with these.
    pub call: &'static str,
}

impl Calls {
    /// The functions that note calls, and the one that they call at last.
    pub fn all(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().chain([&self.note])
    }
}

/// A function that is made.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// The name.
    pub name: &'static str,
    /// The types of its arguments.
    pub arguments: &'static str,
    /// The statement that makes it.
    pub definition: &'static str,
}

/// Rows that the rows of another table name. Both sides know them by their names, which are unique.
#[derive(Debug)]
pub struct Parent {
    /// The column that names them.
    pub column: &'static str,
    /// The table, in the same schema.
    pub table: &'static str,
    /// The column that each database numbers for itself.
    pub id: &'static str,
    /// The column that is unique, and the same on both sides. All others have defaults.
    pub name: &'static str,
}

/// A function of the library that makes a table.
#[derive(Debug)]
pub struct Maker {
    /// The name, in the table's schema. It takes a text.
    pub function: &'static str,
    /// The table's name is this, and then the text.
    pub prefix: &'static str,
}

impl Relayed {
    /// Whether it speaks of a table of this name.
    pub fn is(&self, table: &str) -> bool {
        Glob::new(self.table).matches(table)
    }
}

/// A notification for rows that have come.
#[derive(Debug)]
pub struct Notify {
    /// `{schema}` stands for the table's schema.
    pub channel: &'static str,
    /// The payload for a row, in SQL over the row `j`; each is sent once.
    pub payload: &'static str,
    /// Which rows it is sent for, in SQL over the row `j`.
    pub when: &'static str,
}

const NOTHING: Preset = Preset {
    name: "",
    known_by: "",
    schemas: &[],
    tables: &[],
    functions: &[],
    types: &[],
    indexes: &[],
    channels: &[],
    extends: None,
    outbox: Outbox { relayed: &[], enqueues: &[], defines: &[], mirrored: &[] },
};

/// A relayed table whose library wakes its workers itself, or whose workers poll.
const fn relayed(table: &'static str, enqueued_at: Option<&'static str>) -> Relayed {
    Relayed { table, enqueued_at, notify: None, parents: &[], absent: None, made_by: None, calls: None }
}

/// Calls with a `job_key`.
const GRAPHILE_CALLS: Calls = Calls {
    functions: &[
        Function {
            name: "add_jobs",
            arguments: "{schema}.job_spec[], boolean",
            definition: include_str!("graphile_worker/add_jobs.sql"),
        },
        Function {
            name: "add_job",
            arguments: "text, json, text, timestamp with time zone, integer, text, integer, text[], text",
            definition: include_str!("graphile_worker/add_job.sql"),
        },
    ],
    note: Function {
        name: "bulkhead_note_call",
        arguments: "{schema}.job_spec, text",
        definition: include_str!("graphile_worker/note_call.sql"),
    },
    call: include_str!("graphile_worker/call.sql"),
};

/// All presets, by name.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "oban",
        known_by: "oban_jobs",
        tables: &["oban_jobs", "oban_peers", "oban_leaders", "oban_producers", "oban_beats"],
        functions: &["oban_count_estimate", "oban_jobs_notify", "oban_wrap_id", "oban_state_to_bit"],
        types: &["oban_job_state"],
        indexes: &["oban_jobs_*", "oban_peers_*"],
        channels: &["{schema}.oban_*", "oban_insert"],
        outbox: Outbox {
            relayed: &[Relayed {
                notify: Some(Notify {
                    channel: "{schema}.oban_insert",
                    payload: "pg_catalog.json_build_object('queue', j.queue)::pg_catalog.text",
                    when: "j.state::pg_catalog.text = 'available'",
                }),
                ..relayed("oban_jobs", Some("inserted_at"))
            }],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "oban_pro",
        known_by: "oban_queues",
        tables: &["oban_queues", "oban_crons", "oban_workflows", "oban_batches", "oban_jobs_*"],
        extends: Some("oban"),
        ..NOTHING
    },
    Preset {
        name: "pg_boss",
        known_by: "version",
        schemas: &["pgboss"],
        channels: &["pgboss_*"],
        // A partitioned table, whose partitions it speaks for. An enqueue joins the table of queues.
        outbox: Outbox {
            relayed: &[relayed("job", Some("created_on"))],
            mirrored: &["queue"],
            defines: &["create_queue", "delete_queue"],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "graphile_worker",
        known_by: "migrations",
        schemas: &["graphile_worker"],
        channels: &["jobs:insert", "worker:migrate"],
        outbox: Outbox {
            relayed: &[Relayed {
                notify: Some(Notify {
                    channel: "jobs:insert",
                    // So many workers look, and one that has looked sees that it is another notification.
                    payload: "pg_catalog.json_build_object('r', pg_catalog.txid_current(), \
                              'count', pg_catalog.count(*) OVER ())::pg_catalog.text",
                    when: "true",
                }),
                parents: &[
                    Parent { column: "task_id", table: "_private_tasks", id: "id", name: "identifier" },
                    Parent {
                        column: "job_queue_id",
                        table: "_private_job_queues",
                        id: "id",
                        name: "queue_name",
                    },
                ],
                // A job with a key replaces the one that has it, postpones it, or stands back, as the call has asked for:
                // and its row does not tell what that was.
                absent: Some("key"),
                calls: Some(GRAPHILE_CALLS),
                ..relayed("_private_jobs", Some("created_at"))
            }],
            enqueues: &["add_job", "add_jobs"],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "procrastinate",
        known_by: "procrastinate_jobs",
        tables: &["procrastinate_*"],
        functions: &["procrastinate_*"],
        types: &["procrastinate_*"],
        indexes: &["procrastinate_*", "idx_procrastinate_*"],
        channels: &["procrastinate_any_queue*", "procrastinate_queue*"],
        // What its triggers write on the primary refers to the job, and goes with it.
        outbox: Outbox {
            relayed: &[relayed("procrastinate_jobs", None)],
            enqueues: &[
                "procrastinate_defer_job",
                "procrastinate_defer_job_v1",
                "procrastinate_defer_jobs_v1",
            ],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "river",
        known_by: "river_job",
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
        outbox: Outbox {
            relayed: &[Relayed {
                notify: Some(Notify {
                    channel: "{schema}.river_insert",
                    payload: "pg_catalog.json_build_object('queue', j.queue)::pg_catalog.text",
                    when: "j.state::pg_catalog.text = 'available'",
                }),
                ..relayed("river_job", Some("created_at"))
            }],
            // It only computes.
            enqueues: &["river_job_state_in_bitmask"],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "good_job",
        known_by: "good_jobs",
        tables: &["good_jobs", "good_job_*"],
        indexes: &["index_good_job*"],
        channels: &["good_job"],
        outbox: Outbox {
            relayed: &[
                relayed("good_job_batches", Some("created_at")),
                Relayed {
                    notify: Some(Notify {
                        channel: "good_job",
                        payload: "pg_catalog.json_build_object('queue_name', j.queue_name)::pg_catalog.text",
                        when: "j.scheduled_at IS NULL OR j.scheduled_at <= pg_catalog.now()",
                    }),
                    ..relayed("good_jobs", Some("created_at"))
                },
            ],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "solid_queue",
        known_by: "solid_queue_jobs",
        tables: &["solid_queue_*"],
        indexes: &["index_solid_queue_*"],
        ..NOTHING
    },
    Preset {
        name: "que",
        known_by: "que_jobs",
        tables: &["que_jobs", "que_values", "que_lockers"],
        functions: &["que_*", "lock_and_update_priorities"],
        types: &["que_query_result"],
        channels: &["que_listener_*", "que_state"],
        outbox: Outbox { relayed: &[relayed("que_jobs", None)], ..NOTHING.outbox },
        ..NOTHING
    },
    Preset {
        name: "pgmq",
        known_by: "meta",
        schemas: &["pgmq"],
        channels: &["pgmq.*"],
        // A table for each queue. Those that send to topics read which queues these are bound to.
        outbox: Outbox {
            relayed: &[Relayed {
                made_by: Some(Maker { function: "create", prefix: "q_" }),
                ..relayed("q_*", Some("enqueued_at"))
            }],
            enqueues: &["send", "send_batch"],
            ..NOTHING.outbox
        },
        ..NOTHING
    },
    Preset {
        name: "delayed_job",
        known_by: "delayed_jobs",
        tables: &["delayed_jobs"],
        indexes: &["delayed_jobs_*"],
        outbox: Outbox { relayed: &[relayed("delayed_jobs", Some("created_at"))], ..NOTHING.outbox },
        ..NOTHING
    },
    Preset {
        name: "pgqueuer",
        known_by: "pgqueuer",
        tables: &["pgqueuer", "pgqueuer_*"],
        functions: &["fn_pgqueuer_*"],
        types: &["pgqueuer_status"],
        indexes: &["pgqueuer_*"],
        channels: &["ch_pgqueuer"],
        ..NOTHING
    },
    Preset {
        name: "dbos",
        known_by: "workflow_status",
        schemas: &["dbos"],
        channels: &["dbos_*_channel"],
        ..NOTHING
    },
    Preset { name: "absurd", known_by: "queues", schemas: &["absurd"], channels: &["absurd.*"], ..NOTHING },
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
