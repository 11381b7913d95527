//! Bulkhead stands between an application and its Postgres servers. The application changes host and port in its
//! `DATABASE_URL` and nothing else. Every statement is classified (job, read, write), and every class has its own
//! bounded pool, so that no class can starve another.
//!
//! ```text
//!  clients          session/                               pool/            backend/       servers
//!  ───────   ┌───────────────────────────────────┐   ┌────────────────┐   ┌──────────┐
//!   web  ──► │ next_request ─► classify ─► route ─┼──►│ primary   24   │──►│ ████     │──► primary
//!   api  ──► │      ▲            sql/     route/  │   │ replicas  20   │──►│ ██       │──► replica
//!  60 jobs ─►│      └─ settle ◄─ relay ◄─ send ◄──┼───│ jobs      10   │──►│ █████    │──► job database
//!            └───────────────────────────────────┘   └────────────────┘   └──────────┘
//! ```
//!
//! # The journey of a request
//!
//! `session/serve.rs` reads as this list:
//!
//! 1. **next_request**: bytes up to a `Query`, `Sync` or `Flush` are one [request](session).
//! 2. **classify**: its texts get a [`Verdict`](sql::Verdict): class, effects on the session, why. A lexer makes a key
//!    without literals, a bounded cache answers; the grammar itself (PostgreSQL's) is asked only on a miss.
//! 3. **answers, target**: what needs no backend is answered here; for the rest, verdict, transaction, pins and hints
//!    give a [`Target`](route::Target).
//! 4. **checkout**: a [`Lease`](pool::Lease), at once, after waiting in a bounded queue, or a clear refusal. If its
//!    backend is not as the session needs it, it is made so first, and the server has confirmed it
//!    ([`backend::handover`]).
//! 5. **send**: one write carries a deferred `BEGIN`, missing prepared statements, and the request.
//! 6. **relay**: bytes both ways, headers peeked, bodies untouched; replies to what Bulkhead sent are swallowed.
//! 7. **settle**: release, keep (in a transaction, or pinned), or discard. Releasing takes a
//!    [`Quiescent`](backend::Quiescent) proof, which only the backend's protocol state can make. After what is not proven
//!    to leave nothing, or may have changed settings, the server is asked what is left.
//!
//! # Five principles
//!
//! **P1. Nobody meets another's state: proven, not guessed.** A backend goes from one session to another in one of three
//! ways ([`backend::handover`]): *proven clean*, *reset and confirmed* (`DISCARD ALL` has succeeded), or *closed*. There
//! is no fourth: a request goes out where the backend [`is_ready`](backend::Backend::is_ready) for its session or was
//! [made so](backend::Backend::make_ready), and a lease that is not [released](pool::Lease::release), by a proof that nothing
//! is owed, closes its backend.
//!
//! * *What is proven* is that a text leaves nothing but what is carried: settings by names that are carried, statements of
//!   the protocol, what pins and is asked for. Every other text is marked [`UNPROVEN`](sql::Effects::UNPROVEN), and its
//!   backend is suspect until a reset. Nothing is proven by silence: each kind of node that the grammar has is read to its
//!   end or says that it is not (`sql::prove`, `sql::definitions`), and the tokens are looked through once more,
//!   independent of the trees.
//! * *The proof is a closure* over who reaches what (`sql::proof`). Everything that a text names must be known in the
//!   database, and not be in doubt. Doubt begins at built-in functions that are not audited, at functions whose body is
//!   not proven (SQL is read by the grammar, PL/pgSQL by its tokens against a list; C only of extensions that were
//!   audited; no other language, no EXECUTE), and at foreign tables. From there it goes to all who reach them: views,
//!   rules, triggers, defaults, generated columns, constraints, index and partition expressions, policies, statistics,
//!   casts, operators and their classes, domains, aggregates, heirs, foreign keys, other functions. The server's catalog
//!   tells these edges (`sql/proof_*.sql`), bodies tell the others. What a function declares of itself (`STABLE`) proves
//!   nothing.
//! * *Names stand for the worst of all objects of that name*, in any schema, of any kind of arguments. Which one the server
//!   takes depends on the search path, on temporary objects and on types; but whichever it takes is one of them, and all
//!   are proven, so none of this matters. An object that the session has just made is judged as it is made: what gives
//!   a known name to anything that runs code, or is not read to its end, is not proven.
//! * *Built-in functions* that are immutable or stable are harmless less those in `sql/audit/risky.txt`; volatile ones are
//!   not, but for those in `harmless.txt`, and in `visible.txt` where the text itself calls them. A volatile function of a
//!   newer server is on no list, and so in doubt there. Of the server that the tests run on,
//!   `every_built_in_function_that_could_leave_something_is_audited` (`tests/it/proven.rs`) fails at one that is on no list,
//!   and at one that by its name or arguments runs what it is given and is not among the risky ones.
//! * *Texts are read as the server reads them* ([`sql::Reading`]): by the encoding and the `standard_conforming_strings`
//!   that it has reported, not by what was sent to it. Bytes that it may read in another way prove nothing. A text or
//!   pipeline that may change the reading and goes on behind that is not proven.
//! * *What is stale when*: definitions that change through here empty the snapshot of their database, and nothing that
//!   evaluates anything is proven until it has been read again. What changes past here is seen within `catalog_refresh`,
//!   or within ten times as long as reading all databases takes; until then the old definitions are gone by. A statement
//!   under way when a definition changes was judged by the old one. Taken for granted is that built-in objects and
//!   audited extensions are those that come by these names.
//!
//! **P2. What fails, fails closed.** Nothing of a client's runs behind something of ours that has failed.
//! [`applied`](backend::Backend::applied) is what the server has confirmed. Values of settings are bytes, read in
//! hexadecimal digits, and written in them where they are not plain ASCII. This is what is sent, in this order, and what
//! one fault does to it:
//!
//! | ours | how it is sent | it fails (error, cancel, timeout) | the connection is lost, or our time is over |
//! |---|---|---|---|
//! | `DISCARD ALL`; `RESET statement_timeout`; settings | each a Query of its own, and answered, before the request is written. No cancel of a client's finds the backend | the server has undone it: the backend goes back as it was; 57014 is tried on three backends. The client gets the server's error, its request is not sent | the backend is closed, another one is tried, three in all; then 08006, the request is not sent |
//! | `LISTEN` of the session's channels | a Query, and answered, before the request is written | the backend is closed, the client gets the error, the request is not sent | the same |
//! | a deferred `BEGIN`, and what followed it | Parse, Bind, Execute each, *without a Sync*, in one write with the request | the server skips the request up to a Sync. A Query has none: it is sent when the error has come. The client gets the error, its transaction has failed (25P02) | 08006 or the server's word: the transaction is lost; with a COMMIT in the request 08007, unknown |
//! | the request behind it: a Query; extended messages with their Sync; with a Flush | in the same write | its own error, in its transaction, as on a server | as above |
//! | a statement under the client's own name (SQL `EXECUTE`) | Parse, behind the `BEGIN`, in front of the request | as for `BEGIN`; without one the request is skipped alone | as for the request |
//! | a statement that is missing | Parse, in front of its Bind | the error stands for the client's message, the rest is skipped up to its Sync | as for the request |
//! | the same, of which the client was told columns | Parse and Describe; the rest waits for the reply | the same; other columns: 0A000, and the rest is not sent | the same |
//! | the session's startup settings, after RESET and `DISCARD ALL` | a Query behind the request, whose ReadyForQuery is kept back | the session ends with the server's error: it cannot be told that it is done | the error in place of ReadyForQuery |
//! | what the session has left (the probe) | Queries, after the request, in no transaction. Settings that hinder it are put away and back | the session keeps the backend, and is asked again after its next request | the backend is closed; a session that may have state there ends |
//! | the catalog's question | `BEGIN READ ONLY`, the question, `COMMIT`: each is answered before the next one | the connection is closed; what was known stays for a minute of failures | the same |
//!
//! So no fault lets a request run under another's settings, or outside of the transaction that its client was told of. A
//! simple Query shares its implicit transaction with what stands before it without a Sync, so only what opens a
//! transaction is sent so, and settings are not.
//!
//! **P3. Our questions cannot be turned against us.** They look up nothing: functions, operators, casts, types and relations
//! are written with `pg_catalog`. The catalog is read in one read-only transaction with a search path of its own
//! ([`catalog::read_catalog`]), as a user of that database, and by a superuser as `pg_read_all_settings`. Answers are bounded
//! in bytes and time; a catalog's is taken in off the runtime's threads. `sql/tests/questions.rs` refuses a bare name;
//! `tests/it/{catalogs,proven,probes}.rs` ask where everything is hijacked.
//!
//! **P4. What a client was told binds us.** A statement is shared by those whose text, parameter types, generation of
//! definitions and settings that decide its meaning are the same; one that is parsed after a SET LOCAL, DDL or anything
//! unproven in its own transaction is shared with nobody. That goes for the unnamed one, too. A client that was told columns or parameters is served by
//! a statement of the same ones, or gets 0A000 (`session/prepared.rs`).
//! What it is told of types are the primary's numbers, whichever server answers: the replies of a job database elsewhere
//! are put into these before anything here looks at them ([`types`]).
//!
//! **P5. Effects count when they are executed**, by the server's answers: what was discarded by the command tags of
//! DISCARD, DEALLOCATE, RESET and SET; settings by the server's own list; a transaction's status by ReadyForQuery; the
//! reading of texts by ParameterStatus. What is only parsed does nothing.
//!
//! # Layers
//!
//! Dependencies point upwards in this list only; `tests/it/tidy` holds it, and that no file depends on itself through others.
//!
//! | folder | owns |
//! |---|---|
//! | [`version`], [`clock`], [`seldom`], [`threads`], [`socket`] | what was built; the time; lines that would repeat; the runtime's threads; reading into a thread's one buffer, writing at once |
//! | [`wire`] | bytes to messages and back; no sockets |
//! | [`types`] | pure: numbers of types that differ between the primary and a job database elsewhere, in messages both ways |
//! | [`metrics`] | counters and histograms |
//! | [`auth`] | SCRAM-SHA-256 and md5, both sides; TLS; the users file |
//! | [`sql`] | pure: text to verdict and proof; presets of job libraries; catalog snapshots; audited built-in functions |
//! | [`causal`] | pure: which tables were written when, and what each replica has replayed |
//! | [`route`] | pure: verdict and standing to target |
//! | [`backend`] | one server connection: which host, login, protocol state, settings, statements, handing over, cancel |
//! | [`pool`] | bounds, shares, queue, pins, leases, connecting, proving logins, closing |
//! | [`topology`] | how the servers are: which answers, which takes writes, where its WAL is |
//! | [`catalog`] | the catalog snapshots that classification goes by, one of each database; the types of both servers |
//! | [`listen`] | notifications: one connection for each database listens for all sessions |
//! | [`outbox`] | jobs enqueued on the primary: moving them to the job database, exactly once |
//! | [`shared`] | what all sessions share: the snapshot of the configuration, identities, cancel keys, counters |
//! | [`session`] | one client's conversation, from its first request on |
//! | [`why`] | why users are slow: the cause, what shows it, what to do |
//! | `console` | PgBouncer's commands, over the protocol of Postgres |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, the HTTP API, the live page |
//! | [`door`] | from a connection to a session: accepting, TLS, the first packet, the login |
//! | [`config`] | file and environment to checked values, all problems at once |
//! | [`startup`] | putting it together: building, ports, signals, the service manager, reloads, the end |
//! | [`commands`], [`demo`] | commands beside serving: `check`, `classify`, `health`, `why`, the demonstration |
//!
//! Where to look: what a client is told, word for word, is in `session/reply.rs`, a failed login's error, too
//! (`door/authenticate.rs` says when); why a read runs where it does, in `session/fresh.rs`; what becomes of a backend when its client goes, in `session/goodbye.rs`
//! (`Session::end`), and when it has been answered, in `session/settle.rs`; what is counted of a request, in
//! `session/counting.rs`; the tables, functions and channels of a job
//! library are a preset in `sql/presets.rs`.
//!
//! # What is bounded, and how
//!
//! * A **place** in a pool is taken from before a backend connects until the server has closed it again, so the
//!   server's own count never exceeds `max_connections`. A backend whose session vanished is cancelled and seen off
//!   before its place is free. The [health check](topology::Health) has one place more at the server, unless
//!   `servers.NAME.max_connections` leaves none.
//! * The **queue** of a pool has `max_waiting` places and a `wait_timeout`; one more is refused at once with SQLSTATE
//!   53300, and the client's connection stays usable. Identities take turns, each has its share of the places, and one
//!   that floods the queue gives way in it to others.
//! * What a **client that left** had sent whole runs to its end, for `orphan_timeout` at most; what only reads ends with it.
//! * **Pins** are bounded by `max_pinned`: who will pin waits for a place before waiting for a connection, so the two
//!   queues never wait for each other. A pin that was seen too late may exceed the bound, and ends when it idles while
//!   others wait.
//! * A **session** keeps up to `request_buffer` bytes of a request; longer messages stream through. What all keep of
//!   unfinished requests is bounded by `request_buffer_total`. Nothing is read from one side while the other side has not
//!   taken what was read before.
//! * **Caches** (verdicts, statements, identities, catalogs) have a fixed number of entries. Prepared statements are bounded
//!   in bytes as well (`prepared_bytes_per_client`, `prepared_bytes`), and so are settings (`settings_per_client`: beyond
//!   it the session keeps its backend), notifications (`notifications_per_client`), and a server's answers to us (8 MiB;
//!   64 MiB for a catalog).
//! * **Statistics** of statements have `statistics.queries` entries, `SHOW SLOW` `statistics.slow_statements`; what was used
//!   least recently makes room. [`shared::queries`] says how a request finds its entry.
//! * **Judging**: texts of up to 8 KiB a request are judged where they come in, longer ones on half of the cores at most; who
//!   finds no place within 100 ms goes to the primary, unproven. Texts above `statement_bytes` are not judged.
//! * **Silence**: a peer that acknowledges nothing for `tcp_user_timeout` is given up, one that only waits is not.
//!
//! # Session state in transaction pooling
//!
//! Settings are the session's: after a statement that may have changed some, the server is asked which are in force
//! (`pg_settings`), and the next backend gets the difference, and has confirmed it, before the next request is sent. Pools
//! prefer a backend that has them. Prepared statements of the protocol have one name on all backends and are parsed where
//! they are missing. What cannot be moved (temporary
//! objects, session advisory locks, SQL-level PREPARE, cursors WITH HOLD) pins the session to its backend until
//! the server, asked again, says that it is gone. LISTEN costs a session no backend: one connection for each database
//! [listens](listen::connection) for all of its sessions.
//!
//! # What a client is told of a loss
//!
//! Nothing is told as done that the server has not said to be done. A transaction whose backend is gone is told by an
//! error, with the next request if none is under way, whatever that is; a COMMIT under way is told as unknown (08007). In
//! the middle of a pipeline of which it has all answers, and with state on the backend, a session ends. A read that its
//! server has ended for reasons of its own, and of which no byte was passed on, is run once more. The README's "What
//! happens when" lists the faults; `session/{broken,failed,transaction,orphan,repeat}.rs` are what becomes of them.
//!
//! # Snapshots and reload
//!
//! What the configuration says is one [`Snapshot`](shared::Snapshot) snapshot behind an `Arc`, without statics. A
//! [reload](startup::reload) reads and checks everything off the runtime's threads, compares it with what is in force
//! ([`config::diff`]), and puts a new snapshot in force in one step, or none. A session looks at one number between
//! requests and goes over to the new snapshot when it holds no backend. Pools that go on are the same objects with
//! other limits; those that are gone serve who still waits, and close what comes back.
//!
//! # Runtime
//!
//! `threads` independent single-threaded runtimes; each session lives on one of them, and one task owns both sides of
//! its conversation. A transaction costs two reads and two writes, if its backend is ready; making it ready costs one of
//! each for every message of ours. An idle client owns no buffer.
pub mod admin;
pub mod auth;
pub mod backend;
pub mod catalog;
pub mod causal;
pub mod clock;
pub mod commands;
pub mod config;
mod console;
pub mod demo;
pub mod door;
pub mod listen;
pub mod metrics;
pub mod outbox;
pub mod pool;
pub mod route;
pub mod seldom;
pub mod session;
pub mod shared;
pub mod socket;
pub mod sql;
pub mod startup;
pub mod threads;
pub mod topology;
pub mod types;
pub mod version;
pub mod why;
pub mod wire;
