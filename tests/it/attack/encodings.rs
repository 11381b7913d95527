//! Values and texts that are not UTF-8, or not what they seem in another encoding.

use super::{
    hows::Exchange,
    side::{Heard, Side},
};
use crate::support::{Login, Random, RawClient, Site, error_code};

const SECRETS: &str = "CREATE TABLE secrets (tenant text, v text); \
    ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; GRANT SELECT ON secrets TO PUBLIC; \
    CREATE POLICY own ON secrets USING (tenant = current_setting('app.tenant', true));";

const ROUNDS: usize = 12;

/// A session that cannot be carried may be told that there is no place for it.
const FULL: &str = "53300";

async fn login(place: &Site, database: &str, encoding: &str) -> Side {
    let parameters = [("user", "app"), ("database", database), ("client_encoding", encoding)];
    Side::login(place.proxy.port(), &parameters).await
}

async fn say(side: &mut Side, text: &[u8]) -> Heard {
    side.exchange(&Exchange::query(text), &mut Random::new(0)).await
}

/// Whether a session is served at all.
async fn takes(side: &mut Side, text: &[u8]) -> bool {
    let heard = say(side, text).await;
    assert!(heard.codes.is_empty() || heard.codes == [FULL], "{heard:?}");
    heard.codes.is_empty()
}

/// Sixteen tenants with names that differ in one byte over 0x7F read what is theirs, each the number of its name.
async fn tenants_read_their_own(place: &Site, database: &str, encoding: &str, bound: bool) {
    // Somebody else has said the same in ASCII.
    let mut first = login(place, database, "UTF8").await;
    say(&mut first, b"SET app.tenant = 'ascii'").await;
    first.leave().await;
    let names: Vec<[u8; 4]> = (0xe0..0xf0).map(|byte| [b'c', b'a', b'f', byte]).collect();
    let mut tenants = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let parameters = [("user", "app"), ("database", database), ("client_encoding", encoding)];
        let Some(mut side) = Side::try_login(place.proxy.port(), &parameters).await else { continue };
        let set = if bound {
            let mut exchange = Exchange::default();
            exchange.parse(b"", b"SELECT length(set_config('app.tenant', $1, false))");
            exchange.bind(b"", &[name.to_vec()]).execute().sync();
            side.exchange(&exchange, &mut Random::new(0)).await
        } else {
            say(&mut side, &[b"SET app.tenant = '", &name[..], b"'"].concat()).await
        };
        assert!(set.codes.is_empty() || set.codes == [FULL], "{set:?}");
        if set.codes.is_empty() {
            tenants.push((number, side));
        }
    }
    let (mut wrong, mut served) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // All at once.
        for (_, side) in &mut tenants {
            let read = Exchange::query(b"SELECT v FROM secrets, pg_sleep(0.001)");
            side.send(&read).await;
        }
        for (number, side) in &mut tenants {
            let seen = side.hear(1).await.seen();
            served += u32::from(seen == [number.to_string()]);
            if seen != [number.to_string()] && seen != [FULL] {
                wrong.push(format!("round {round}: tenant {number} sees {seen:?}"));
            }
        }
    }
    let (count, all) = (wrong.len(), ROUNDS * names.len());
    assert!(served > 0, "nobody was served");
    assert!(wrong.is_empty(), "{count} of {all} reads were wrong, such as {:?}", wrong.first());
}

/// Three connections, for which nobody waits for long.
fn site() -> Site {
    Site::configured(|config| {
        config.pool("primary", &["primary"], 3).set("pools.primary", "wait_timeout", "1s")
    })
}

async fn latin_tenants(bound: bool) {
    let rows = (0..16).map(|n| format!("INSERT INTO secrets VALUES ('caf' || chr({}), '{n}');", 0xe0 + n));
    let place = site();
    place.primary.query(&(SECRETS.to_owned() + &rows.collect::<String>())).await;
    tenants_read_their_own(&place, "app", "LATIN1", bound).await;
}

#[tokio::test]
async fn tenants_with_latin_names_read_their_own() {
    latin_tenants(false).await;
}

#[tokio::test]
async fn tenants_with_bound_latin_names_read_their_own() {
    latin_tenants(true).await;
}

async fn ascii_tenants(bound: bool) {
    let place = site();
    place.primary.query("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' OWNER app").await;
    let mut admin = RawClient::login(place.primary.port(), Login::Admin, "ascii").await;
    assert_eq!(error_code(&admin.ask(SECRETS).await), None);
    for number in 0..16_u8 {
        let rest = format!("', '{number}')\0");
        let insert = [b"INSERT INTO secrets VALUES ('caf", &[0xe0 + number][..], rest.as_bytes()].concat();
        admin.message(b'Q', &insert).flush().await;
        assert_eq!(error_code(&admin.read_until_ready().await), None);
    }
    tenants_read_their_own(&place, "ascii", "SQL_ASCII", bound).await;
}

