//! What the log was told of the relay: what is in the way, or that nothing is any more.

use crate::seldom::SeldomFor;

/// The last line, and when each may come again.
#[derive(Debug, Default)]
pub(super) struct Told {
    trouble: Option<String>,
    troubles: SeldomFor,
    is_silent: bool,
}

impl Told {
    /// Tells the log, unless it knows; whether it is something else than before. A connection that is lost again and again
    /// is told of now and then: where the relay stands, `/metrics` tells.
    pub(super) fn tell(&mut self, trouble: Option<&str>) -> bool {
        if trouble == self.trouble.as_deref() {
            return false;
        }
        self.trouble = trouble.map(str::to_owned);
        match trouble {
            Some(trouble) => {
                let left_out = self.troubles.is_time(trouble);
                self.is_silent = left_out.is_none();
                if let Some(left_out) = left_out {
                    tracing::warn!(trouble, left_out, "jobs wait on the primary");
                }
            }
            None if self.is_silent => {}
            None => tracing::info!("jobs are moved from the primary to the job database again"),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_told_now_and_then() {
        let mut told = Told::default();
        assert!(!told.tell(None));
        assert!(told.tell(Some("lost")) && !told.is_silent);
        assert!(!told.tell(Some("lost")));
        for _ in 0..100 {
            assert!(told.tell(None) && told.tell(Some("lost")));
            assert!(told.is_silent);
        }
        assert!(told.tell(Some("another one")) && !told.is_silent);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        assert!(told.tell(Some("lost")) && !told.is_silent);
    }
}
