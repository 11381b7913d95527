//! A client shaped like Elixir's: it learns types once from the catalog, prepares by name without a Sync, sends and takes
//! binary values only, and knows no number that the catalog did not tell it. It says what a job library says.

use std::collections::HashMap;

use super::Servers;
use crate::support::{Message, RawClient, values};

/// The catalog's answer about types that are not known yet.
const BOOTSTRAP: &str = "\
    SELECT t.oid, t.typname, t.typsend, t.typelem, coalesce(r.rngsubtype, 0), \
    array_to_string(ARRAY(SELECT a.atttypid FROM pg_attribute AS a \
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), ',') \
    FROM pg_type AS t LEFT JOIN pg_range AS r ON r.rngtypid = t.oid ORDER BY t.oid";

struct Type {
    name: String,
    send: String,
    element: u32,
    fields: Vec<u32>,
}

struct Driver {
    client: RawClient,
    types: HashMap<u32, Type>,
    prepared: HashMap<String, (String, Vec<u32>, Vec<u32>)>,
    transaction: &'static str,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl Driver {
    async fn connect(servers: &Servers) -> Self {
        let mut client = servers.client().await;
        let mut types = HashMap::new();
        for row in values(&client.ask(BOOTSTRAP).await).chunks_exact(6) {
            let number = |text: &str| text.parse::<u32>().expect("a number");
            let fields = row[5].split(',').filter(|text| !text.is_empty()).map(number).collect();
            let (name, send) = (row[1].clone(), row[2].clone());
            types.insert(number(&row[0]), Type { name, send, element: number(&row[3]), fields });
        }
        Self { client, types, prepared: HashMap::new(), transaction: "I" }
    }

    fn type_of(&self, number: u32) -> &Type {
        self.types.get(&number).unwrap_or_else(|| panic!("type {number} was not bootstrapped"))
    }

    /// A value as text, decoded as its type says; every number in it must be the one that the type says.
    fn decode(&self, number: u32, bytes: &[u8]) -> String {
        let found = self.type_of(number);
        match &*found.send {
            "array_send" => {
                assert_eq!(u32_at(bytes, 8), found.element, "the element of {}", found.name);
                let mut at = 12 + u32_at(bytes, 0) as usize * 8;
                let mut parts = Vec::new();
                while at < bytes.len() {
                    parts.push(self.part(found.element, bytes, &mut at));
                }
                format!("[{}]", parts.join(" "))
            }
            "record_send" => {
                let (mut at, mut parts) = (4, Vec::new());
                for field in &found.fields {
                    assert_eq!(u32_at(bytes, at), *field, "a field of {}", found.name);
                    at += 4;
                    parts.push(self.part(*field, bytes, &mut at));
                }
                assert_eq!(at, bytes.len());
                format!("({})", parts.join(" "))
            }
            "enum_send" | "textsend" => String::from_utf8(bytes.to_vec()).expect("text"),
            "int8send" | "timestamp_send" => {
                i64::from_be_bytes(bytes.try_into().expect("eight bytes")).to_string()
            }
            "int4send" => i32::from_be_bytes(bytes.try_into().expect("four bytes")).to_string(),
            "jsonb_send" => String::from_utf8(bytes[1..].to_vec()).expect("text"),
            "boolsend" => (bytes == [1]).to_string(),
            "void_send" => String::new(),
            other => panic!("{}: {other}", found.name),
        }
    }

    fn part(&self, number: u32, bytes: &[u8], at: &mut usize) -> String {
        let len = u32_at(bytes, *at);
        *at += 4;
        if len == u32::MAX {
            return "NULL".to_owned();
        }
        *at += len as usize;
        self.decode(number, &bytes[*at - len as usize..*at])
    }

    fn encode(&self, number: u32, value: &str) -> Vec<u8> {
        let found = self.type_of(number);
        match &*found.send {
            "array_send" => {
                let parts: Vec<Vec<u8>> = value
                    .split(' ')
                    .filter(|part| !part.is_empty())
                    .map(|part| self.encode(found.element, part))
                    .collect();
                let mut bytes = [1, 0, found.element, parts.len() as u32, 1].map(u32::to_be_bytes).concat();
                for part in parts {
                    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
                    bytes.extend_from_slice(&part);
                }
                bytes
            }
            "enum_send" | "textsend" | "jsonsend" => value.as_bytes().to_vec(),
            "int8send" | "timestamp_send" => value.parse::<i64>().expect("a number").to_be_bytes().to_vec(),
            "int4send" => value.parse::<i32>().expect("a number").to_be_bytes().to_vec(),
            "jsonb_send" => [b"\x01", value.as_bytes()].concat(),
            other => panic!("{}: {other}", found.name),
        }
    }

