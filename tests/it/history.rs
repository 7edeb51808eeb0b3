//! `GET /v1/events` and what else tells of kept events.

use crate::support::{TestSidecar, WebSocketClient, eventually, numbers};
use serde_json::{Value, json};

fn page_numbers(page: &Value) -> Vec<u64> {
    numbers(page["events"].as_array().expect("events"))
}

/// Ten jobs on five channels: job `n` on `grid.{n % 5}`, every third failed, tagged with its team.
async fn with_jobs() -> TestSidecar {
    let sidecar = TestSidecar::start().await;
    for n in 0..10 {
        let event = if n % 3 == 0 { "failed" } else { "done" };
        let team = if n < 5 { "blue" } else { "red" };
        let body = json!({
            "channel": format!("grid.{}", n % 5), "event": event, "tags": {"team": team}, "data": {"n": n},
        });
        sidecar.publish(&body).await;
    }
    sidecar
}

#[tokio::test]
async fn events_are_found_by_channel_pattern_name_and_tag() {
    let sidecar = with_jobs().await;
    for (query, expected) in [
        ("channel=grid.2", &[2, 7][..]),
        ("channel=grid.2&channel=grid.4", &[2, 4, 7, 9]),
        ("channel=grid.2,grid.4", &[2, 4, 7, 9]),
        ("channel=grid.*", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("channel=%3E&event=failed", &[0, 3, 6, 9]),
        ("channel=grid.*&event=failed,done", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("channel=grid.*&tag.team=red", &[5, 6, 7, 8, 9]),
        ("channel=grid.*&tag.team=red&event=failed", &[6, 9]),
        ("channel=grid.*&tag.team=green", &[]),
        ("channel=nothing.here", &[]),
    ] {
        assert_eq!(page_numbers(&sidecar.events(&format!("{query}&order=asc")).await), expected, "{query}");
        let mut backwards = page_numbers(&sidecar.events(&format!("{query}&order=desc")).await);
        backwards.reverse();
        assert_eq!(backwards, expected, "{query} backwards");
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_cursor_and_by_offset_in_both_orders() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("paged", 0..25).await;
    for (order, expected) in
        [("asc", (0..25).collect::<Vec<_>>()), ("desc", (0..25).rev().collect::<Vec<_>>())]
    {
        let mut by_cursor = Vec::new();
        let mut position = String::new();
        loop {
            let page = sidecar.events(&format!("channel=paged&limit=10&order={order}{position}")).await;
            by_cursor.extend(page_numbers(&page));
            if page["more"] == false {
                break;
            }
            let parameter = if order == "asc" { "after" } else { "before" };
            let last = page["events"].as_array().expect("events").last().expect("not empty");
            position = format!("&{parameter}={}", last["cursor"].as_str().expect("cursor"));
        }
        assert_eq!(by_cursor, expected, "{order}");
        let mut by_offset = Vec::new();
        for offset in [0, 10, 20] {
            let page = sidecar.events(&format!("channel=paged&limit=10&offset={offset}&order={order}")).await;
            by_offset.extend(page_numbers(&page));
            assert_eq!(page["more"], offset < 20, "{order} {offset}");
        }
        assert_eq!(by_offset, expected, "{order}");
    }
}

#[tokio::test]
async fn after_and_before_are_exclusive_cursors() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..10).await;
    let all = sidecar.all_events("channel=a").await;
    let cursor = |n: usize| all[n]["cursor"].as_str().expect("cursor").to_owned();
    for (query, expected) in [
        (format!("after={}", cursor(6)), vec![7, 8, 9]),
        (format!("before={}", cursor(2)), vec![0, 1]),
        (format!("after={}&before={}", cursor(2), cursor(5)), vec![3, 4]),
        (format!("after={}", cursor(9)), vec![]),
    ] {
        assert_eq!(
            page_numbers(&sidecar.events(&format!("channel=a&order=asc&{query}")).await),
            expected,
            "{query}"
        );
    }
}

#[tokio::test]
async fn since_and_until_take_unix_ms_and_rfc_3339() {
    let sidecar = TestSidecar::start().await;
    let mut times = Vec::new();
    for n in 0..4 {
        sidecar.publish_numbers("timed", n..n + 1).await;
        let time = sidecar.last("timed").await.expect("kept")["time"].as_u64().expect("time");
        times.push(time);
        // The next one shall have a later time, to the millisecond.
        eventually("two milliseconds later", async || (unix_ms() > time + 1).then_some(())).await;
    }
    let rfc = |ms: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
        humantime::format_rfc3339_millis(time).to_string()
    };
    for (since, until) in [
        (times[1].to_string(), (times[2] + 1).to_string()),
        (rfc(times[1]), rfc(times[2] + 1)),
        (rfc(times[1]).replace('Z', "%2B00:00"), (times[2] + 1).to_string()),
    ] {
        let page = sidecar.events(&format!("channel=timed&order=asc&since={since}&until={until}")).await;
        // Whether the end itself is inside is not promised: no event has that time.
        let found = page_numbers(&page);
        assert_eq!(found, [1, 2], "since {since} until {until}");
    }
    let page = sidecar.events(&format!("channel=timed&order=asc&since={}", times[2])).await;
    assert_eq!(page_numbers(&page), [2, 3]);
    let page = sidecar.events("channel=timed&until=2020-01-01T00:00:00Z").await;
    assert_eq!(page_numbers(&page), [0; 0]);
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("64 bits last")
}

