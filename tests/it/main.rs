//! The integration tests: one binary, because linking it is what takes long. Those of servers boot real Postgres
//! through [`support`].

mod backends;
mod bounds;
mod cancel;
mod check;
mod conversation;
mod demo;
mod drivers;
mod failures;
mod harness;
mod health;
mod hostile;
mod hosts;
mod interleave;
mod life;
mod listen;
mod logins;
mod modes;
mod names;
mod packaging;
mod pins;
mod prepared;
mod probes;
mod procedures;
mod protocol;
mod reload;
mod sessions;
mod shapes;
mod starts;
mod state;
mod statements;
mod support;
mod tidy;
mod tls;
mod tls_servers;
mod tools;