    /// Prepares a text by a name of its own, without a Sync.
    async fn prepare(&mut self, sql: &str) -> (String, Vec<u32>, Vec<u32>) {
        if let Some(known) = self.prepared.get(sql) {
            return known.clone();
        }
        let name = format!("ecto_{}", self.prepared.len() * 37 + 5);
        self.client.parse(&name, sql).describe(b'S', &name).flush_message().flush().await;
        self.client.expect("1").await;
        let parameters = self.client.read_message().await;
        assert_eq!(parameters.tag, b't', "{sql}: {parameters:?}");
        let parameters = parameters.body[2..].chunks_exact(4).map(|number| u32_at(number, 0)).collect();
        let columns = self.client.read_message().await;
        let columns = if columns.tag == b'T' { column_types(&columns.body) } else { Vec::new() };
        self.prepared.insert(sql.to_owned(), (name.clone(), parameters, columns));
        self.prepared[sql].clone()
    }

    /// Runs a text with these values; the rows.
    async fn run(&mut self, sql: &str, bound: &[&str]) -> Vec<Vec<String>> {
        let (name, parameters, columns) = self.prepare(sql).await;
        assert_eq!(parameters.len(), bound.len(), "{sql}");
        let bound: Vec<Vec<u8>> =
            parameters.iter().zip(bound).map(|(number, value)| self.encode(*number, value)).collect();
        let bound: Vec<&[u8]> = bound.iter().map(Vec::as_slice).collect();
        super::bind(&mut self.client, "", &name, &bound).execute("", 0);
        let answer = self.client.finish().await;
        let error = answer.iter().find(|message| message.tag == b'E');
        assert!(error.is_none(), "{sql}: {:?}", error.and_then(|error| error.field(b'M')));
        let row = |message: &Message| {
            let mut at = 2;
            columns.iter().map(|column| self.part(*column, &message.body, &mut at)).collect()
        };
        answer.iter().filter(|message| message.tag == b'D').map(row).collect()
    }

    async fn control(&mut self, sql: &'static str) {
        let answer = self.client.ask(sql).await;
        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
        self.transaction = sql;
    }
}

fn column_types(body: &[u8]) -> Vec<u32> {
    let (mut rest, mut types) = (&body[2..], Vec::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).expect("a name");
        types.push(u32_at(rest, end + 7));
        rest = &rest[end + 19..];
    }
    types
}

const RETURNING: &str = r#"o0."id", o0."state", o0."queue", o0."worker", o0."args", o0."meta", o0."tags", o0."errors",
    o0."attempt", o0."attempted_by", o0."max_attempts", o0."priority", o0."attempted_at", o0."scheduled_at""#;

fn insert() -> String {
    r#"INSERT INTO "public"."oban_jobs" ("args","max_attempts","meta","priority","queue","state","tags","worker")
       VALUES ($1,$2,$3,$4,$5,$6,$7,$8) RETURNING "id","state","tags""#
        .to_owned()
}

fn fetch() -> String {
    format!(
        r#"WITH "subset" AS MATERIALIZED (SELECT so0."id" AS "id" FROM "public"."oban_jobs" AS so0
           WHERE (so0."state" = 'available') AND (so0."queue" = $1) ORDER BY so0."priority", so0."scheduled_at", so0."id"
           LIMIT $2 FOR UPDATE SKIP LOCKED)
           UPDATE "public"."oban_jobs" AS o0 SET "state" = $3, "attempted_at" = $4, "attempted_by" = $5,
           "attempt" = o0."attempt" + $6 FROM "subset" AS f1
           WHERE (o0."id" = f1."id") AND (o0."attempt" < o0."max_attempts") RETURNING {RETURNING}"#
    )
}

