//! The configuration as an operator meets it: the files that are shipped, the environment, and mistakes.

use std::{collections::HashMap, fmt::Write, path::Path, time::Duration};

use proptest::prelude::*;

use bulkhead::config::{
    Auth, Config, JobRules, Jobs, Limits, Listen, LoadError, Pool, SslMode, Workers, diff, keys, keys::KEYS,
    load, parse,
};

const PRESETS: &[&str] = &["oban", "river", "solid_queue"];
const URL: &str = "postgres://app:secret@db.internal:6000/shop";

fn with(variables: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    move |name| variables.get(name).map(|value| (*value).to_owned())
}

fn shipped(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    load(Some(&path), &with(&[("DATABASE_URL", URL)]), PRESETS).unwrap_or_else(|error| panic!("{error}"))
}

/// Without a file; `load` would find the one in `config/`, so this goes by a folder that has none.
fn from_environment(variables: &[(&'static str, &'static str)]) -> Result<Config, LoadError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    bulkhead::config::load_in(folder.path(), None, &with(variables), PRESETS)
}

#[test]
fn the_minimal_file_and_the_commented_example_are_the_defaults() {
    for config in [shipped("minimal.toml"), shipped("bulkhead.toml")] {
        assert_eq!(config.listen, Listen::default());
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.auth, Auth::default());
        assert_eq!(config.pools, [Pool::default()]);
        assert_eq!(config.jobs, Jobs::default());
        assert_eq!(config.workers, Workers::default());
        assert_eq!(config.databases, ["*"]);
        let [server] = &config.servers[..] else { panic!("one server") };
        assert_eq!(server.hosts[0].to_string(), "db.internal:6000");
        assert_eq!((server.user.as_str(), server.database.as_str()), ("app", "shop"));
        assert_eq!(server.password.as_deref(), Some("secret"));
        assert_eq!(server.tls.mode, SslMode::Prefer);
        assert!(!format!("{config:?}").contains("secret"));
    }
}

/// The lines of the commented example that stand below a section's header, and the sections named so far.
fn example_keys(section: &str) -> Vec<(&'static str, &'static str)> {
    let mut inside = section.is_empty();
    let mut found = Vec::new();
    for line in include_str!("../config/bulkhead.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = section.replace('*', "primary") == header;
            // A table is named by its header.
            let parts = header.split('.').filter(|_| section.is_empty() || header.starts_with(section));
            found.extend(parts.map(|part| (part, "")));
        } else if let Some(pair) = line.split_once(" = ").filter(|_| inside) {
            found.push(pair);
        }
    }
    found
}

#[test]
fn the_commented_example_names_every_key_with_its_default() {
    for section in KEYS {
        let found = example_keys(section.name);
        for key in section.keys {
            let (name, default) = (key.name, key.default);
            let value = found.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
            let Some(value) = value else {
                panic!("config/bulkhead.toml does not name {name} in [{}]", section.name)
            };
            let literal = default.starts_with(['"', '['])
                || key.unit == keys::Unit::Flag
                || default.parse::<u64>().is_ok();
            assert!(!literal || value == default, "{name} in [{}]: {value}, not {default}", section.name);
        }
    }
}

#[test]
fn the_page_says_rightly_what_needs_a_restart() {
    for section in KEYS {
        for key in section.keys.iter().filter(|key| key.unit != keys::Unit::Section) {
            let name = format!("{}.{}", section.name, key.name);
            let needs_restart = diff::NEEDS_RESTART.contains(&name.as_str());
            assert_eq!(key.change == keys::Change::Restart, needs_restart, "{name}");
        }
    }
}

#[test]
fn the_page_of_all_keys_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == bulkhead::config::markdown(), "run: bulkhead keys >docs/configuration.md");
}

