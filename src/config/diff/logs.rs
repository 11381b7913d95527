//! What changes of statistics and of the log.

use super::{
    super::{Log, Statistics},
    Diff,
    shown::shown,
};

impl Diff {
    pub(super) fn statistics(&mut self, old: &Statistics, new: &Statistics) {
        let show = |Statistics { queries, query_bytes, slow_statement, slow_statements }: &Statistics| {
            let bytes = format!("{query_bytes}B");
            [queries.to_string(), bytes, shown(slow_statement), slow_statements.to_string()]
        };
        let names = ["queries", "query_bytes", "slow_statement", "slow_statements"];
        self.section("statistics", names, show(old), show(new));
    }

    pub(super) fn log(&mut self, old: &Log, new: &Log) {
        let show = |log: &Log| {
            let Log { level, format, slow_statement, slow_sample_percent, slow_values } = log;
            [
                level.name().to_owned(),
                format.name().to_owned(),
                shown(slow_statement),
                slow_sample_percent.to_string(),
                slow_values.to_string(),
            ]
        };
        let names = ["level", "format", "slow_statement", "slow_sample_percent", "slow_values"];
        self.section("log", names, show(old), show(new));
    }
}
