//! DISCARD ALL and DEALLOCATE ALL take effect when they are executed, not when they are parsed, and for their own session
//! only.

use crate::support::{Login, RawClient, Site, told, values};

const KILLS: [&str; 2] = ["DISCARD ALL", "DEALLOCATE ALL"];

/// A conversation of three sessions with statements of their own and one that prepares what deallocates all.
async fn conversation(login: impl AsyncFn() -> RawClient) -> Vec<String> {
    let mut said = Vec::new();
    let mut owners = [login().await, login().await, login().await];
    for owner in &mut owners {
        owner.parse("mine", "SELECT 46, $1::int").parse("own", "SELECT 1");
        said.push(told(&owner.finish().await));
    }
    for kill in KILLS {
        let mut killer = login().await;
        killer.parse("kill", kill).describe(b'S', "kill");
        said.push(told(&killer.finish().await));
        killer.parse("after", "SELECT 9");
        said.push(told(&killer.finish().await));
        use_all(&mut owners, &mut said).await;
        for turn in 0..3 {
            if turn > 0 {
                killer.parse("kill", kill);
            }
            killer.bind("", "kill", &[]).execute("", 0);
            said.push(format!("{kill} {turn} {}", told(&killer.finish().await)));
        }
        use_all(&mut owners, &mut said).await;
        // In a pipeline whose error comes before, or behind.
        killer.parse("kept", "SELECT 5");
        said.push(told(&killer.finish().await));
        killer.parse("", "SELECT 1 / 0").bind("", "", &[]).execute("", 0);
        killer.parse("kill", kill).bind("", "kill", &[]).execute("", 0);
        said.push(told(&killer.finish().await));
        killer.bind("", "kept", &[]).execute("", 0);
        said.push(format!("{kill}, kept {}", told(&killer.finish().await)));
        killer.parse("", kill).bind("", "", &[]);
        said.push(told(&killer.finish().await));
        killer.bind("", "kept", &[]).execute("", 0);
        said.push(format!("{kill}, kept {}", told(&killer.finish().await)));
        killer.terminate().await;
        let mut next = login().await;
        next.parse("n", "SELECT 46, $1::int").bind("", "n", &[Some("3")]).execute("", 0);
        said.push(told(&next.finish().await));
        next.parse("kill", kill).bind("", "kill", &[]).execute("", 0);
        said.push(told(&next.finish().await));
        next.terminate().await;
        for owner in &mut owners {
            owner.close(b'S', "mine").close(b'S', "own");
            said.push(told(&owner.finish().await));
            owner.parse("mine", "SELECT 46, $1::int").parse("own", "SELECT 1");
            said.push(told(&owner.finish().await));
        }
    }
    said
}

async fn use_all(owners: &mut [RawClient], said: &mut Vec<String>) {
    for owner in owners {
        owner.bind("", "mine", &[Some("2")]).execute("", 0).bind("", "own", &[]).execute("", 0);
        said.push(told(&owner.finish().await));
    }
}

#[tokio::test]
async fn what_is_parsed_is_not_executed() {
    let site = Site::start();
    let direct =
        conversation(async || RawClient::login(site.primary.port(), Login::App, "app_two").await).await;
    let proxied = conversation(async || site.client().await).await;
    for (at, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
        assert_eq!(direct, proxied, "answer {at}");
    }
    assert_eq!(direct.len(), proxied.len());
}

/// As psycopg does: what is run often is prepared, a pool's DISCARD ALL too.
#[tokio::test]
async fn a_prepared_discard_all_can_be_run_again_and_again() {
    let site = Site::start();
    let mut client = site.client().await;
    let mut wrong = Vec::new();
    for round in 0..12 {
        let number = round.to_string();
        let reset = if round % 6 == 5 { "_pg3_1" } else { "" };
        client.parse("_pg3_0", "SELECT $1::int").bind("", "_pg3_0", &[Some(&number)]).execute("", 0);
        let answer = client.finish().await;
        if values(&answer) != [number] {
            wrong.push(format!("round {round}: {}", told(&answer)));
        }
        client.parse(reset, "DISCARD ALL").describe(b'S', reset);
        let parsed = told(&client.finish().await);
        client.bind("", reset, &[]).execute("", 0);
        let executed = told(&client.finish().await);
        if parsed.contains(' ') || executed.contains(' ') {
            wrong.push(format!("round {round}: DISCARD ALL {parsed} {executed}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
