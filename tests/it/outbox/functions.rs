//! Functions of libraries that add jobs whose rows name others by numbers of their own database: graphile-worker's, with its
//! own tables and functions, as its migrations make them.

use super::{GRAPHILE, KEYED, LONG, Yard, bulkhead};
use crate::{
    drivers::{drivers_folder, node, scripts_folder},
    support::{Login, Postgres, Proxy, ProxyConfig, RawClient, error_of, eventually, values},
};

const ITEM: &str = "INSERT INTO items VALUES (gen_random_uuid()::text)";

/// What there is of jobs, and of the tasks and queues that they name.
const JOBS: &str =
    "SELECT id, task_identifier, coalesce(queue_name, '-') FROM graphile_worker.jobs ORDER BY id";

/// Notes each job that comes, by what it is.
const ARRIVALS: &str = "
    SET ROLE app;
    CREATE TABLE arrivals (id bigint NOT NULL, worker text NOT NULL);
    CREATE FUNCTION note_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO arrivals SELECT NEW.id, identifier FROM graphile_worker._private_tasks WHERE id = NEW.task_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_arrival AFTER INSERT ON graphile_worker._private_jobs FOR EACH ROW EXECUTE FUNCTION note_arrival();
    RESET ROLE;
";

impl Yard {
    /// Two servers with graphile-worker's tables, whose numbers differ, and the outbox installed.
    pub(super) async fn of_graphile() -> Self {
        let yard = Self::with_graphile().await;
        let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
        assert_eq!(code, Some(0), "{text}");
        yard
    }

    /// The same, where each call with a key that is made is noted, also one that changes a job.
    pub(super) async fn of_keys() -> Self {
        let yard = Self { library: KEYED, ..Self::of_graphile().await };
        yard.jobs
            .query(
                "SET ROLE app; CREATE TRIGGER note_change AFTER UPDATE ON graphile_worker._private_jobs FOR EACH ROW \
                 EXECUTE FUNCTION note_arrival()",
            )
            .await;
        yard
    }

    async fn with_graphile() -> Self {
        let yard = Self { library: GRAPHILE, ..Self::bare() };
        for server in [&yard.primary, &yard.jobs] {
            install_graphile(server).await;
        }
        yard.primary.query("SET ROLE app; CREATE TABLE items (name text PRIMARY KEY)").await;
        yard.jobs.query(ARRIVALS).await;
        // Numbers that the primary does not have.
        yard.jobs
            .query(
                "SELECT graphile_worker.add_job(t, queue_name => 'queue of ' || t) \
                 FROM unnest(ARRAY['a', 'b', 'c', 'shared']) AS t; \
                 DELETE FROM graphile_worker._private_jobs; DELETE FROM arrivals",
            )
            .await;
        yard
    }

    pub(super) fn graphile(&self) -> ProxyConfig {
        self.config().set("auth", "method", "trust")
    }

    async fn graphile_bulkhead(&self) -> Proxy {
        self.bulkhead(&self.graphile()).await
    }

    pub(super) async fn has_refused_nothing(&self) {
        assert_eq!(
            self.primary.query("SELECT row, error FROM bulkhead.refused").await,
            Vec::<Vec<Option<String>>>::new()
        );
    }
}

pub(super) fn texts(rows: Vec<Vec<Option<String>>>) -> Vec<Vec<String>> {
    rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect()
}

/// Has graphile-worker's migrations make what it needs.
pub(super) async fn install_graphile(server: &Postgres) {
    install_graphile_in(server, "graphile_worker").await;
}

/// The same, in a schema of this name.
pub(super) async fn install_graphile_in(server: &Postgres, schema: &str) {
    server.query("GRANT CREATE ON DATABASE app TO app; GRANT ALL ON SCHEMA public TO app").await;
    let mut command = node();
    command.arg(scripts_folder().join("graphile.mjs"));
    command.env("DRIVERS", drivers_folder()).env("DATABASE_URL", server.url(Login::App));
    command.env("SCHEMA", schema);
    let output = command.output().expect("it runs; see `make setup`");
    assert!(output.status.success(), "{output:?}");
}

/// Says these in turn, none of which fails; the values that the last one gives.
pub(super) async fn say(client: &mut RawClient, statements: &[&str]) -> Vec<String> {
    let mut answer = Vec::new();
    for sql in statements {
        answer = client.ask(sql).await;
        assert_eq!(error_of(&answer), None, "{sql}");
    }
    values(&answer)
}

/// The number of a job that is added so.
pub(super) async fn add(client: &mut RawClient, arguments: &str) -> String {
    say(client, &[&format!("SELECT (graphile_worker.add_job({arguments})).id")]).await.concat()
}

