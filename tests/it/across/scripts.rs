//! Transactions that use both servers, statement by statement.

/// What is said with what is answered; and what there is afterwards of items and of jobs.
pub(super) type Script = (&'static [(&'static str, &'static str)], (&'static str, &'static str));

pub(super) const ITEM: &str = "INSERT INTO items VALUES ('a')";
pub(super) const JOB: &str = "INSERT INTO oban_jobs (worker) VALUES ('J')";
pub(super) const COUNT: &str = "SELECT count(*) FROM oban_jobs";
pub(super) const LOCK: &str = "SELECT pg_try_advisory_xact_lock(7)";

/// What is said with what is answered, and the rows that are there afterwards.
pub(super) const SCRIPTS: &[Script] = &[
    // Jobs are read in the application's transaction.
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (COUNT, "0 T"), ("COMMIT", "COMMIT I")], ("a", "")),
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (COUNT, "0 T"), ("ROLLBACK", "ROLLBACK I")], ("", "")),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (COUNT, "0 T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            ("END", "COMMIT I"),
        ],
        ("a b", ""),
    ),
    // A unique job: its lock comes before anything says where the transaction belongs.
    (
        &[("BEGIN", "BEGIN T"), (LOCK, "t T"), (COUNT, "0 T"), (JOB, "INSERT 0 1 T"), ("COMMIT", "COMMIT I")],
        ("", "J"),
    ),
    (&[("BEGIN", "BEGIN T"), (LOCK, "t T"), (JOB, "INSERT 0 1 T"), ("ROLLBACK", "ROLLBACK I")], ("", "")),
    // A worker that reads the application's tables with its job.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SELECT count(*) FROM items", "0 T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("", "J"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("", "J"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // Savepoints are on both.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT one", "SAVEPOINT T"),
            (ITEM, "INSERT 0 1 T"),
            ("SAVEPOINT two", "SAVEPOINT T"),
            (COUNT, "0 T"),
            ("SAVEPOINT three", "SAVEPOINT T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            ("SELECT 1", "25P02 E"),
            ("ROLLBACK TO three", "ROLLBACK T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            ("ROLLBACK TO three", "ROLLBACK T"),
            ("SELECT count(*) FROM items", "1 T"),
            ("RELEASE two", "RELEASE T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            ("ROLLBACK TO SAVEPOINT one", "ROLLBACK T"),
            (COUNT, "0 T"),
            ("INSERT INTO items VALUES ('c')", "INSERT 0 1 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("c", ""),
    ),
    // What fails on one server fails the transaction on both.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            (ITEM, "25P02 E"),
            (COUNT, "25P02 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (COUNT, "0 T"),
            (ITEM, "INSERT 0 1 T"),
            (ITEM, "23505 E"),
            (COUNT, "25P02 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // What both would have to keep is refused, and nothing of it stays.
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (JOB, "0A000 E"), ("COMMIT", "ROLLBACK I")], ("", "")),
    (&[("BEGIN", "BEGIN T"), (JOB, "INSERT 0 1 T"), (ITEM, "0A000 E"), ("COMMIT", "ROLLBACK I")], ("", "")),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("DELETE FROM oban_jobs", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            (ITEM, "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("COMMIT AND CHAIN", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // Nor is what lasts in it, or ends more than a savepoint.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT a", "SAVEPOINT T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("RELEASE a; UPDATE oban_jobs SET priority = 1", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT pending", "SAVEPOINT T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("RELEASE pending; COMMIT", "0A000 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("/* release */ COMMIT AND CHAIN", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("LISTEN news", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SET search_path = public", "SET T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // What a statement of jobs does beside is not known.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT count(*) FROM oban_jobs; DO $$ BEGIN END $$", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // The mode of the transaction is that of both.
    (
        &[
            ("BEGIN READ ONLY", "BEGIN T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("DELETE FROM oban_jobs", "25006 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SET LOCAL application_name = 'mine'", "SET T"),
            (COUNT, "0 T"),
            ("SHOW transaction_isolation", "repeatable read T"),
            ("SHOW application_name", "mine T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("a", ""),
    ),
];
