//! The integration tests: one binary, because linking it is what takes long. Those of servers boot real Postgres
//! through [`support`].

mod backends;
mod bounds;
mod cancel;
mod check;
mod conversation;
mod corners;
mod demo;
mod drivers;
mod failures;
mod harness;
mod health;
mod hostile;
mod hosts;
mod interleave;
mod leftovers;
mod life;
mod listen;
mod logins;
mod modes;
mod names;
mod packaging;
mod pins;
mod probes;
mod procedures;
mod reload;
mod routing;
mod starts;
mod state;
mod statements;
mod support;
mod tidy;
mod tls;
mod tls_reload;
mod tls_servers;
mod tools;
