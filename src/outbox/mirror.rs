//! Tables of the job database that the primary has a copy of, because enqueuing reads them: pg-boss inserts a job by joining
//! its queue, and where that is missing inserts nothing and says nothing.
//!
//! They are small. One question tells whether anything has changed; then all rows are sent.

use super::{
    link::{Failure, Link},
    statements::Statements,
};
use crate::wire::message;

/// One of these tables.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    statements: Statements,
    /// The digest of the rows that were sent last.
    sent: Option<String>,
}

impl Mirror {
    pub(super) fn new(statements: Statements) -> Self {
        Self { statements, sent: None }
    }

    /// Brings the primary's copy up to date, unless somebody writes to it or has either table locked: then that is left to the
    /// next time. After a failure both connections are to be closed.
    pub(super) async fn renew(&mut self, primary: &mut Link, jobs: &mut Link) -> Result<(), Failure> {
        match self.send(primary, jobs).await {
            Err(failure) if failure.is_passing() => primary.ask("ROLLBACK").await.map(drop),
            sent => sent,
        }
    }

    async fn send(&mut self, primary: &mut Link, jobs: &mut Link) -> Result<(), Failure> {
        let digest = jobs.ask(&self.statements.digest()).await?.value(0, 0).to_owned();
        if self.sent.as_ref() == Some(&digest) {
            return Ok(());
        }
        let passed =
            jobs.pass(&self.statements.read_all(), primary, &self.statements.mirror_opening()).await?;
        if passed.rows > 0 {
            let mut request = Vec::new();
            message::raw(&mut request, b'c', &[]);
            message::query(&mut request, self.statements.mirror().as_bytes());
            message::query(&mut request, b"COMMIT");
            let replies = primary.exchange(&request, 3).await?;
            if let Some(error) = replies.into_iter().find_map(|reply| reply.error) {
                return Err(primary.error(error));
            }
        }
        self.sent = Some(digest);
        Ok(())
    }
}
