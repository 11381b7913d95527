//! Tables of many databases: far more than have slots of their own, so that many share one.

use tokio::task::JoinSet;

use super::Beside;
use crate::support::{Login, Random, RawClient};

const DATABASES: usize = 6;
const TABLES: u64 = 400;
const ROUNDS: usize = 60;

/// What was written is found, whichever table of whichever database it was in.
#[tokio::test]
async fn writes_of_one_database_are_found_beside_those_of_others() {
    let beside = Beside::start(2, |config| config.pool("primary", &["primary"], 20)).await;
    for replica in &beside.replicas {
        replica.query("ALTER SYSTEM SET recovery_min_apply_delay = '30ms'").await;
        replica.query("SELECT pg_reload_conf()").await;
    }
    for database in 0..DATABASES {
        beside.primary.query(&format!("CREATE DATABASE many_{database} OWNER app")).await;
        let tables = (0..TABLES).fold(String::new(), |sql, at| sql + &format!("CREATE TABLE t{at} (n int);"));
        let admin = beside.primary.admin_of(&format!("many_{database}")).await;
        admin.batch_execute(&format!("SET ROLE app; {tables}")).await.expect("valid");
    }
    for replica in &beside.replicas {
        replica.wait_for_replay(&beside.primary).await;
    }
    let mut all = JoinSet::new();
    for database in 0..DATABASES {
        let port = beside.proxy.port();
        all.spawn(async move { write_and_read(port, database).await });
    }
    let mut on_replicas = 0;
    while let Some(done) = all.join_next().await {
        on_replicas += done.expect("no client panics");
    }
    assert!(on_replicas > 0, "replicas were not used at all");
}

/// How many of the reads of other tables ran on a replica.
async fn write_and_read(port: u16, database: usize) -> usize {
    let name = format!("many_{database}");
    let mut random = Random::new(database as u64 + 1);
    let mut writer = RawClient::login(port, Login::App, &name).await;
    let mut reader = RawClient::login(port, Login::App, &name).await;
    let mut counts = vec![0_u32; TABLES as usize];
    let mut untouched = 0;
    for round in 0..ROUNDS {
        let at = random.below(TABLES) as usize;
        let insert = format!("INSERT INTO t{at} VALUES ({round})");
        assert!(crate::support::error_code(&writer.ask(&insert).await).is_none(), "{insert}");
        counts[at] += 1;
        let found = reader.query_value(&format!("SELECT count(*) FROM t{at}")).await;
        assert_eq!(found, counts[at].to_string(), "{name}: table {at}, round {round}");
        let other = random.below(TABLES) as usize;
        let sql = format!("SELECT count(*) || quote_ident('x') FROM t{other}");
        let found = reader.query_value(&sql).await;
        let (count, place) = found.split_at(found.find(['x', '"']).expect("a name"));
        assert_eq!(count, counts[other].to_string(), "{name}: table {other}, round {round}");
        untouched += usize::from(place.len() > 1);
    }
    untouched
}
