//! Putting the program together: from the configuration to what runs, where clients come in, what signals and the
//! service manager ask for, reloads, and the end.

pub mod build;
pub mod descriptors;
mod error;
pub mod outbox;
pub mod ports;
pub mod reload;
mod run;
pub mod secrets;
pub mod service;
pub mod signals;
mod statistics;
pub mod telemetry;

pub use error::StartError;
pub use run::run;
