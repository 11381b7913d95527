//! A reset in the middle of a pipeline, whose transaction ends with its Sync.

use super::{PLACES, show, shuffle};
use crate::support::{RawClient, Site, told};

/// Sends statements as a pipeline with a Flush behind each, reads what comes, and ends it.
async fn pipeline(client: &mut RawClient, statements: &[&str]) -> String {
    for sql in statements {
        client.parse("", sql).bind("", "", &[]).execute("", 0).flush_message();
        client.flush().await;
        // Its answer, whatever it is, so that the reset is done before the next statement is sent.
        while !matches!(client.read_message().await.tag, b'C' | b'E') {}
    }
    client.sync().flush().await;
    told(&client.read_until_ready().await)
}

#[tokio::test]
async fn a_reset_in_a_pipeline_goes_back_to_what_the_session_started_with() {
    let site = Site::with_objects(PLACES, 2).await;
    let mut client =
        site.client_with(&[("options", "-c work_mem=11MB"), ("TimeZone", "America/New_York")]).await;
    let mut others = [site.client().await, site.client().await];
    for reset in ["RESET ALL", "RESET work_mem"] {
        for _ in 0..3 {
            client.ask("SET work_mem = '1MB'").await;
            // With the values that are reported, the server's own and then the session's.
            let told = pipeline(&mut client, &[reset]).await;
            assert_eq!(told.trim_start_matches('S'), "Z", "{reset}");
            assert_eq!(show(&mut client, "work_mem").await, "11MB", "{reset}");
            assert_eq!(show(&mut client, "timezone").await, "America/New_York", "{reset}");
            shuffle(&mut others).await;
            assert_eq!(show(&mut client, "work_mem").await, "11MB", "{reset}");
            assert_eq!(client.parameter("TimeZone"), Some("America/New_York"), "{reset}");
        }
    }
    // What is set behind it stays, and what fails resets nothing.
    pipeline(&mut client, &["RESET ALL", "SET work_mem = '2MB'"]).await;
    assert_eq!(show(&mut client, "work_mem").await, "2MB");
    assert_eq!(show(&mut client, "timezone").await, "America/New_York");
    pipeline(&mut client, &["RESET ALL", "SELECT 1 / 0"]).await;
    assert_eq!(show(&mut client, "work_mem").await, "2MB");
    // In a transaction that is rolled back it has not taken place.
    client.ask("BEGIN").await;
    pipeline(&mut client, &["RESET work_mem"]).await;
    client.ask("ROLLBACK").await;
    assert_eq!(show(&mut client, "work_mem").await, "2MB");
}

/// Nothing of such a session's texts is known, but that they reset.
#[tokio::test]
async fn a_session_with_old_strings_resets_to_what_it_started_with() {
    let site = Site::with_objects(PLACES, 2).await;
    let options = "-c standard_conforming_strings=off -c work_mem=11MB";
    let mut client = site.client_with(&[("options", options), ("client_encoding", "LATIN1")]).await;
    for in_pipeline in [false, true] {
        client.ask("SET work_mem = '1MB'; SET client_encoding = 'UTF8'").await;
        if in_pipeline {
            pipeline(&mut client, &["RESET ALL"]).await;
        } else {
            client.ask("RESET ALL").await;
        }
        assert_eq!(show(&mut client, "client_encoding").await, "LATIN1");
        assert_eq!(client.parameter("client_encoding"), Some("LATIN1"));
        assert_eq!(show(&mut client, "work_mem").await, "11MB");
        assert_eq!(show(&mut client, "standard_conforming_strings").await, "off");
    }
    // A literal that only looks as if a RESET came behind it.
    client.ask(r"SET work_mem = '1MB'").await;
    client.ask(r"SELECT 'a\'; RESET ALL; --'").await;
    assert_eq!(show(&mut client, "work_mem").await, "1MB");
}
