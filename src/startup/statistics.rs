//! The bounds of statistics, as the configuration says.

use crate::{
    config::{self, Config},
    shared::{
        Process,
        queries::{QueryLimits, SlowLimits},
    },
};

/// Texts that are known at least if slow statements are to be told of.
const TEXTS_OF_SLOW: usize = 100;

/// Puts the bounds in force.
pub(super) fn set_limits(process: &Process, config: &Config) {
    process.queries.set_limits(query_limits(config));
    process.slow.set_limits(slow_limits(config));
}

/// Bounds of the statistics. Slow statements have texts, too, where nothing else is counted.
fn query_limits(config: &Config) -> QueryLimits {
    let config::Statistics { queries, query_bytes, slow_statements, .. } = config.statistics;
    let is_slow_told = !config.statistics.slow_statement.is_zero() || !config.log.slow_statement.is_zero();
    let texts = if is_slow_told { queries.max(slow_statements).max(TEXTS_OF_SLOW) } else { queries };
    QueryLimits { queries, texts, text_bytes: query_bytes }
}

fn slow_limits(config: &Config) -> SlowLimits {
    SlowLimits {
        kept_from: config.statistics.slow_statement,
        kept_max: config.statistics.slow_statements,
        logged_from: config.log.slow_statement,
        logged_percent: config.log.slow_sample_percent as u8,
        logs_values: config.log.slow_values,
    }
}
