//! Asking a running Bulkhead over HTTP why users are slow: `bulkhead why`.

use std::{io, net::SocketAddr, time::Duration};

use super::health::{get_within, reachable};
use crate::{
    config::Config,
    why::{Look, Why, page},
};

/// The path of the report.
pub(crate) const PATH: &str = "/api/v1/why";

/// The report itself takes less than five seconds.
const TIMEOUT: Duration = Duration::from_secs(8);

const OK: u16 = 200;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The configuration switches HTTP off.
    #[error(
        "listen.http is \"off\": there is nothing to ask. SHOW WHY on the console tells the same; or write an address such \
         as \"127.0.0.1:9930\""
    )]
    Off,
    /// Nobody answers.
    #[error(
        "bulkhead cannot be asked: http://{address}{PATH} does not answer: {error}. It does not run, or runs with another \
         listen.http than this configuration's, or hangs"
    )]
    Silent {
        /// Where it was asked.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The answer is no report.
    #[error(
        "http://{address}{PATH} answers {status}, and that is no report: another version of bulkhead, or another program"
    )]
    Strange {
        /// Where it was asked.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
    },
}

/// How the report is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One screen.
    Page(Look),
    /// The JSON as it came.
    Json,
}

/// Asks the Bulkhead that runs with this configuration. Gives the text to show, and whether all is well.
pub fn ask(config: &Config, form: Form) -> Result<(String, bool), Unreachable> {
    let address = reachable(config.listen.http.ok_or(Unreachable::Off)?);
    let (status, text) =
        get_within(TIMEOUT, address, PATH).map_err(|error| Unreachable::Silent { address, error })?;
    let report: Option<Why> = (status == OK).then(|| serde_json::from_str(&text).ok()).flatten();
    let report = report.ok_or(Unreachable::Strange { address, status })?;
    let shown = match form {
        Form::Page(look) => page(&report, look),
        Form::Json => text,
    };
    Ok((shown, report.well))
}
