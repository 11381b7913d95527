//! The harness: real Postgres servers, the proxy, a network that misbehaves, a client without manners, and a load of
//! jobs. All of it runs from installed programs, on free ports, below a temporary folder, and dies with the test.
//!
//! | start | get |
//! |---|---|
//! | [`Postgres::start`] | one server: primary, replica of another, or job database |
//! | [`Cluster::start`] | primary, streaming replica and job database |
//! | [`Proxy::start`] | the program under test, with a configuration from [`ProxyConfig`] |
//! | [`Site::start`] | a primary and a proxy with two connections to it |
//! | [`Relay::start`] | a TCP relay that cuts, delays and stalls what goes through it |
//! | [`Prometheus::start`] | a Prometheus server, which scrapes and evaluates |
//! | [`RawClient::open`] | a client that sends any bytes at all |
//! | [`oban::install`], [`oban::Load`] | the tables of a job library, and workers on them |
//!
//! A test which fails prints the log of every server and proxy it had started, with command and configuration.
#![allow(dead_code, reason = "shared by tests and benchmarks, each of which uses a part")]
#![allow(unused_imports, reason = "as above")]

mod answers;
mod certificates;
mod cluster;
mod config;
mod network;
pub(crate) mod oban;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod proxy;
mod random;
mod raw;
mod relay;
mod site;
mod template;
mod trap;
mod wait;

pub(crate) use answers::{error_code, error_of, short, told, values};
pub(crate) use certificates::Certificates;
pub(crate) use cluster::Cluster;
pub(crate) use config::ProxyConfig;
pub(crate) use network::{connect, free_port, http_get};
pub(crate) use postgres::{Login, Postgres, Role, Stop};
pub(crate) use process::Running;
pub(crate) use programs::{Programs, programs};
pub(crate) use prometheus::{Prometheus, promtool};
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use raw::{Message, RawClient, Say};
pub(crate) use relay::Relay;
pub(crate) use rustix::process::Signal;
pub(crate) use site::{Site, shuffle};
pub(crate) use template::Scratch;
pub(crate) use trap::{Held, Place, Towards};
pub(crate) use wait::{eventually, wait_until};
