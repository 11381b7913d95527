//! The console: PgBouncer's commands and columns, who may use it, and what it changes under load.

mod columns;
mod control;
mod protocol;
mod rights;
mod tools;

use std::{fs, path::PathBuf};

use bytes::Buf as _;

use crate::support::{Cluster, Login, Message, Proxy, ProxyConfig, RawClient, Scratch, error_of};

/// A whole cluster behind a proxy: `app` may do everything on the console, `app_two` may look, `app_md5` may do neither.
struct Site {
    cluster: Cluster,
    proxy: Proxy,
    folder: Scratch,
}

fn users_file(folder: &Scratch) -> PathBuf {
    let path = folder.path().join("users.txt");
    fs::write(&path, "\"app_two\" \"second\"\n\"app_md5\" \"secret\"\n").expect("the folder is writable");
    path
}

impl Site {
    fn config(cluster: &Cluster, folder: &Scratch) -> ProxyConfig {
        let path = users_file(folder).display().to_string();
        ProxyConfig::of(cluster)
            .set("auth", "users_file", path)
            .set("console", "admin_users", vec!["app"])
            .set("console", "stats_users", vec!["app_two"])
    }

    fn start() -> Self {
        Self::start_with(|config| config)
    }

    fn start_with(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let (cluster, folder) = (Cluster::start(), Scratch::new());
        let proxy = Proxy::start(&change(Self::config(&cluster, &folder)).to_toml());
        Self { cluster, proxy, folder }
    }

    async fn console(&self) -> RawClient {
        RawClient::login(self.proxy.port(), Login::App, "pgbouncer").await
    }

    async fn client(&self) -> RawClient {
        RawClient::app(self.proxy.port()).await
    }
}

/// A result: names and types of its columns, and its rows as text.
#[derive(Debug)]
struct Table {
    columns: Vec<(String, u32)>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    fn of(answer: &[Message]) -> Self {
        let description = answer.iter().find(|message| message.tag == b'T').expect("it has columns");
        let mut body = description.body.clone();
        let columns = (0..body.get_u16()).map(|_| {
            let end = body.iter().position(|byte| *byte == 0).expect("a name");
            let name = String::from_utf8(body.split_to(end).to_vec()).expect("a name in UTF-8");
            body.advance(1 + 6);
            let oid = body.get_u32();
            body.advance(2 + 4 + 2);
            (name, oid)
        });
        let columns = columns.collect();
        let rows = answer.iter().filter(|message| message.tag == b'D').map(Message::columns).collect();
        Self { columns, rows }
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The value in the row of which these columns have these values.
    fn value(&self, of: &[(&str, &str)], column: &str) -> String {
        let at = |name: &str| self.names().iter().position(|known| *known == name).expect("a column");
        let is_it = |row: &&Vec<Option<String>>| {
            of.iter().all(|(name, value)| row[at(name)].as_deref() == Some(*value))
        };
        let rows: Vec<_> = self.rows.iter().filter(is_it).collect();
        let [row] = rows.as_slice() else { panic!("{} rows of {of:?} in {self:?}", rows.len()) };
        row[at(column)].clone().unwrap_or_default()
    }
}

/// What a console answers to one statement.
async fn table(console: &mut RawClient, sql: &str) -> Table {
    let answer = console.ask(sql).await;
    assert_eq!(error_of(&answer), None, "{sql}");
    Table::of(&answer)
}

/// The command tag of a statement that succeeds.
async fn done(console: &mut RawClient, sql: &str) -> String {
    let answer = console.ask(sql).await;
    assert_eq!(error_of(&answer), None, "{sql}");
    let complete = answer.iter().find(|message| message.tag == b'C').expect("it is complete");
    String::from_utf8_lossy(complete.body.strip_suffix(&[0]).expect("a zero")).into_owned()
}

/// The SQLSTATE, message and hint of a statement that fails.
async fn refused(console: &mut RawClient, sql: &str) -> [String; 3] {
    let answer = console.ask(sql).await;
    error_of(&answer).unwrap_or_else(|| panic!("{sql} is not refused: {answer:?}"))
}