#[test]
fn reads_a_file_with_everything_in_it() {
    let text = r#"
        databases = ["shop", "${EXTRA:-stats}"]
        listen = { address = "[::]:5432", http = "off", threads = 3, shutdown_grace = "0s" }
        limits.max_clients = "${CLIENTS}"
        auth = { method = "md5", users_file = "users.txt" }
        [servers.replica_2]
        url = "postgres://r@h2"
        [servers.primary]
        url = "postgres://u@/d?host=/tmp&sslmode=disable"
        max_connections = 60
        [servers.replica_1]
        url = "postgres://r@h1"
        [pools.replicas]
        wait_timeout = "250ms"
        [pools.reports]
        servers = ["replica_1"]
        [jobs]
        presets = ["oban"]
        schemas = ["private"]
        rules = { tables = ["queue_*"] }
        [workers]
        users = ["worker"]
    "#;
    let config = parse(text, "test.toml", &with(&[("CLIENTS", "5_000")]), PRESETS)
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.databases, ["shop", "stats"]);
    assert_eq!(config.listen.http, None);
    assert_eq!(config.limits.max_clients, 5000);
    let names: Vec<_> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["replica_2", "primary", "replica_1"]);
    let pools: Vec<_> =
        config.pools.iter().map(|pool| (pool.name.as_str(), pool.servers.as_slice())).collect();
    let expected: [(&str, &[usize]); 5] =
        [("replicas", &[0, 2]), ("reports", &[2]), ("primary", &[1]), ("jobs", &[1]), ("workers", &[1])];
    assert_eq!(pools, expected);
    assert_eq!(config.pools[0].wait_timeout, Duration::from_millis(250));
    assert_eq!(config.jobs.rules, JobRules { tables: vec!["queue_*".to_owned()], ..JobRules::default() });
}

#[test]
fn starts_from_the_environment_alone() {
    let config = from_environment(&[("DATABASE_URL", URL)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, shipped("minimal.toml"));

    let config = from_environment(&[
        ("DATABASE_URL", "postgres://app:$${x}\"'@h/d"),
        ("REPLICA_URLS", "postgres://app@r1/d, postgres://app@r2/d,"),
        ("JOBS_DATABASE_URL", "postgres://jobs@j/jobs"),
        ("BULKHEAD_LISTEN", "0.0.0.0:5432"),
        ("BULKHEAD_HTTP", "off"),
        ("BULKHEAD_MAX_CONNECTIONS", "7"),
    ])
    .unwrap_or_else(|error| panic!("{error}"));
    let pools: Vec<_> = config
        .pools
        .iter()
        .map(|pool| {
            let servers: Vec<_> = pool.servers.iter().map(|&at| config.servers[at].name.as_str()).collect();
            (pool.name.as_str(), servers.join(" "), pool.max_connections)
        })
        .collect();
    let expected = [
        ("jobs", "jobs".to_owned(), 20),
        ("primary", "primary".to_owned(), 7),
        ("replicas", "replica_1 replica_2".to_owned(), 20),
    ];
    assert_eq!(pools, expected);
    assert_eq!(config.jobs.presets, ["oban"]);
    let primary = config.servers.iter().find(|server| server.name == "primary").expect("a primary");
    assert_eq!(primary.password.as_deref(), Some("$${x}\"'"));

    // Presets without a job database: the pool sits on the primary.
    let config = from_environment(&[("DATABASE_URL", URL), ("BULKHEAD_JOBS", "river")])
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        config.pools.iter().map(|pool| (pool.name.as_str(), &pool.servers[..])).collect::<Vec<_>>(),
        [("primary", &[0][..]), ("jobs", &[0][..])]
    );
}