#[tokio::test]
async fn jobs_come_with_their_tasks_and_queues_and_only_with_their_commit() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.graphile_bulkhead().await;
    let mut listener = RawClient::app(yard.jobs.port()).await;
    listener.ask("LISTEN \"jobs:insert\"").await;
    let mut client = RawClient::app(proxy.port()).await;

    say(&mut client, &["BEGIN", ITEM]).await;
    let first = add(&mut client, r#"'shared', '{"b": 1,  "a": "\\u00fc"}', queue_name => 'new queue'"#).await;
    say(&mut client, &["SAVEPOINT a"]).await;
    add(&mut client, "'undone'").await;
    say(&mut client, &["ROLLBACK TO a"]).await;
    let second =
        add(&mut client, "'new', priority => 3, run_at => now() + interval '1 day', job_key => NULL").await;
    let more = "SELECT (graphile_worker.add_jobs(array(SELECT json_populate_recordset(\
        null::graphile_worker.job_spec, '[{\"identifier\": \"b\", \"queue_name\": \"queue of a\", \
        \"flags\": [\"x\"]}, {\"identifier\": \"other\"}]'::json)))).id";
    let more = say(&mut client, &[more]).await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM graphile_worker._private_jobs").await, "0");
    say(&mut client, &["COMMIT"]).await;

    // Whoever is woken finds them.
    let told = listener.read_message().await;
    assert_eq!(told.tag, b'A', "{told:?}");
    let body = String::from_utf8_lossy(&told.body).into_owned();
    assert!(body.contains("jobs:insert\0{") && body.contains("\"count\" : 4}"), "{body:?}");
    let [third, fourth] = more.as_slice() else { panic!("{more:?}") };
    let expected = [
        [first.as_str(), "shared", "new queue"],
        [second.as_str(), "new", "-"],
        [third.as_str(), "b", "queue of a"],
        [fourth.as_str(), "other", "-"],
    ];
    assert_eq!(texts(yard.jobs.query(JOBS).await), expected);
    let payload = format!("SELECT payload FROM graphile_worker._private_jobs WHERE id = {first}");
    assert_eq!(yard.jobs.value(&payload).await, r#"{"b": 1,  "a": "\\u00fc"}"#, "as it was written");
    let rest = format!(
        "SELECT priority, run_at > now(), is_available FROM graphile_worker._private_jobs WHERE id = {second}"
    );
    assert_eq!(texts(yard.jobs.query(&rest).await), [["3", "t", "t"]]);
    let flags = format!("SELECT flags FROM graphile_worker._private_jobs WHERE id = {third}");
    assert_eq!(yard.jobs.value(&flags).await, "{\"x\": true}");
    // By other numbers than on the primary, and what was undone has left nothing.
    let number = "SELECT id FROM graphile_worker._private_tasks WHERE identifier = 'shared'";
    assert_ne!(yard.primary.value(number).await, yard.jobs.value(number).await);
    let undone = "SELECT count(*) FROM graphile_worker._private_tasks WHERE identifier = 'undone'";
    assert_eq!(yard.jobs.value(undone).await, "0");

    say(&mut client, &["BEGIN", ITEM]).await;
    add(&mut client, "'rolled back', queue_name => 'rolled back'").await;
    say(&mut client, &["ROLLBACK"]).await;
    // A trigger on a table of the application, without a call in the text.
    yard.primary
        .query(
            "SET ROLE app; CREATE FUNCTION enqueue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM graphile_worker.add_job('by trigger', json_build_object('name', NEW.name)); RETURN NULL; END $$; \
             CREATE TRIGGER enqueue AFTER INSERT ON items FOR EACH ROW WHEN (NEW.name = 'triggers') \
             EXECUTE FUNCTION enqueue()",
        )
        .await;
    say(&mut client, &["INSERT INTO items VALUES ('triggers')"]).await;
    yard.wait_until_empty().await;
    let names = "SELECT string_agg(worker, ' ' ORDER BY worker) FROM arrivals";
    eventually("all have come", LONG, async || {
        (yard.jobs.value(names).await == "b by trigger new other shared").then_some(())
    })
    .await;
    yard.has_refused_nothing().await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "status"]);
    let line = text.lines().find(|line| line.starts_with("graphile_worker._private_jobs"));
    let fields: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    assert!(code == Some(0) && fields.get(1..) == Some(&["0", "-", "5", "0", "0"]), "{text}");
}

