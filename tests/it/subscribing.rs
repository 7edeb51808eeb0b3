//! What every transport must agree on.

use crate::support::{Subscription, TestSidecar, Transport};
use serde_json::json;

/// Runs a check on each transport, against one node.
async fn on_every_transport(config: &str, check: impl AsyncFn(&TestSidecar, Transport)) {
    let sidecar = TestSidecar::with_config(config).await;
    for transport in Transport::ALL {
        eprintln!("on {transport:?}");
        check(&sidecar, transport).await;
    }
}

async fn open(
    sidecar: &TestSidecar,
    transport: Transport,
    query: &str,
    cursor: Option<&str>,
) -> Subscription {
    Subscription::open(transport, &sidecar.whereabouts().client(), query, cursor).await
}

#[tokio::test]
async fn patterns_take_whole_tokens() {
    on_every_transport("", async |sidecar, transport| {
        let cursor = sidecar.cursor_now().await;
        for (n, channel) in
            ["cron", "cron.a", "cron.a.b", "cron.a.b.c", "cronos.a", "other"].iter().enumerate()
        {
            sidecar.publish_numbers(channel, n as u64..n as u64 + 1).await;
        }
        for (pattern, expected) in [
            ("cron.*", &[1][..]),
            ("cron.>", &[1, 2, 3]),
            ("cron.*.b", &[2]),
            ("*", &[0, 5]),
            ("*.a", &[1, 4]),
            (">", &[0, 1, 2, 3, 4, 5]),
            ("cron,cron.a.>", &[0, 2, 3]),
        ] {
            let pattern_in_url = pattern.replace('>', "%3E");
            let mut found =
                open(sidecar, transport, &format!("channel={pattern_in_url}"), Some(&cursor)).await;
            assert_eq!(found.numbers(expected.len()).await, expected, "{pattern}");
            assert_eq!(found.resume(), "ok", "{pattern}");
        }
    })
    .await;
}

#[tokio::test]
async fn filters_take_any_of_the_events_and_all_of_the_tags() {
    on_every_transport("", async |sidecar, transport| {
        let cursor = sidecar.cursor_now().await;
        for (n, event, tags) in [
            (0, "done", json!({"team": "blue", "size": "s"})),
            (1, "done", json!({"team": "red"})),
            (2, "step", json!({"team": "blue"})),
            (3, "failed", json!({"team": "blue", "size": "l"})),
            (4, "done", json!({})),
        ] {
            sidecar
                .publish(&json!({"channel": "jobs", "event": event, "tags": tags, "data": {"n": n}}))
                .await;
        }
        for (filter, expected) in [
            ("event=done", &[0, 1, 4][..]),
            ("event=done,failed", &[0, 1, 3, 4]),
            ("event=done&event=failed", &[0, 1, 3, 4]),
            ("tag.team=blue", &[0, 2, 3]),
            ("event=done,failed&tag.team=blue", &[0, 3]),
            ("tag.team=blue&tag.size=l", &[3]),
        ] {
            let mut found = open(sidecar, transport, &format!("channel=jobs&{filter}"), Some(&cursor)).await;
            assert_eq!(found.numbers(expected.len()).await, expected, "{filter}");
        }
    })
    .await;
}

#[tokio::test]
async fn history_gives_the_last_n_over_all_channels_in_order_before_going_live() {
    on_every_transport("", async |sidecar, transport| {
        let name = format!("{transport:?}");
        for n in 0..10 {
            sidecar.publish_numbers(&format!("{name}.{}", n % 3), n..n + 1).await;
        }
        let mut found = open(sidecar, transport, &format!("channel={name}.*&history=4"), None).await;
        assert_eq!(found.numbers(4).await, [6, 7, 8, 9]);
        sidecar.publish_numbers(&format!("{name}.0"), 10..11).await;
        assert_eq!(found.numbers(1).await, [10]);
    })
    .await;
}