#[tokio::test]
async fn the_limit_is_100_unless_given_and_1000_at_most() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("many", 0..1_100).await;
    let page = sidecar.events("channel=many").await;
    assert_eq!((page_numbers(&page).len(), &page["more"]), (100, &json!(true)));
    let page = sidecar.events("channel=many&limit=1000").await;
    assert_eq!((page_numbers(&page).len(), &page["more"]), (1_000, &json!(true)));
    sidecar.app().get("/v1/events?channel=many&limit=1001").await.refusal(400);
    assert_eq!(sidecar.all_events("channel=many").await.len(), 1_100);
}

#[tokio::test]
async fn a_kept_event_says_all_that_a_live_one_says() {
    let sidecar = TestSidecar::start().await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    let body = json!({"channel": "a", "event": "e", "data": [1], "tags": {"k": "v"}, "id": "one"});
    sidecar.publish(&body).await;
    let live = client.next_event().await;
    let mut kept = sidecar.events("channel=a").await["events"][0].clone();
    kept["type"] = json!("event");
    assert_eq!(kept, live);
    let on_client_side = sidecar.client().get("/v1/events?channel=a").await.success();
    assert_eq!(on_client_side["events"][0]["id"], "one", "{on_client_side}");
}

#[tokio::test]
async fn the_newest_event_of_a_channel_is_one_request() {
    let sidecar = TestSidecar::start().await;
    assert_eq!(sidecar.app().get("/v1/channels/empty/last").await.refusal(404), "not_found");
    sidecar.publish_numbers("full", 0..3).await;
    assert_eq!(sidecar.last("full").await.expect("kept")["data"]["n"], 2);
    let on_client_side = sidecar.client().get("/v1/channels/full/last").await.success();
    assert_eq!(on_client_side["data"]["n"], 2);
}

#[tokio::test]
async fn live_channels_are_listed_with_their_subscribers() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut clients = Vec::new();
    for target in ["/v1/ws?channel=room.1", "/v1/ws?channel=room.1,room.2", "/v1/ws?channel=other"] {
        let mut client = WebSocketClient::open(&address, target).await;
        client.expect("subscribed").await;
        clients.push(client);
    }
    let answer = sidecar.app().get("/v1/channels?prefix=room.").await.success();
    let mut found: Vec<(&str, u64)> = answer["channels"]
        .as_array()
        .expect("channels")
        .iter()
        .map(|entry| {
            (entry["channel"].as_str().expect("channel"), entry["subscribers"].as_u64().expect("count"))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("room.1", 2), ("room.2", 1)], "{answer}");
}

#[tokio::test]
async fn delete_takes_away_what_is_older_on_the_channels_that_are_named() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("keep", 0..5).await;
    sidecar.publish_numbers("drop.a", 5..10).await;
    let last = sidecar.last("drop.a").await.expect("kept")["time"].as_u64().expect("time");
    eventually("the next millisecond", async || (unix_ms() > last).then_some(())).await;
    sidecar.publish_numbers("drop.a", 10..12).await;

    let answer =
        sidecar.app().delete(&format!("/v1/events?channel=drop.*&older_than={}", last + 1)).await.success();
    assert_eq!(answer["deleted"], 5, "{answer}");
    assert_eq!(numbers(&sidecar.all_events("channel=%3E").await), [0, 1, 2, 3, 4, 10, 11]);
    assert_eq!(sidecar.last("drop.a").await.expect("kept")["data"]["n"], 11);
    let again =
        sidecar.app().delete(&format!("/v1/events?channel=drop.*&older_than={}", last + 1)).await.success();
    assert_eq!(again["deleted"], 0, "{again}");
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_after_a_kill_and_its_readers_are_told() {
    let mut sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..10).await;
    let answer = sidecar.app().delete("/v1/events?channel=a&older_than=2100-01-01T00:00:00Z").await.success();
    assert_eq!(answer["deleted"], 10, "{answer}");
    sidecar.kill_and_start_again().await;
    assert!(sidecar.all_events("channel=a").await.is_empty());
    sidecar.publish_numbers("a", 10..11).await;
    let target = format!("/v1/poll?channel=a&timeout=0&cursor={begin}");
    let poll = sidecar.client().get(&target).await.success();
    assert_eq!((&poll["resume"], page_numbers(&poll)), (&json!("expired"), vec![10]), "never a silent gap");
}

#[tokio::test]
async fn delete_is_for_the_app_and_needs_a_time() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..1).await;
    let client_side = sidecar.client().delete("/v1/events?channel=a&older_than=2100-01-01T00:00:00Z").await;
    assert!(matches!(client_side.status(), 403..=405), "{}", client_side.text());
    sidecar.app().delete("/v1/events?channel=a&older_than=whenever").await.refusal(400);
    sidecar.app().delete("/v1/events").await.refusal(400);
    assert_eq!(sidecar.all_events("channel=a").await.len(), 1);
}

#[tokio::test]
async fn bad_queries_are_refused_with_the_parameter() {
    let sidecar = TestSidecar::start().await;
    let mut app = sidecar.app();
    for (query, field) in [
        ("channel=a%20b", "channel"),
        ("channel=a&limit=x", "limit"),
        ("channel=a&limit=-1", "limit"),
        ("channel=a&offset=x", "offset"),
        ("channel=a&since=yesterday", "since"),
        ("channel=a&until=2026-13-01T00:00:00Z", "until"),
        ("channel=a&order=random", "order"),
        ("channel=a&after=x", "after"),
        ("channel=a&before=x", "before"),
    ] {
        let answer = app.get(&format!("/v1/events?{query}")).await;
        answer.refusal(400);
        assert_eq!(answer.json()["field"], field, "{query}: {}", answer.text());
    }
}