/// Jobs that are added before the application's own tables are used are carried over to its transaction.
#[tokio::test]
async fn jobs_that_come_first_are_part_of_the_rest_of_their_transaction() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.graphile_bulkhead().await;
    let mut client = RawClient::app(proxy.port()).await;
    say(&mut client, &["BEGIN"]).await;
    let first = add(&mut client, "'shared', '{\"a\":  [1]}', queue_name => 'new queue'").await;
    let second = add(&mut client, "'new'").await;
    say(&mut client, &[ITEM]).await;
    let third = add(&mut client, "'new', queue_name => 'queue of b'").await;
    say(&mut client, &["COMMIT"]).await;
    yard.wait_until_empty().await;
    let mut found = texts(yard.jobs.query(JOBS).await);
    found.sort_unstable();
    let mut expected = [
        [first.as_str(), "shared", "new queue"],
        [second.as_str(), "new", "-"],
        [third.as_str(), "new", "queue of b"],
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let payload = format!("SELECT payload FROM graphile_worker._private_jobs WHERE id = {first}");
    assert_eq!(yard.jobs.value(&payload).await, "{\"a\":  [1]}");
    assert_eq!(
        yard.jobs.value("SELECT max(n) FROM (SELECT count(*) AS n FROM arrivals GROUP BY id) AS a").await,
        "1"
    );

    say(&mut client, &["BEGIN"]).await;
    add(&mut client, "'rolled back'").await;
    say(&mut client, &[ITEM, "ROLLBACK"]).await;
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "1");
    // Alone it goes there at once, with its key.
    say(&mut client, &["BEGIN"]).await;
    add(&mut client, "'keyed', job_key => 'k'").await;
    say(&mut client, &["COMMIT"]).await;
    let keyed = "SELECT count(*) FROM graphile_worker.jobs WHERE key = 'k'";
    assert_eq!(yard.jobs.value(keyed).await, "1");
    // Not so if it comes to be part of another transaction: it may have replaced a job.
    say(&mut client, &["BEGIN"]).await;
    add(&mut client, "'keyed', '{\"again\": true}', job_key => 'k'").await;
    let [code, message, _] = error_of(&client.ask(ITEM).await).expect("it is refused");
    assert!(code == "0A000" && message.contains("a job with a key"), "{code} {message}");
    say(&mut client, &["ROLLBACK"]).await;
    assert_eq!(
        yard.jobs.value("SELECT payload FROM graphile_worker._private_jobs WHERE key = 'k'").await,
        "{}"
    );
    assert_eq!(yard.jobs.value("SELECT count(*) FROM graphile_worker.jobs").await, "4");
    yard.has_refused_nothing().await;
}

#[tokio::test]
async fn both_sides_may_add_the_same_tasks_and_queues_at_once() {
    const ROUNDS: usize = 40;
    let yard = Yard::of_graphile().await;
    let proxy = yard.graphile_bulkhead().await;
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let mut client = RawClient::app(proxy.port()).await;
        tasks.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let name =
                    format!("'t {round}', '{{\"for\": \"t {round}\"}}', queue_name => 'q {}'", round % 7);
                // Half of them write on the primary.
                if writer % 2 == 0 {
                    say(&mut client, &["BEGIN", ITEM]).await;
                    add(&mut client, &name).await;
                    say(&mut client, &["COMMIT"]).await;
                } else {
                    add(&mut client, &name).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no writer fails");
    }
    yard.wait_until_empty().await;
    let right = "SELECT count(*) FROM graphile_worker._private_jobs AS j \
        JOIN graphile_worker._private_tasks AS t ON t.id = j.task_id \
        JOIN graphile_worker._private_job_queues AS q ON q.id = j.job_queue_id \
        WHERE j.payload->>'for' = t.identifier AND q.queue_name = 'q ' || substr(t.identifier, 3)::int % 7";
    let all = (4 * ROUNDS).to_string();
    eventually("each is its task's, and its queue's", LONG, async || {
        (yard.jobs.value(right).await == all).then_some(())
    })
    .await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM graphile_worker._private_jobs").await, all);
    let tasks = "SELECT count(*) FROM graphile_worker._private_tasks WHERE identifier LIKE 't %'";
    assert_eq!(yard.jobs.value(tasks).await, ROUNDS.to_string());
    yard.has_refused_nothing().await;
}

