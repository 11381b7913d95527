//! One session of a client: by a driver, or message by message. It takes every end for an answer.

use std::collections::HashMap;

use tokio_postgres::{
    Client, SimpleQueryMessage, Statement,
    types::{ToSql, Type},
};

use crate::support::{Message, RawClient, connect};

use super::forms::{Form, How};

pub(super) enum Session {
    /// With the statements that it has prepared.
    Driver(Client, HashMap<String, Statement>),
    /// With the OIDs of functions that it has called.
    Raw(Box<RawClient>, HashMap<String, u32>),
}

/// What came in place of success.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// SQLSTATE, or why there is none.
    pub(super) code: String,
    pub(super) text: String,
}

pub(super) type Rows = Vec<Vec<String>>;

impl Failed {
    fn closed() -> Self {
        Self { code: "closed".to_owned(), text: String::new() }
    }

    fn of(error: &Message) -> Self {
        let field = |name| error.field(name).unwrap_or_default();
        Self { code: field(b'C'), text: field(b'M') }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(told) => Self { code: told.code().code().to_owned(), text: told.message().to_owned() },
            None => Self { text: error.to_string(), ..Self::closed() },
        }
    }
}

impl Session {
    /// A session of the user `app` at this port, where no password is asked for.
    pub(super) async fn open(port: u16, is_raw: bool) -> Result<Self, Failed> {
        Self::open_with(port, is_raw, "").await
    }

    /// The same with what `options` says at the start.
    pub(super) async fn open_with(port: u16, is_raw: bool, options: &str) -> Result<Self, Failed> {
        if is_raw {
            let parameters: &[_] = &[("user", "app"), ("database", "app"), ("options", options)];
            let mut raw = RawClient::try_open(port).await.map_err(|_| Failed::closed())?;
            raw.startup(if options.is_empty() { &parameters[..2] } else { parameters }).await;
            let refused = raw.authenticate("app", "secret").await;
            return refused
                .map_or(Ok(Self::Raw(Box::new(raw), HashMap::new())), |error| Err(Failed::of(&error)));
        }
        let options = options.replace('=', "%3D").replace(' ', "%20");
        let url = format!("postgres://app:secret@127.0.0.1:{port}/app?options={options}");
        Ok(Self::Driver(connect(&url).await?, HashMap::new()))
    }

