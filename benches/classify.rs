//! What classification costs: a hit (the hot path), a miss, and the key alone for a text that cannot hit.

use std::hint::black_box;

use bulkhead::sql::{Catalog, Classifier, Custom, Rules};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 8120731;                 ";
const JOIN: &str = "SELECT u.id, u.name, u.email, count(p.id) AS posts, max(p.created_at) AS latest FROM users u \
    LEFT JOIN posts p ON p.user_id = u.id AND p.deleted_at IS NULL WHERE u.tenant_id = $1 AND u.status = 'active' \
    GROUP BY u.id ORDER BY latest DESC NULLS LAST LIMIT 50 OFFSET 100;";

fn classify(criterion: &mut Criterion) {
    let presets = ["oban", "pg_boss", "graphile_worker", "procrastinate"].map(str::to_owned);
    let rules = Rules::new(&presets, &[], &Custom::default(), Vec::new()).expect("the presets are known");
    let catalog = Catalog::from_rows(1, [("function", "count"), ("function", "max")]);
    let classifier = Classifier::new(rules, 10_000, 1 << 20);
    let mut group = criterion.benchmark_group("classify");
    for (name, text) in [("pgbench", PGBENCH.trim_end()), ("begin", "BEGIN"), ("join", JOIN)] {
        let text = text.as_bytes();
        group.throughput(Throughput::Bytes(text.len() as u64));
        classifier.classify(&catalog, text);
        group.bench_with_input(BenchmarkId::new("hit", name), text, |bencher, text| {
            bencher.iter(|| classifier.lookup(&catalog, black_box(text)));
        });
        let other = Catalog::from_rows(2, [("function", "count")]);
        let miss = classifier.lookup(&other, text).expect_err("no verdict of this epoch yet");
        group.bench_with_input(BenchmarkId::new("miss", name), text, |bencher, text| {
            bencher.iter(|| classifier.judge(&other, black_box(text), miss));
        });
    }
    group.finish();
}

criterion_group!(benches, classify);
criterion_main!(benches);
