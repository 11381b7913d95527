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
//! 3. **route**: verdict, transaction, pins and hints give a [`Target`](route::Target).
//! 4. **admit, checkout**: a [`Lease`](pool::Lease), at once, after waiting in a bounded queue, or a clear refusal.
//! 5. **send**: one write carries the settings the backend lacks, a deferred `BEGIN`, missing prepared statements, and
//!    the request.
//! 6. **relay**: bytes both ways, headers peeked, bodies untouched; replies to what Bulkhead sent are swallowed.
//! 7. **settle**: release, keep (in a transaction, or pinned), or discard. Releasing takes a
//!    [`Quiescent`](backend::Quiescent) proof, which only the backend's protocol state can make.
//!
//! # Layers
//!
//! Dependencies point upwards in this list only; `tests/it/tidy.rs` holds it.
//!
//! | layer | owns |
//! |---|---|
//! | [`version`], [`clock`], [`socket`] | what was built; reading into the thread's one buffer, writing at once |
//! | [`wire`] | bytes to messages and back; no sockets |
//! | [`auth`] | SCRAM-SHA-256 and md5, both sides; the users file |
//! | [`sql`] | pure: text to verdict; presets of job libraries; catalog snapshots |
//! | [`route`] | pure: verdict and standing to target |
//! | [`backend`] | one server connection: login, protocol state, settings, statements, cancel |
//! | [`pool`] | bounds, queue, leases, connecting, closing |
//! | [`server`] | what is known of servers beyond their address |
//! | [`session`] | one client's conversation |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz` |
//! | [`config`] | file and environment to checked values, all problems at once |
//! | [`app`], [`ports`], [`listener`], [`unix_socket`], [`service`], [`secrets`], [`descriptors`], [`shutdown`], [`telemetry`] | putting it together: where clients come in, the service manager, the end |
//! | [`upstream`], [`health`], [`demo`] | commands beside serving: what `check --connect` finds at the servers, a health check, the demonstration |
//!
//! # What is bounded, and how
//!
//! * A **place** in a pool is taken from before a backend connects until the server has closed it again, so the
//!   server's own count never exceeds `max_connections`. A backend whose session vanished is cancelled and seen off
//!   before its place is free.
//! * The **queue** of a pool has `max_waiting` places and a `wait_timeout`; one more is refused at once with SQLSTATE
//!   53300, and the client's connection stays usable.
//! * What a **client that left** had sent whole runs to its end, for `orphan_timeout` at most; what only reads ends with it.
//! * **Pins** are bounded by `max_pinned`: who will pin waits for a place before waiting for a connection, so the two queues
//!   never wait for each other.
//! * A **session** keeps up to `request_buffer` bytes of a request; longer messages stream through. Nothing is read from
//!   one side that the other side has not taken.
//! * **Caches** (verdicts, statements, identities, catalogs) have a fixed number of entries.
//!
//! # Session state in transaction pooling
//!
//! Settings are the session's: after a statement that may have changed some, the server is asked which are in force
//! (`pg_settings`), and the next backend gets the difference in front of the next request. Prepared statements of the
//! protocol have one name on all backends and are parsed where they are missing. What cannot be moved (temporary
//! objects, session advisory locks, SQL-level PREPARE, cursors WITH HOLD) pins the session to its backend until
//! the server, asked again, says that it is gone. LISTEN costs a session no backend: one connection for each database
//! [listens](server::listener) for all of its sessions.
//!
//! # What a client is told of a loss
//!
//! Nothing is told as done that the server has not said to be done. A transaction whose backend is gone is told by an
//! error, with the next request if none is under way, whatever that is; a COMMIT under way is told as unknown (08007). A
//! read that its server has ended for reasons of its own, and of which no byte was passed on, is run once more.
//!
//! # Snapshots and reload
//!
//! What the configuration says is one [`Shared`](session::Shared) snapshot behind an `Arc`, without statics. A
//! [reload] reads and checks everything off the runtime's threads, compares it with what is in force
//! ([`config::diff`]), and puts a new snapshot in force in one step, or none. A session looks at one number between
//! requests and goes over to the new snapshot when it holds no backend. Pools that go on are the same objects with
//! other limits; those that are gone serve who still waits, and close what comes back.
//!
//! # Runtime
//!
//! `threads` independent single-threaded runtimes; each session lives on one of them, and one task owns both sides of
//! its conversation. A transaction costs two reads and two writes. An idle client owns no buffer.
pub mod admin;
pub mod app;
pub mod auth;
pub mod backend;
pub mod clock;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod health;
pub mod listener;
pub mod pool;
pub mod ports;
pub mod reload;
pub mod route;
pub mod secrets;
pub mod server;
pub mod service;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod sql;
pub mod telemetry;
pub mod unix_socket;
pub mod upstream;
pub mod version;
pub mod wire;