const STAGE: &str = r#"UPDATE "public"."oban_jobs" AS o0 SET "state" = $1 FROM (SELECT so0."id" AS "id",
    so0."state" AS "state" FROM "public"."oban_jobs" AS so0 WHERE (so0."state" IN ('scheduled','retryable'))
    AND (so0."scheduled_at" <= $2) ORDER BY so0."id" DESC LIMIT $3) AS s1 WHERE (o0."id" = s1."id")
    RETURNING s1."id", s1."state""#;

const COMPLETE: &str =
    r#"UPDATE "public"."oban_jobs" AS o0 SET "state" = $1, "completed_at" = $2 WHERE (o0."id" = $3)"#;

const FAIL: &str = r#"UPDATE "public"."oban_jobs" AS o0 SET "state" = $1, "scheduled_at" = $2,
    "errors" = o0."errors" || $3 WHERE (o0."id" = $4) AND (o0."state" = ANY ($5)) RETURNING o0."state", o0."errors""#;

const UNIQUE: &str = r#"SELECT o0."id", o0."state" FROM "public"."oban_jobs" AS o0 WHERE (o0."state" = ANY ($1))
    AND (o0."args" @> $2) ORDER BY o0."id" LIMIT 1"#;

const PRUNE: &str = r#"DELETE FROM "public"."oban_jobs" AS o0 USING (SELECT so0."id" AS "id", so0."state" AS "state"
    FROM "public"."oban_jobs" AS so0 WHERE (so0."state" = $1) LIMIT $2) AS s1 WHERE (o0."id" = s1."id")
    RETURNING s1."id", s1."state""#;

const VALUES: &str =
    r#"SELECT "states", "step", "steps", "seen", "note", "notes" FROM "public"."oban_jobs" WHERE "id" = $1"#;

/// The life of jobs, said as the library says it, several times over, so that every statement meets other backends.
#[tokio::test]
async fn every_type_of_a_job_library_decodes() {
    let servers = Servers::start().await;
    servers.jobs.query("ALTER SEQUENCE oban_jobs_id_seq RESTART 100").await;
    let mut drivers = [Driver::connect(&servers).await, Driver::connect(&servers).await];
    for (round, at) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        let driver = &mut drivers[at];
        let all = driver.run(VALUES, &["1"]).await;
        let step = "(first scheduled [retryable])";
        let wanted = [
            "[available NULL completed]",
            step,
            &format!("[{step} NULL (NULL NULL NULL)]"),
            "[available executing]",
            "a note",
            "[one two]",
        ];
        assert_eq!(all, [wanted.map(str::to_owned)], "round {round}");
        let queue = format!("queue_{round}");
        let mut ids = Vec::new();
        for state in ["available", "available", "scheduled"] {
            let bound = ["{\"n\": 1}", "20", "{}", "0", &queue, state, "one two", "Worker"];
            let rows = driver.run(&insert(), &bound).await;
            assert_eq!(rows[0][1..], [state, "[one two]"]);
            ids.push(rows[0][0].clone());
        }
        driver.control("begin").await;
        let bound = [&queue, "10", "executing", "700000000000000", "node pid", "1"];
        let rows = driver.run(&fetch(), &bound).await;
        driver.control("commit").await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(rows.iter().all(|row| row[1] == "executing" && row[9] == "[node pid]"), "{rows:?}");
        assert_eq!(driver.run(STAGE, &["available", "900000000000000", "10"]).await.len(), 1);
        assert!(driver.run(COMPLETE, &["completed", "800000000000000", &ids[0]]).await.is_empty());
        let bound = ["retryable", "800000000000000", "{\"at\":1}", &ids[1], "executing available"];
        assert_eq!(driver.run(FAIL, &bound).await, [["retryable", "[{\"at\": 1}]"].map(str::to_owned)]);
        let found = driver.run(UNIQUE, &["retryable completed", "{\"n\": 1}"]).await;
        assert!(["retryable", "completed"].contains(&&*found[0][1]), "{found:?}");
        assert_eq!(driver.run(PRUNE, &["retryable", "1"]).await, [[ids[1].clone(), "retryable".to_owned()]]);
    }
    assert_eq!(
        servers.primary.value("SELECT max(id) FROM oban_jobs").await,
        "4",
        "nothing has run on the primary"
    );
}