#[test]
fn names_the_variables_that_are_wrong() {
    let mut shown = String::new();
    let cases: [&[(&str, &str)]; 3] = [
        &[],
        &[("DATABASE_URL", "mysql://app:hunter2@h/d"), ("BULKHEAD_LISTEN", "localhost:6432")],
        &[
            ("DATABASE_URL", URL),
            ("REPLICA_URLS", "postgres://app:hunter2@r1:x/d"),
            ("BULKHEAD_JOBS", "obam"),
            ("BULKHEAD_MAX_CONNECTIONS", "many"),
        ],
    ];
    for variables in cases {
        let error = from_environment(variables).expect_err("a mistake");
        writeln!(shown, "{error}\n").expect("a String takes any text");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn refuses_files_that_cannot_be_configurations() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let load_bytes = |bytes: &[u8]| {
        let path = folder.path().join("x.toml");
        std::fs::write(&path, bytes).expect("a writable folder");
        load(Some(&path), &|_| None, PRESETS).expect_err("no configuration")
    };
    assert!(matches!(load_bytes(&vec![b'#'; (1 << 20) + 1]), LoadError::TooLong { .. }));
    assert!(matches!(load_bytes(b"\xff"), LoadError::NotUtf8 { .. }));
    assert!(matches!(load(Some(folder.path()), &|_| None, PRESETS), Err(LoadError::Unreadable { .. })));
    let missing = folder.path().join("missing.toml");
    assert!(matches!(load(Some(&missing), &|_| None, PRESETS), Err(LoadError::Unreadable { .. })));
}

proptest! {
    #[test]
    fn no_text_panics(at in 0_usize..6000, length in 0_usize..40, put in "[a-z0-9\\[\\]\\.\"=${}:, \n]{0,12}") {
        let text = include_str!("../config/bulkhead.toml").replace("\n# ", "\n");
        for text in [text, include_str!("../config/bulkhead.toml").to_owned()] {
            let characters: Vec<char> = text.chars().collect();
            let (at, end) = (at.min(characters.len()), (at + length).min(characters.len()));
            let changed: String = characters[..at].iter().copied().chain(put.chars()).chain(characters[end..].iter().copied()).collect();
            let _ = parse(&changed, "x.toml", &with(&[("DATABASE_URL", URL)]), PRESETS);
        }
    }
}

/// Each stands below a primary server, unless it has one of its own.
const MISTAKES: &[&str] = &[
    "[listen]\naddress = \"localhost:6432\"",
    "[listen]\naddress = \":6432\"",
    "[listen]\naddress = \"10.0.0.1\"",
    "[listen]\naddress = \"db:port\"",
    "[listen]\naddress = 6432",
    "[listen]\nhttp = \"127.0.0.1:6432\"",
    "[listen]\nunix_socket_dir = \"\"",
    "[listen]\nunix_socket_dir = \"/a/path/which/is/so/long/that/no/operating/system/would/take/it/as/the/address/of/a/socket/at/all\"",
    "[listen]\nunix_socket_directory = \"/run\"",
    "[listen]\nunix_socket_mode = \"rwx\"",
    "[listen]\nunix_socket_mode = \"1777\"",
    "[listen]\nunix_socket_mode = 0o660",
    "[listen]\nthreads = 0",
    "[listen]\nthreads = 1.5",
    "[listen]\nadress = \"127.0.0.1:6432\"",
    "[listen]\nshutdown_grace = 30",
    "[limits]\nlogin_timeout = \"15\"",
    "[limits]\nlogin_timeout = \"15 seconds\"",
    "[limits]\nlogin_timeout = \"0s\"",
    "[limits]\nlogin_timeout = \"400d\"",
    "[limits]\nrequest_buffer = \"1MB/s\"",
    "[limits]\nrequest_buffer = \"65536\"",
    "[limits]\nrequest_buffer = 65536",
    "[limits]\nrequest_buffer = \"12B\"",
    "[limits]\nmax_clients = \"many\"",
    "[limits]\nmax_clients = -1",
    "[limits]\nmax_client_conn = 100",
    "[limits]\npool_size = 100",
    "limits = 5",
    "[limitz]\nmax_clients = 1",
    "[auth]\nmethod = \"scram\"",
    "[auth]\nusers_file = \"\"",
    "[auth]\nusers_file = \"${USERS}\"",
    "[auth]\nusers_file = \"${USERS\"",
    "[auth]\nusers_file = \"${}\"",
    "[servers.primary]",
    "[servers.primary]\nurl = \"\"",
    "[servers.primary]\nurl = \"${DATABASE_URL}\"",
    "[servers.primary]\nurl = \"mysql://u:hunter2@h/d\"",
    "[servers.primary]\nurl = \"postgres://h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h:70000/d\"",
    "[servers.primary]\nurl = \"postgres://u:hun@ter2@h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hun/ter2@h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hun?ter2@h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2%@h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@[::1/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@a,/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@a,b/d?port=1,2,3\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@a,b/d?target_session_attrs=master\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?sslmode=verify-full\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?sslmode=require&sslrootcert=system\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?sslnegotiation=direct\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?sslcert=client.crt\"",
    "[listen.tls]\nmode = \"require\"",
    "[listen.tls]\nmode = \"verify-full\"\ncertificate = \"a\"\nkey = \"b\"",
    "[listen.tls]\ncertificate = \"server.crt\"",
    "[listen.tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_certificates = \"require\"",
    "[listen.tls]\nclient_tls_sslmode = \"prefer\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?sslmode=on\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?connect_timeout=5s\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d?options=-csearch_path%3Da\"",
    "[servers.main]\nurl = \"postgres://u:hunter2@h/d\"",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d\"\nmax_connections = 30\n[pools.primary]\nmax_connections = 24\n[pools.workers]\nmax_connections = 8",
    "[servers.primary]\nurl = \"postgres://u:hunter2@h/d\"\npassword = \"hunter2\"",
    "[servers.jobs]\nurl = \"postgres://u:hunter2@h/d\"\n[jobs]\npresets = [\"oban\"]",
    "[servers.replica_1]\nurl = \"postgres://u:hunter2@h/d\"",
    "[servers.archive]\nurl = \"postgres://u:hunter2@h/d\"",
    "[servers.Archive]\nurl = \"postgres://u:hunter2@h/d\"\n[pools.a]\nservers = [\"Archive\"]",
    "[pools.primary]\nservers = [\"primry\"]",
    "[pools.primary]\nservers = []",
    "[pools.primary]\nservers = \"primary\"",
    "[pools.primary]\nmin_connections = 30",
    "[pools.primary]\nmax_connections = 0",
    "[pools.primary]\nmax_conections = 5",
    "[pools.replicas]\nmax_connections = 5",
    "[pools.replicas]\nservers = [\"primary\", \"primary\"]",
    "[pools.jobs]\nservers = [\"primary\", \"jobs\"]",
    "[pools.reports]\nmax_connections = 5",
    "[jobs]\npresets = [\"obam\"]",
    "[jobs]\npresets = [\"sidekiq\"]",
    "[jobs]\npresets = [\"auto\", \"oban\"]",
    "[jobs]\npresets = [1]",
    "[jobs]\noutbox = true",
    "[jobs]\noutbox = \"yes\"",
    "[jobs]\noutbox = 1\noutbox_batch = 0\noutbox_poll = \"1ms\"",
    "[jobs.rules]\ntabels = [\"a\"]",
    "[jobs.rules]\ntables = [\"\"]",
    "[workers]\nuser = [\"a\"]",
    "databases = []",
    "databases = [\"a\"",
    "= 5",
    "databases = [\"a\"]\ndatabases = [\"b\"]",
    "[listen]\nadress = 1\nhttp = 2\n[limits]\nmax_clients = 0\n[pools.primary]\nwait_timeout = 5\n[workers]\nusers = \"a\"",
];

#[test]
fn says_what_is_wrong_and_what_to_write() {
    let (mut shown, mut helpful) = (String::new(), 0);
    for mistake in MISTAKES {
        let text = if mistake.contains("[servers.primary]") || mistake.contains("[servers.main]") {
            (*mistake).to_owned()
        } else {
            format!("{mistake}\n[servers.primary]\nurl = \"{URL}\"\n")
        };
        let problems = parse(&text, "bulkhead.toml", &|_| None, PRESETS).expect_err(mistake);
        let has_both = |problem: &bulkhead::config::Problem| problem.line > 0 && !problem.hint.is_empty();
        helpful += usize::from(problems.problems.iter().all(has_both));
        let problems = problems.to_string();
        assert!(!problems.contains("hunter2") && !problems.contains("ter2"), "{problems}");
        writeln!(shown, "{mistake}\n--> {problems}\n").expect("a String takes any text");
    }
    // The others are no TOML: what was meant cannot be known.
    assert!(helpful + 3 >= MISTAKES.len(), "{helpful} of {} name a line and what to write", MISTAKES.len());
    insta::assert_snapshot!(shown);
}

/// A server, then a text.
fn beside(text: &str) -> String {
    format!("[servers.primary]\nurl = \"postgres://u@h/d\"\n{text}")
}

/// What cannot work is refused, with its line and key; what has no effect is warned of, with the same.
#[test]
fn values_must_fit_each_other() {
    let limits = |text: &str| beside(&format!("[limits]\n{text}"));
    let pool = |text: &str| beside(&format!("[pools.primary]\n{text}"));
    let refused = [
        (limits("request_buffer = \"512MiB\""), "x:4:18: limits.request_buffer: one request may take 512MiB"),
        (
            limits("request_buffer_total = \"512KiB\""),
            "x:4:24: limits.request_buffer_total: one request may take 1MiB",
        ),
        (limits("statement_bytes = \"2MiB\""), "x:4:19: limits.statement_bytes: no statement of 2MiB"),
        (
            limits("request_buffer = \"64KiB\"\nstatement_bytes = \"128KiB\""),
            "x:5:19: limits.statement_bytes:",
        ),
        (limits("notifications_per_client = \"4KiB\""), "x:4:28: limits.notifications_per_client: is less"),
        (pool("max_pinned = 21"), "x:4:14: pools.primary.max_pinned: 21 is more than max_connections"),
        (
            pool("min_connections = 21"),
            "x:4:19: pools.primary.min_connections: 21 is more than max_connections",
        ),
        (
            beside("max_connections = 25\n[pools.primary]\n[pools.workers]\nmax_connections = 6"),
            "x:3:19: servers.primary.max_connections: 25 is less than its pools may open: primary 20 + workers 6",
        ),
    ];
    for (text, expected) in refused {
        let problems = parse(&text, "x", &with(&[]), PRESETS).err().unwrap_or_else(|| panic!("{text}"));
        let lines = problems.lines();
        assert!(matches!(&lines[..], [line] if line.starts_with(expected)), "{expected}: {lines:?}");
    }
    let warned = [
        (pool("connect_timeout = \"6s\""), "x:4:19: pools.primary.connect_timeout: 6s is more than anybody waits"),
        (pool("wait_timeout = \"20s\""), "x:4:16: pools.primary.wait_timeout: a login"),
        (pool("idle_timeout = \"2h\""), "x:4:16: pools.primary.idle_timeout: has no effect"),
        (pool("check_after = \"10m\""), "x:4:15: pools.primary.check_after: nothing is ever checked"),
        (pool("max_waiting = 20000"), "x:4:15: pools.primary.max_waiting: so many cannot wait"),
        (
            pool("max_pinned = 0\npinned_idle_timeout = \"5s\""),
            "x:5:23: pools.primary.pinned_idle_timeout: nobody is pinned",
        ),
        (limits("max_clients = 10"), "x:4:15: limits.max_clients: fewer clients than a pool"),
        (limits("login_timeout = \"4s\""), "x:4:17: limits.login_timeout: a login that waits"),
        (limits("tcp_user_timeout = \"1s\""), "x:4:20: limits.tcp_user_timeout: peers are looked at"),
        (
            limits("request_buffer_total = \"1MiB\"\nprepared_bytes_per_client = \"2MiB\""),
            "x:5:29: limits.prepared_bytes_per_client: is more than request_buffer_total",
        ),
        (beside("[listen]\nunix_socket_mode = \"0700\""), "x:4:20: listen.unix_socket_mode: has no meaning"),
        (beside("[jobs]\npresets = []\nschemas = [\"private\"]"), "x:5:11: jobs.schemas: has no meaning without presets"),
        (
            beside("[servers.replica_1]\nurl = \"postgres://u@h/d\"\n[pools.replicas]"),
            "x:4:7: servers.replica_1.url: is the same database at the same address as servers.primary",
        ),
        (
            "[servers.primary]\nurl = \"postgres://u@h/d?connect_timeout=3\"\n[pools.primary]\nconnect_timeout = \"4s\"".to_owned(),
            "x:4:19: pools.primary.connect_timeout: has no effect at servers.primary",
        ),
    ];
    for (text, expected) in warned {
        let config =
            parse(&text, "x", &with(&[]), PRESETS).unwrap_or_else(|problems| panic!("{text}: {problems}"));
        let lines = config.warnings.lines();
        assert!(matches!(&lines[..], [line] if line.starts_with(expected)), "{expected}: {lines:?}");
    }
    // All at once, in the order of the file.
    let text = limits(
        "statement_bytes = \"2MiB\"\nnotifications_per_client = \"4KiB\"\n[pools.primary]\nmax_pinned = 30",
    );
    let problems = parse(&text, "x", &with(&[]), PRESETS).expect_err("three problems").problems;
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [4, 5, 7]);
    // Nothing that is shipped is warned of, nor is what nobody has written.
    for name in ["minimal.toml", "bulkhead.toml"] {
        assert_eq!(shipped(name).warnings.lines(), [""; 0], "{name}");
    }
    let url = [("DATABASE_URL", URL), ("BULKHEAD_MAX_CLIENTS", "5")];
    let warned = from_environment(&url).expect("it is valid").warnings.lines();
    assert!(
        matches!(&warned[..], [line] if line.starts_with("environment: BULKHEAD_MAX_CLIENTS: fewer")),
        "{warned:?}"
    );
}