#[tokio::test]
async fn last_gives_the_newest_event_of_each_channel_first() {
    on_every_transport("", async |sidecar, transport| {
        let name = format!("{transport:?}");
        for n in 0..9 {
            sidecar.publish_numbers(&format!("{name}.{}", n % 3), n..n + 1).await;
        }
        let mut found = open(sidecar, transport, &format!("channel={name}.*&last=1"), None).await;
        assert_eq!(found.numbers(3).await, [6, 7, 8]);
        sidecar.publish_numbers(&format!("{name}.1"), 9..10).await;
        assert_eq!(found.numbers(1).await, [9]);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_serves_any_set_of_channels_on_any_transport() {
    on_every_transport("", async |sidecar, transport| {
        let name = format!("{transport:?}");
        for n in 0..6 {
            sidecar.publish_numbers(&format!("{name}.{}", n % 2), n..n + 1).await;
        }
        let page = sidecar.events(&format!("channel={name}.0&order=asc&limit=2")).await;
        let cursor = page["cursor"].as_str().expect("cursor");
        // It was given for one channel, by a history query; it says "everything up to event 2".
        let mut found = open(sidecar, transport, &format!("channel={name}.1"), Some(cursor)).await;
        assert_eq!(found.numbers(2).await, [3, 5]);
    })
    .await;
}

#[tokio::test]
async fn without_a_cursor_it_starts_now() {
    on_every_transport("", async |sidecar, transport| {
        let name = format!("{transport:?}");
        sidecar.publish_numbers(&name, 0..5).await;
        let mut found = open(sidecar, transport, &format!("channel={name}"), None).await;
        let waiting = tokio::spawn(async move {
            let numbers = found.numbers(1).await;
            (numbers, found)
        });
        sidecar.wait_for_subscribers(&name, 1).await;
        sidecar.publish_numbers(&name, 5..6).await;
        let (numbers, found) = waiting.await.expect("delivered");
        assert_eq!(numbers, [5]);
        assert!(matches!(found.resume(), "none" | "nothing yet"), "{}", found.resume());
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_a_lost_log_is_a_reset_and_one_that_is_none_is_refused() {
    let other = TestSidecar::start().await;
    other.publish_numbers("a", 0..100).await;
    let foreign = other.last("a").await.expect("kept")["cursor"].as_str().expect("cursor").to_owned();
    on_every_transport("", async |sidecar, transport| {
        let name = format!("{transport:?}");
        sidecar.publish_numbers(&name, 0..3).await;
        let mut found = open(sidecar, transport, &format!("channel={name}"), Some(&foreign)).await;
        let waiting = tokio::spawn(async move {
            let numbers = found.numbers(1).await;
            (numbers, found)
        });
        sidecar.wait_for_subscribers(&name, 1).await;
        sidecar.publish_numbers(&name, 3..4).await;
        let (numbers, found) = waiting.await.expect("delivered");
        assert_eq!(numbers, [3], "a reset starts now");
        assert_eq!(found.resume(), "reset");

        for bad in ["x", "-1", "18446744073709551616", &"A".repeat(500), "%FF%FE"] {
            let target = format!("{}?channel=a&cursor={bad}", transport.path());
            let refused = match transport {
                Transport::WebSocket | Transport::WebSocketMessagePack => {
                    let address = sidecar.whereabouts().client();
                    let request = crate::support::upgrade_request(&address, &target, "");
                    let mut connection = crate::support::Connection::open(&address).await.expect("connected");
                    connection.write(&request).await.expect("written");
                    crate::support::within("an answer", connection.read_response()).await.expect("answered")
                }
                _ => sidecar.client().get(&target).await,
            };
            assert_eq!(refused.refusal(400), "invalid_cursor", "{bad}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_number_of_subscriptions_on_a_connection_is_bounded() {
    on_every_transport("[limits]\nsubscriptions = 10\n", async |sidecar, transport| {
        let many: Vec<String> = (0..11).map(|n| format!("c{n}")).collect();
        let address = sidecar.whereabouts().client();
        let lost =
            Subscription::try_open(transport, &address, &format!("channel={}", many.join(",")), None).await;
        match lost {
            Err(_) => {}
            // A poll is first asked when something is wanted of it.
            Ok(mut subscription) => assert!(subscription.try_next().await.is_err(), "{transport:?}"),
        }
        open(sidecar, transport, &format!("channel={}", many[..10].join(",")), None).await;
    })
    .await;
}