#[tokio::test]
async fn tenants_of_an_ascii_database_read_their_own() {
    ascii_tenants(false).await;
}

#[tokio::test]
async fn bound_tenants_of_an_ascii_database_read_their_own() {
    ascii_tenants(true).await;
}

/// A value stays the same characters, whatever encoding the session has that the connection comes from, or changes to.
#[tokio::test]
async fn values_are_the_same_characters_on_every_connection() {
    let place = site();
    let set: [(&str, &[u8]); 3] = [
        ("UTF8", b"SET app.name = 'zo\xc3\xab'"),
        ("LATIN1", b"SET app.name = 'zo\xeb'"),
        ("LATIN9", b"SELECT set_config('app.name', 'zo\xeb', false)"),
    ];
    let hex = b"SELECT encode(convert_to(current_setting('app.name'), 'UTF8'), 'hex'), pg_sleep(0.001)";
    let mut sides = Vec::new();
    // Somebody else has said the same in ASCII.
    for text in [&b"SET app.name = 'ascii'"[..], b"SELECT set_config('app.name', 'ascii', false)"] {
        let mut first = login(&place, "app", "UTF8").await;
        say(&mut first, text).await;
        first.leave().await;
    }
    for (encoding, text) in set {
        for _ in 0..2 {
            let parameters = [("user", "app"), ("database", "app"), ("client_encoding", encoding)];
            let Some(mut side) = Side::try_login(place.proxy.port(), &parameters).await else { continue };
            if takes(&mut side, text).await {
                sides.push((encoding, side));
            }
        }
    }
    // Two that change their encoding afterwards.
    for (first, then) in [("UTF8", "LATIN1"), ("LATIN1", "UTF8")] {
        let parameters = [("user", "app"), ("database", "app"), ("client_encoding", first)];
        let Some(mut side) = Side::try_login(place.proxy.port(), &parameters).await else { continue };
        let at = usize::from(first == "LATIN1");
        let change = format!("SET client_encoding = {then}");
        if takes(&mut side, set[at].1).await && takes(&mut side, change.as_bytes()).await {
            sides.push((then, side));
        }
    }
    assert!(!sides.is_empty(), "nobody was served");
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        for (_, side) in &mut sides {
            side.send(&Exchange::query(hex)).await;
        }
        for (encoding, side) in &mut sides {
            let seen = side.hear(1).await.seen();
            if seen.first().is_none_or(|hex| hex != "7a6fc3ab" && hex != FULL) {
                wrong.push(format!("round {round}, {encoding}: {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} looks were wrong, such as {:?}", wrong.len(), wrong.first());
}

/// Two texts whose bytes over 0x7F differ are two texts.
#[tokio::test]
async fn a_text_is_judged_by_its_own_bytes() {
    let objects = format!(
        "{SECRETS} INSERT INTO secrets VALUES ('t3', 'secret'); GRANT ALL ON SCHEMA public TO PUBLIC; \
         CREATE VIEW \"v\u{e9}\" AS SELECT 'harmless'::text AS x; \
         CREATE VIEW \"v\u{e8}\" AS SELECT set_config('app.tenant', 't3', false) AS x; \
         CREATE FUNCTION \"f\u{e9}\"() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'x'::text $$; \
         CREATE FUNCTION \"f\u{e8}\"() RETURNS text VOLATILE LANGUAGE plpgsql AS $$ BEGIN \
             RETURN set_config('app.tenant', 't3', false); END $$; GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"
    );
    let place = Site::with_objects(&objects, 2).await;
    let mut victims = [login(&place, "app", "LATIN1").await, login(&place, "app", "UTF8").await];
    let texts: [(&[u8], &[u8]); 4] = [
        (b"SELECT \"f\xe9\"()", b"SELECT \"f\xe8\"()"),
        (b"SELECT x FROM \"v\xe9\"", b"SELECT x FROM \"v\xe8\""),
        (
            b"SELECT '\xe9', 'x' AS \"set\xe9\"",
            b"SELECT '\xe8', set_config('app.tenant', 't3', false) AS \"set\xe8\"",
        ),
        (b"SET app.\"x\" = '\xe9'", b"SET app.tenant = 't3\xe8'"),
    ];
    let mut wrong = Vec::new();
    for (harmless, harmful) in texts {
        let mut attacker = login(&place, "app", "LATIN1").await;
        for _ in 0..3 {
            assert_eq!(say(&mut attacker, harmless).await.codes, [""; 0]);
        }
        assert_eq!(say(&mut attacker, harmful).await.codes, [""; 0]);
        for victim in &mut victims {
            victim
                .send(&Exchange::query(b"SELECT current_setting('app.tenant', true), pg_sleep(0.002)"))
                .await;
        }
        for victim in &mut victims {
            let seen = victim.hear(1).await.seen();
            if seen.first().is_none_or(|tenant| !tenant.is_empty()) {
                wrong.push(format!("{}: {seen:?}", harmful.escape_ascii()));
            }
        }
        attacker.leave().await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
