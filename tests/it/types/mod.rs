//! Types whose numbers on the job database are not the primary's: a client that has learnt them from the primary must
//! find every result of a job statement as the primary itself would have told it.
//!
//! Both servers have the same schema. On the job database other types were made first, so all numbers differ; and on the
//! primary others were made after, so the job database's numbers stand for other types there.

mod drivers;
mod postgrex;
mod servers;
mod values;

use std::collections::HashMap;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, oban};

/// Types and columns of all kinds.
const TYPES: &str = "
    CREATE TYPE job_step AS (name text, state oban_job_state, after oban_job_state[]);
    CREATE DOMAIN job_states AS oban_job_state[] CHECK (cardinality(VALUE) < 10);
    CREATE TYPE job_span AS RANGE (subtype = job_step);
    CREATE DOMAIN job_note AS text CHECK (length(VALUE) < 100);
    ALTER TABLE oban_jobs ADD states oban_job_state[], ADD step job_step, ADD steps job_step[], ADD seen job_states,
        ADD span job_span, ADD note job_note, ADD notes job_note[];
    ALTER TYPE job_step OWNER TO app; ALTER DOMAIN job_states OWNER TO app; ALTER TYPE job_span OWNER TO app;
    ALTER DOMAIN job_note OWNER TO app;
";

/// Jobs with values, and one with none.
const JOBS: &str = "
    INSERT INTO oban_jobs (id, worker, inserted_at, scheduled_at, states, step, steps, seen, span, note, notes)
    SELECT n, 'w', '2026-01-01', '2026-01-01', '{available,NULL,completed}', step,
        ARRAY[step, NULL, ROW(NULL, NULL, NULL)::job_step], ARRAY[['available'], ['executing']]::oban_job_state[],
        job_span(step, ROW('z', 'executing', NULL)::job_step), 'a note', '{one,two}'
    FROM generate_series(1, 3) n, (SELECT ROW('first', 'scheduled', '{retryable}')::job_step AS step) steps;
    INSERT INTO oban_jobs (id, worker, inserted_at, scheduled_at) VALUES (4, 'w', '2026-01-01', '2026-01-01');
";

/// What was made before and after, by turns.
const OTHERS: &str = "
    CREATE TYPE other_1 AS ENUM ('x'); CREATE TYPE other_2 AS (a int, b text); CREATE DOMAIN other_3 AS int;
    CREATE TABLE other_4 (a int, b other_1); CREATE TYPE other_5 AS RANGE (subtype = int8); CREATE TABLE other_6 (a int);
";

/// What only the job database has.
const ALONE: &str = "
    CREATE TYPE alone_1 AS ENUM ('x'); CREATE TYPE alone_2 AS ENUM ('x'); CREATE TYPE alone_3 AS ENUM ('x');
    CREATE TYPE alone_4 AS ENUM ('x'); CREATE TYPE alone_5 AS ENUM ('x'); CREATE TYPE alone_6 AS ENUM ('x');
";

struct Servers {
    proxy: Proxy,
    primary: Postgres,
    jobs: Postgres,
}

impl Servers {
    async fn start() -> Self {
        Self::configured(|config| config).await
    }

    async fn configured(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let (primary, jobs) = std::thread::scope(|scope| {
            let primary = scope.spawn(|| Postgres::start(Role::Primary));
            (primary.join().expect("the primary starts"), Postgres::start(Role::Jobs))
        });
        align(&primary, &jobs).await;
        jobs.query(OTHERS).await;
        jobs.query(ALONE).await;
        for server in [&primary, &jobs] {
            oban::install(server).await;
            server.query(TYPES).await;
            server.query(JOBS).await;
        }
        primary.query(OTHERS).await;
        primary.query("INSERT INTO other_4 VALUES (1, 'x'), (2, NULL); GRANT ALL ON other_4 TO app").await;
        let (here, there) = (numbers(&primary).await, numbers(&jobs).await);
        let taken = here.values().filter(|number| there.values().any(|other| other == *number)).count();
        assert!(here.iter().all(|(name, number)| there[name] != *number), "{here:?} {there:?}");
        assert!(taken > 5, "numbers that stand for other types: {taken}");
        let config = ProxyConfig::primary_only(&primary)
            .set("servers.jobs", "url", jobs.url(Login::App))
            .pool("jobs", &["jobs"], 2)
            .set("jobs", "presets", vec!["oban"]);
        let proxy = Proxy::start(&change(config).to_toml());
        Self { proxy, primary, jobs }
    }

    async fn client(&self) -> RawClient {
        RawClient::app(self.proxy.port()).await
    }
}

/// Lets both servers give out the same numbers from here on.
async fn align(one: &Postgres, two: &Postgres) {
    let mut next = [0_u32; 2];
    for (server, next) in [one, two].into_iter().zip(&mut next) {
        *next = server.value("SELECT lo_create(0)").await.parse().expect("a number");
    }
    let (behind, by) = if next[0] < next[1] { (one, next[1] - next[0]) } else { (two, next[0] - next[1]) };
    behind.query(&format!("SELECT count(lo_unlink(lo_create(0))) FROM generate_series(1, {by})")).await;
}

/// The numbers of a server's types by their names.
async fn numbers(server: &Postgres) -> HashMap<String, u32> {
    let rows = server
        .query(
            "SELECT typname, oid FROM pg_type WHERE oid >= 16384 AND typnamespace = 'public'::regnamespace",
        )
        .await;
    let text = |column: &Option<String>| column.clone().unwrap_or_default();
    rows.iter().map(|row| (text(&row[0]), text(&row[1]).parse().expect("a number"))).collect()
}

/// A Parse message with parameter types.
fn parse<'c>(client: &'c mut RawClient, name: &str, sql: &str, types: &[u32]) -> &'c mut RawClient {
    let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
    body.extend_from_slice(&(types.len() as u16).to_be_bytes());
    for number in types {
        body.extend_from_slice(&number.to_be_bytes());
    }
    client.message(b'P', &body)
}

/// A Bind message with values and results in binary format.
fn bind<'c>(client: &'c mut RawClient, portal: &str, name: &str, values: &[&[u8]]) -> &'c mut RawClient {
    let mut body = [portal.as_bytes(), b"\0", name.as_bytes(), b"\0", b"\0\x01\0\x01"].concat();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    body.extend_from_slice(b"\0\x01\0\x01");
    client.message(b'B', &body)
}

/// An array of one dimension in binary format.
fn array(element: u32, values: &[&str]) -> Vec<u8> {
    let mut bytes = [1_u32, 0, element, values.len() as u32, 1].map(u32::to_be_bytes).concat();
    for value in values {
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}
