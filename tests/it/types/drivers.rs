//! Drivers that learn types by their numbers. Their scripts are in `tests/drivers`.

use super::Servers;
use crate::drivers::{python, run_script};

#[tokio::test]
async fn asyncpg_and_psycopg_find_every_type() {
    let servers = Servers::start().await;
    servers.primary.query("TRUNCATE oban_jobs; DELETE FROM other_4 WHERE b IS NULL").await;
    for script in ["types_asyncpg.py", "types_psycopg3.py"] {
        let before = servers.primary.value("SELECT count(*) FROM oban_jobs").await;
        let url = servers.proxy.url();
        tokio::task::spawn_blocking(move || run_script(&url, &mut python(), script))
            .await
            .expect("it ends well");
        assert_eq!(before, "0", "nothing has run on the primary");
    }
}
