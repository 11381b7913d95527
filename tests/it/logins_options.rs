//! The startup parameter `options`, held against the server's own reading of it.

use std::fs;

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch};

async fn start(port: u16, login: Login, options: &str) -> Result<RawClient, Message> {
    RawClient::try_login(port, login, &[("database", "app"), ("options", options)]).await
}

const SETTINGS: &str = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name COLLATE \"C\") FROM pg_settings \
    WHERE name IN ('work_mem', 'DateStyle', 'search_path', 'enable_seqscan', 'enable_indexscan', \
    'enable_indexonlyscan', 'enable_bitmapscan', 'enable_tidscan', 'enable_nestloop', 'enable_mergejoin', \
    'enable_hashjoin', 'log_parser_stats', 'log_planner_stats', 'log_executor_stats', 'log_statement_stats', \
    'log_min_messages', 'log_statement', 'debug_print_parse', 'debug_print_plan', 'allow_system_table_mods')";

/// What a session with these options has, or the error that it is refused by.
async fn told(port: u16, login: Login, options: &str) -> String {
    match start(port, login, options).await {
        Ok(mut client) => client.query_value(SETTINGS).await,
        Err(error) => format!("{:?} {:?}", error.field(b'C'), error.field(b'M')),
    }
}

#[tokio::test]
async fn options_mean_what_they_mean_to_the_server() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n\"admin\" \"secret\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary)
        .pool("primary", &["primary"], 2)
        .set("auth", "method", "trust")
        .set("auth", "users_file", users.to_str().expect("text"));
    let proxy = Proxy::start(&config.to_toml());
    for (login, options) in [
        (Login::App, "-S 64MB"),
        (Login::App, "-S64MB -e"),
        (Login::App, "-eS 3MB -fs -f i -fo -fb -ft -fn -fm -fh"),
        (Login::App, "-c search_path=a\\ b -S 2MB --work-mem=5MB"),
        (Login::App, "-D /nowhere -b -E -j -n -T -r file -e"),
        (Login::App, "-e --"),
        // What only a superuser may.
        (Login::App, "-d 1"),
        (Login::App, "-s"),
        (Login::App, "-te"),
        (Login::Admin, "-d 3"),
        (Login::Admin, "-d 0 -s"),
        (Login::Admin, "-tpa"),
        (Login::Admin, "-O"),
        // What nobody may at a login.
        (Login::App, "-F"),
        (Login::App, "-B 100"),
        (Login::App, "-N 5 -e"),
        (Login::Admin, "-p 1"),
        // What is none.
        (Login::App, "-x"),
        (Login::App, "-e -S"),
        (Login::App, "-f z"),
        (Login::App, "-t z"),
        (Login::App, "nonsense"),
        (Login::App, "-e -- nonsense"),
        (Login::App, "-c work_mem"),
        (Login::App, "--work_mem"),
        (Login::App, "-S nonsense"),
    ] {
        let direct = told(primary.port(), login, options).await;
        let ours = told(proxy.port(), login, options).await;
        assert_eq!(ours, direct, "{login:?} {options}");
    }
}