/// Rows that went by the trigger, or name nothing, are set aside: they would be other jobs there.
#[tokio::test]
async fn rows_that_cannot_be_the_same_job_are_set_aside() {
    let yard = Yard::of_graphile().await;
    yard.primary
        .query(
            "SET session_replication_role = replica; SELECT graphile_worker.bulkhead_add_jobs(\
             ARRAY[('t', '{}', NULL, NULL, NULL, 'by the way', NULL, NULL)]::graphile_worker.job_spec[]); \
             RESET session_replication_role; SELECT graphile_worker.add_job('t', queue_name => 'gone'); \
             DELETE FROM graphile_worker._private_job_queues; SELECT graphile_worker.add_job('t', queue_name => 'q')",
        )
        .await;
    let proxy = yard.graphile_bulkhead().await;
    yard.wait_until_empty().await;
    let came = "SELECT string_agg(coalesce(queue_name, '-'), ' ') FROM graphile_worker.jobs";
    eventually("one came", LONG, async || (yard.jobs.value(came).await == "q").then_some(())).await;
    let refused = texts(yard.primary.query("SELECT error FROM bulkhead.refused ORDER BY id").await);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0][0].contains("it has a key"), "{refused:?}");
    assert!(
        refused[1][0].contains("its job_queue_id names no row of graphile_worker._private_job_queues"),
        "{refused:?}"
    );

    yard.primary.query("DROP TRIGGER bulkhead_refuse ON graphile_worker._private_jobs").await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "verify"]);
    assert!(code == Some(64) && text.contains("has no trigger bulkhead_refuse"), "{text}");
    drop(proxy);
    let proxy = Proxy::start(&yard.graphile().to_toml());
    proxy.wait_for_log("has no trigger bulkhead_refuse").await;
    assert_eq!(proxy.metric("bulkhead_outbox_ready").await, Some(0.0));
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
    assert!(code == Some(0) && text.contains("CREATE TRIGGER bulkhead_refuse"), "{text}");
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
}

/// The library's own cleaning takes tasks away that no job names, also one that was added for a job which is on its way.
#[tokio::test]
async fn a_task_that_is_cleaned_away_meanwhile_comes_again() {
    let yard = Yard::of_graphile().await;
    yard.jobs
        .query(
            "CREATE SEQUENCE cleanings; CREATE FUNCTION clean() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
             IF nextval('public.cleanings') <= 3 THEN DELETE FROM graphile_worker._private_tasks WHERE id = NEW.id; \
             END IF; RETURN NULL; END $$; \
             CREATE TRIGGER clean AFTER INSERT ON graphile_worker._private_tasks FOR EACH ROW EXECUTE FUNCTION clean()",
        )
        .await;
    let proxy = yard.graphile_bulkhead().await;
    yard.primary.query("SELECT graphile_worker.add_job('cleaned')").await;
    yard.wait_until_empty().await;
    assert_eq!(yard.jobs.value("SELECT string_agg(worker, ' ') FROM arrivals").await, "cleaned");
    assert_eq!(yard.jobs.value("SELECT last_value FROM cleanings").await, "4");
    yard.has_refused_nothing().await;
    drop(proxy);
}

/// Everything that an outbox adds to a server or changes there.
const TRACES: &str = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'bulkhead' \
    UNION ALL SELECT seqrelid::regclass || ' by ' || seqincrement FROM pg_sequence \
    UNION ALL SELECT tgrelid::regclass || ': ' || tgname FROM pg_trigger WHERE NOT tgisinternal \
    UNION ALL SELECT concat_ws(' ', oid::regprocedure, proowner::regrole, proacl, md5(prosrc)) FROM pg_proc WHERE pronamespace >= 16384 ORDER BY 1";

#[tokio::test]
async fn undo_leaves_nothing() {
    let yard = Yard::with_graphile().await;
    let before = [yard.primary.query(TRACES).await, yard.jobs.query(TRACES).await];
    let (code, planned) = bulkhead(&yard.graphile(), &["jobs", "init", "--dry-run"]);
    assert!(code == Some(0) && planned.contains("CREATE TRIGGER bulkhead_refuse"), "{planned}");
    assert_eq!([yard.primary.query(TRACES).await, yard.jobs.query(TRACES).await], before);
    for _ in 0..2 {
        let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
        assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
        let (code, text) = bulkhead(&yard.graphile(), &["jobs", "undo"]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!([yard.primary.query(TRACES).await, yard.jobs.query(TRACES).await], before);
    }
    // Another version of the library has no such names.
    let named = "SELECT conname FROM pg_constraint WHERE contype = 'u' \
        AND conrelid = 'graphile_worker._private_tasks'::regclass";
    let constraint = yard.jobs.value(named).await;
    yard.jobs
        .query(&format!("ALTER TABLE graphile_worker._private_tasks DROP CONSTRAINT {constraint}"))
        .await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "plan"]);
    assert!(
        code == Some(64) && text.contains("_private_tasks.identifier is not unique in the job database"),
        "{text}"
    );
}