    /// Runs a Query; the rows of all its statements.
    pub(super) async fn text(&mut self, sql: &str) -> Result<Rows, Failed> {
        match self {
            Self::Driver(client, _) => {
                let messages = client.simple_query(sql).await?;
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
                    }
                    _ => None,
                });
                Ok(rows.collect())
            }
            Self::Raw(raw, _) => {
                raw.message(b'Q', format!("{sql}\0").as_bytes());
                exchange(raw).await.map(|answer| rows_of(&answer))
            }
        }
    }

    /// Runs a statement without a name that has the key for `$1` and answers a version and a word.
    pub(super) async fn read_bound(&mut self, sql: &str, key: usize) -> Result<Rows, Failed> {
        match self {
            Self::Driver(client, _) => {
                let key: &(dyn ToSql + Sync) = &(key as i32);
                let rows = client.query_typed(sql, &[(key, Type::INT4)]).await?;
                Ok(rows.iter().map(driver_row).collect())
            }
            Self::Raw(raw, _) => {
                raw.parse("", sql).bind("", "", &[Some(&key.to_string())]).execute("", 0).sync();
                exchange(raw).await.map(|answer| rows_of(&answer))
            }
        }
    }

    /// The same with a statement that is prepared once.
    pub(super) async fn read_prepared(&mut self, sql: &str, key: usize) -> Result<Rows, Failed> {
        let Self::Driver(client, prepared) = self else { return self.read_bound(sql, key).await };
        let statement = prepare(client, prepared, sql).await?;
        let rows = client.query(&statement, &[&(key as i32)]).await?;
        Ok(rows.iter().map(driver_row).collect())
    }

    /// What a `COPY .. TO STDOUT` sends: columns are divided by tabs.
    pub(super) async fn copy_out(&mut self, sql: &str) -> Result<Rows, Failed> {
        let raw = self.raw();
        raw.message(b'Q', format!("{sql}\0").as_bytes());
        let answer = exchange(raw).await?;
        let rows = answer.iter().filter(|message| message.tag == b'd').map(|message| {
            let text = String::from_utf8_lossy(&message.body);
            text.trim_end().split('\t').map(ToOwned::to_owned).collect()
        });
        Ok(rows.collect())
    }

    /// Runs statements by the extended protocol with one Sync; the rows of all.
    pub(super) async fn pipeline(&mut self, texts: &[impl AsRef<str>]) -> Result<Rows, Failed> {
        let raw = self.raw();
        for text in texts {
            raw.parse("", text.as_ref()).bind("", "", &[]).execute("", 0);
        }
        raw.sync();
        exchange(raw).await.map(|answer| rows_of(&answer))
    }

    /// Writes a version of a key in this form and returns once it is acknowledged; [`Self::tidy`] comes after.
    pub(super) async fn write(&mut self, form: &Form, key: usize, version: u64) -> Result<(), Failed> {
        let fill = |text: &str| form.fill(text, key, version);
        match form.how {
            How::Steps(steps, _) => {
                for step in steps {
                    self.text(&fill(step)).await?;
                }
                Ok(())
            }
            How::Bound(sql) | How::Prepared(sql) => {
                let is_prepared = matches!(form.how, How::Prepared(_));
                self.write_bound(&fill(sql), key, version, is_prepared).await
            }
            How::CopyIn(sql) => {
                let raw = self.raw();
                raw.message(b'Q', format!("{}\0", fill(sql)).as_bytes());
                raw.message(b'd', format!("{key}\t{version}\n").as_bytes()).message(b'c', &[]);
                exchange(raw).await.map(drop)
            }
            How::Fails(sql) => match self.text(&fill(sql)).await {
                Err(failed) if failed.code == "22012" => Ok(()),
                Err(failed) => Err(failed),
                Ok(_) => panic!("{sql} divides by zero"),
            },
            How::Pipeline(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| fill(text)).collect();
                self.pipeline(&texts).await.map(drop)
            }
            How::Portal(sql) => {
                let raw = self.raw();
                raw.parse("", "BEGIN").bind("", "", &[]).execute("", 0);
                raw.parse("", &fill(sql)).bind("bound", "", &[]).sync();
                exchange(raw).await?;
                raw.execute("bound", 0).sync();
                exchange(raw).await?;
                self.text("COMMIT").await.map(drop)
            }
            How::Parsed(sql) => {
                let raw = self.raw();
                raw.parse("parsed", &fill(sql)).sync();
                exchange(raw).await?;
                self.text("EXECUTE parsed").await?;
                self.text("DEALLOCATE parsed").await.map(drop)
            }
            How::Function(name) => self.call(&fill(name), key, version).await,
            How::Lost(sql) => {
                let raw = self.raw();
                raw.message(b'Q', format!("{}\0", fill(sql)).as_bytes()).try_flush().await;
                Err(Failed::closed())
            }
        }
    }

    async fn write_bound(
        &mut self,
        sql: &str,
        key: usize,
        version: u64,
        is_prepared: bool,
    ) -> Result<(), Failed> {
        match self {
            Self::Driver(client, prepared) => {
                let (key, version) = (key as i32, version as i64);
                let statement = if is_prepared {
                    prepare(client, prepared, sql).await?
                } else {
                    client.prepare(sql).await?
                };
                client.execute(&statement, &[&key, &version]).await?;
            }
            Self::Raw(raw, _) => {
                let name = if is_prepared { "named" } else { "" };
                raw.parse(name, sql);
                raw.bind("", name, &[Some(&key.to_string()), Some(&version.to_string())]).execute("", 0);
                raw.close(b'S', name).sync();
                exchange(raw).await?;
            }
        }
        Ok(())
    }

    /// Calls a function of key and version by the message FunctionCall.
    async fn call(&mut self, name: &str, key: usize, version: u64) -> Result<(), Failed> {
        let Self::Raw(raw, oids) = self else { panic!("only a raw client calls") };
        if !oids.contains_key(name) {
            raw.message(b'Q', format!("SELECT '{name}'::regproc::oid\0").as_bytes());
            let rows = rows_of(&exchange(raw).await?);
            oids.insert(name.to_owned(), rows[0][0].parse().expect("an OID"));
        }
        let mut body = oids[name].to_be_bytes().to_vec();
        // Both arguments are text, and so is the result.
        body.extend_from_slice(&[0, 0, 0, 2]);
        for argument in [key.to_string(), version.to_string()] {
            body.extend_from_slice(&(argument.len() as u32).to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        raw.message(b'F', &body);
        exchange(raw).await.map(drop)
    }

    /// What comes after an acknowledged write.
    pub(super) async fn tidy(&mut self, form: &Form, key: usize, version: u64) -> Result<(), Failed> {
        let How::Steps(_, after) = form.how else { return Ok(()) };
        for step in after {
            self.text(&form.fill(step, key, version)).await?;
        }
        Ok(())
    }

    fn raw(&mut self) -> &mut RawClient {
        let Self::Raw(raw, _) = self else { panic!("only a raw client sends this") };
        raw
    }
}

async fn prepare(
    client: &Client,
    prepared: &mut HashMap<String, Statement>,
    sql: &str,
) -> Result<Statement, Failed> {
    if let Some(statement) = prepared.get(sql) {
        return Ok(statement.clone());
    }
    let statement = client.prepare(sql).await?;
    prepared.insert(sql.to_owned(), statement.clone());
    Ok(statement)
}

fn driver_row(row: &tokio_postgres::Row) -> Vec<String> {
    vec![row.get::<_, i64>(0).to_string(), row.get::<_, String>(1)]
}

fn rows_of(answer: &[Message]) -> Rows {
    let rows = answer.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.columns().into_iter().map(Option::unwrap_or_default).collect()).collect()
}

/// Sends what is pending and reads up to ReadyForQuery.
async fn exchange(raw: &mut RawClient) -> Result<Vec<Message>, Failed> {
    raw.try_flush().await;
    let mut messages = Vec::new();
    let mut failed = None;
    loop {
        let Some(message) = raw.try_read_message().await else {
            return Err(failed.unwrap_or_else(Failed::closed));
        };
        if message.tag == b'E' {
            failed.get_or_insert(Failed::of(&message));
        }
        if message.tag == b'Z' {
            return failed.map_or(Ok(messages), Err);
        }
        messages.push(message);
    }
}
