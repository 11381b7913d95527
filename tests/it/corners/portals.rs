//! Portals: row limits, how long they live, and names that are unknown or taken.

use super::talk::Pair;

const ALL: &str = "SELECT a, b FROM t ORDER BY a";

#[tokio::test]
async fn portals_live_as_long_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("row limits over Flush and Sync", async |talk| {
        talk.ask("BEGIN").await;
        talk.client.parse("s", ALL).bind("p", "s", &[]).describe(b'P', "p").execute("p", 3).flush_message();
        talk.hear_to(b's').await;
        talk.client.execute("p", 2).flush_message();
        talk.hear_to(b's').await;
        talk.client.execute("p", 2).sync();
        talk.exchange(1).await;
        talk.client.describe(b'P', "p").execute("p", 1).execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.execute("p", 3).sync();
        talk.exchange(1).await;
        talk.client.execute("p", 3).sync();
        talk.exchange(1).await;
        talk.ask("ROLLBACK").await;
    })
    .await;
    site.same("two portals of one statement, and its end", async |talk| {
        talk.client.parse("s", ALL).sync();
        talk.exchange(1).await;
        talk.ask("BEGIN").await;
        talk.client.bind("p", "s", &[]).bind("q", "s", &[]).execute("p", 1).execute("q", 2).sync();
        talk.exchange(1).await;
        talk.client.close(b'S', "s").execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.execute("q", 1).describe(b'P', "q").sync();
        talk.exchange(1).await;
        talk.client.bind("r", "s", &[]).sync();
        talk.exchange(1).await;
        talk.ask("COMMIT").await;
        talk.client.bind("", "s", &[]).sync();
        talk.exchange(1).await;
    })
    .await;
    for end in ["COMMIT", "ROLLBACK"] {
        site.same("a portal ends with its transaction", async |talk| {
            talk.ask("BEGIN").await;
            talk.client.parse("", ALL).bind("p", "", &[]).execute("p", 1).sync();
            talk.exchange(1).await;
            talk.ask(end).await;
            talk.client.execute("p", 1).sync();
            talk.exchange(1).await;
            talk.client.describe(b'P', "p").sync();
            talk.exchange(1).await;
            // Within one request, too.
            talk.ask("BEGIN").await;
            talk.client.parse("s", ALL).bind("p", "s", &[]).execute("p", 1);
            talk.client.parse("", end).bind("", "", &[]).execute("", 0).execute("p", 1).sync();
            talk.exchange(1).await;
        })
        .await;
    }
    site.same("a portal outside of a transaction ends with its Sync", async |talk| {
        talk.client.parse("s", ALL).bind("p", "s", &[]).execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.bind("p", "s", &[]).execute("p", 1).flush_message();
        talk.hear_to(b's').await;
        talk.client.execute("p", 2).flush_message();
        talk.hear_to(b's').await;
        talk.client.sync();
        talk.exchange(1).await;
        talk.client.close(b'P', "p").execute("p", 2).sync();
        talk.exchange(1).await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn other_statements_end_and_keep_portals_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("the unnamed portal", async |talk| {
        talk.ask("BEGIN").await;
        talk.client.parse("", ALL).bind("", "", &[]).execute("", 2).sync();
        talk.exchange(1).await;
        talk.client.execute("", 2).sync();
        talk.exchange(1).await;
        talk.client.bind("", "", &[]).execute("", 1).sync();
        talk.exchange(1).await;
        talk.client.close(b'P', "").sync();
        talk.exchange(1).await;
        talk.client.execute("", 1).sync();
        talk.exchange(1).await;
        talk.ask("ROLLBACK").await;
        // A Query ends it.
        talk.ask("BEGIN").await;
        talk.client.parse("", ALL).bind("", "", &[]).execute("", 2).sync();
        talk.exchange(1).await;
        talk.ask("SELECT 'in between'").await;
        talk.client.execute("", 2).sync();
        talk.exchange(1).await;
        talk.ask("COMMIT").await;
    })
    .await;
    site.same("savepoints", async |talk| {
        talk.ask("BEGIN").await;
        talk.client.parse("s", ALL).bind("p", "s", &[]).execute("p", 1).sync();
        talk.exchange(1).await;
        talk.ask("SAVEPOINT x").await;
        talk.client.bind("q", "s", &[]).execute("q", 1).sync();
        talk.exchange(1).await;
        talk.ask("SELECT 1/0").await;
        talk.client.execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.bind("r", "s", &[]).sync();
        talk.exchange(1).await;
        talk.client.describe(b'S', "s").sync();
        talk.exchange(1).await;
        talk.ask("ROLLBACK TO x").await;
        talk.client.execute("p", 1).sync();
        talk.exchange(1).await;
        talk.client.execute("q", 1).sync();
        talk.exchange(1).await;
        talk.ask("COMMIT").await;
    })
    .await;
    site.same("cursors of SQL are portals", async |talk| {
        talk.ask("BEGIN; DECLARE c CURSOR FOR SELECT a FROM t ORDER BY a").await;
        talk.client.describe(b'P', "c").execute("c", 2).sync();
        talk.exchange(1).await;
        talk.ask("FETCH 2 FROM c").await;
        talk.client.parse("", ALL).bind("p", "", &[]).execute("p", 1).sync();
        talk.exchange(1).await;
        talk.ask("FETCH 2 FROM p").await;
        talk.run("FETCH 1 FROM c").await;
        talk.client.close(b'P', "c").sync();
        talk.exchange(1).await;
        talk.ask("CLOSE p").await;
        talk.ask("FETCH 1 FROM c").await;
        talk.ask("COMMIT").await;
        talk.ask("FETCH 1 FROM p").await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn names_are_known_and_taken_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("unknown names", async |talk| {
        for begin in ["", "BEGIN"] {
            talk.client.bind("", "nobody", &[]).execute("", 0).sync();
            talk.ask(begin).await;
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            talk.ask(begin).await;
            talk.client.describe(b'S', "nobody").sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            talk.ask(begin).await;
            talk.client.describe(b'P', "nobody").sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            talk.ask(begin).await;
            talk.client.execute("nobody", 0).sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            talk.ask(begin).await;
            talk.client.close(b'S', "nobody").close(b'P', "nobody").sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            talk.client.close(b'S', "").describe(b'S', "").sync();
            talk.exchange(1).await;
            talk.client.bind("", "", &[]).execute("", 0).sync();
            talk.exchange(1).await;
            talk.client.execute("", 0).sync();
            talk.exchange(1).await;
            talk.client.describe(b'P', "").sync();
            talk.exchange(1).await;
        }
    })
    .await;
    site.same("a Close that an error skips", async |talk| {
        for name in ["", "s"] {
            talk.client.parse(name, "SELECT $1::int").sync();
            talk.exchange(1).await;
            talk.client.bind("", name, &[Some("1")]).execute("gone", 0).close(b'S', name).sync();
            talk.exchange(1).await;
            talk.client.bind("", name, &[Some("2")]).execute("", 0).sync();
            talk.exchange(1).await;
            talk.client.close(b'S', name).bind("", name, &[Some("3")]).close(b'S', name).sync();
            talk.exchange(1).await;
            talk.client.bind("", name, &[Some("4")]).execute("", 0).sync();
            talk.exchange(1).await;
        }
    })
    .await;
    site.same("taken names", async |talk| {
        talk.client.parse("s", ALL).parse("s", "SELECT 2").bind("", "s", &[]).sync();
        talk.exchange(1).await;
        talk.client.bind("", "s", &[]).execute("", 1).sync();
        talk.exchange(1).await;
        talk.client.parse("s", ALL).sync();
        talk.exchange(1).await;
        talk.client.parse("s", ALL).sync();
        talk.exchange(1).await;
        talk.client.close(b'S', "s").parse("s", "SELECT 3").bind("", "s", &[]).execute("", 0).sync();
        talk.exchange(1).await;
        talk.ask("BEGIN").await;
        talk.client.bind("p", "s", &[]).bind("p", "s", &[]).sync();
        talk.exchange(1).await;
        talk.ask("ROLLBACK").await;
        talk.ask("BEGIN").await;
        talk.client.bind("p", "s", &[]).sync();
        talk.exchange(1).await;
        talk.client.bind("p", "s", &[]).execute("p", 0).sync();
        talk.exchange(1).await;
        talk.ask("ROLLBACK").await;
        talk.client.bind("p", "s", &[]).close(b'P', "p").bind("p", "s", &[]).execute("p", 0).sync();
        talk.exchange(1).await;
        talk.client.bind("", "s", &[]).bind("", "s", &[]).execute("", 0).execute("", 0).sync();
        talk.exchange(1).await;
    })
    .await;
    site.finish().await;
}

#[tokio::test]
async fn limits_and_values_are_taken_as_on_the_server() {
    let mut site = Pair::start().await;
    site.same("limits of what is no list of rows", async |talk| {
        talk.client.parse("", "INSERT INTO t SELECT n FROM generate_series(20, 25) n RETURNING a");
        talk.client.bind("", "", &[]).execute("", 2).execute("", 2).execute("", 0).sync();
        talk.exchange(1).await;
        talk.client.parse("", "INSERT INTO t VALUES (30), (31)").bind("", "", &[]).execute("", 1).sync();
        talk.exchange(1).await;
        talk.client
            .parse("", "SHOW server_version")
            .bind("p", "", &[])
            .execute("p", 1)
            .execute("p", 1)
            .sync();
        talk.exchange(1).await;
        talk.client.parse("", "EXPLAIN (COSTS OFF) SELECT a FROM t ORDER BY b").bind("", "", &[]);
        talk.client.execute("", 1).execute("", 1).execute("", 0).sync();
        talk.exchange(1).await;
        talk.client.parse("", "INSERT INTO t VALUES (40)").bind("p", "", &[]).execute("p", 0).execute("p", 0);
        talk.client.sync();
        talk.exchange(1).await;
        talk.client.parse("", ALL).bind("", "", &[]).execute("", -1).sync();
        talk.exchange(1).await;
        talk.ask("SELECT count(*) FROM t").await;
    })
    .await;
    site.same("what a Bind can get wrong", async |talk| {
        talk.client.parse("s", "SELECT $1::int, b FROM t WHERE a = $2").describe(b'S', "s").sync();
        talk.exchange(1).await;
        for values in [&[][..], &[Some("1")], &[Some("1"), Some("x")], &[Some("1"), Some("2"), Some("3")]] {
            talk.client.bind("", "s", values).describe(b'P', "").execute("", 0).sync();
            talk.exchange(1).await;
        }
        talk.client.bind("", "s", &[None, Some("2")]).describe(b'P', "").execute("", 0).sync();
        talk.exchange(1).await;
        // Two formats of results for two columns, three for two, and binary values that are too short.
        for tail in [&b"\0\x02\0\x01\0\0"[..], b"\0\x03\0\0\0\0\0\0", b"\0\x01\0\x07"] {
            let body = [&b"\0s\0\0\0\0\x02\0\0\0\x015\0\0\0\x016"[..], tail].concat();
            talk.client.message(b'B', &body).describe(b'P', "").execute("", 0).sync();
            talk.exchange(1).await;
        }
        talk.client.message(b'B', b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x015\0\0\0\x016\0\0").execute("", 0).sync();
        talk.exchange(1).await;
    })
    .await;
    site.finish().await;
}
