//! The tables and statements of the load.
//!
//! The job tables have the columns, types and indexes of Oban's that its workers use most, and its statements' shapes.

/// What the users read and write.
pub(super) const APPLICATION: &str = "
    CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL);
    INSERT INTO accounts SELECT n, 'owner ' || n, 1000 FROM generate_series(1, 10000) AS n;
";

/// Rows of `accounts`.
pub(super) const ACCOUNTS: u32 = 10_000;

/// What the workers live on.
pub(super) const JOBS: &str = "
    CREATE TYPE oban_job_state AS ENUM
        ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
    CREATE TABLE oban_jobs (
        id bigserial PRIMARY KEY,
        state oban_job_state NOT NULL DEFAULT 'available',
        queue text NOT NULL DEFAULT 'default',
        worker text NOT NULL,
        args jsonb NOT NULL DEFAULT '{}',
        attempt integer NOT NULL DEFAULT 0,
        max_attempts integer NOT NULL DEFAULT 20,
        priority integer NOT NULL DEFAULT 0,
        attempted_by text[],
        inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        attempted_at timestamp,
        completed_at timestamp
    );
    CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
        ON oban_jobs (state, queue, priority, scheduled_at, id);
";

/// A user's read: an account's number.
pub(super) const READ: &str = "SELECT owner, balance FROM accounts WHERE id = $1";
/// A user's write: an account's number.
pub(super) const WRITE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";

/// Adds jobs: how many.
pub const ENQUEUE: &str = "
    INSERT INTO public.oban_jobs (worker, args)
    SELECT 'Demo.Mailer', jsonb_build_object('number', number) FROM generate_series(1, $1::bigint) AS number";

/// Takes jobs: queue, how many, by whom.
pub const FETCH: &str = r#"
    WITH "subset" AS MATERIALIZED (
        SELECT s0."id" FROM "public"."oban_jobs" AS s0
        WHERE (s0."state" = 'available') AND (s0."queue" = $1) AND (s0."attempt" < s0."max_attempts")
        ORDER BY s0."priority", s0."scheduled_at", s0."id" LIMIT $2
        FOR UPDATE SKIP LOCKED)
    UPDATE "public"."oban_jobs" AS o0
    SET "state" = 'executing', "attempted_at" = timezone('UTC', now()), "attempted_by" = $3, "attempt" = o0."attempt" + 1
    FROM "subset" AS f1 WHERE (o0."id" = f1."id")
    RETURNING o0."id", o0."args"::text"#;

/// Ends a job: its id.
pub const COMPLETE: &str = r#"
    UPDATE "public"."oban_jobs" SET "state" = 'completed', "completed_at" = timezone('UTC', now())
    WHERE ("id" = $1)"#;
