//! Channels of which only the newest event counts: what comes faster than their `rate` is conflated, and what was
//! answered `published` is there.

use crate::support::{Setup, TestSidecar, Tokens, WebSocketClient, random_seed};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const RULE: &str = "[[channels]]\npattern = \"cursor.>\"\nrate = \"10/s\"\nwhen_over = \"latest\"\n";

async fn publish(sidecar: &TestSidecar, channel: &str, number: u64, query: &str) -> (u16, Value) {
    let body = json!({"channel": channel, "id": format!("id-{number}"), "data": number});
    let answer = sidecar.app().post_json(&format!("/v1/publish{query}"), &body).await;
    (answer.status(), answer.json())
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn what_comes_too_fast_is_answered_and_the_newest_goes_out() {
    let sidecar = TestSidecar::with_config(RULE).await;
    let (_, first) = publish(&sidecar, "cursor.a", 0, "").await;
    assert_eq!(first["status"], "published");
    // One after the other, so that each waits in the place of the one before. This is the pace of a load, not an order
    // to rely on: a busy machine may change it.
    let waiting: Vec<_> = (1..=5)
        .map(|number| {
            let address = sidecar.whereabouts().app();
            let body = json!({"channel": "cursor.a", "id": format!("id-{number}"), "data": number});
            async move {
                tokio::time::sleep(Duration::from_millis(5 * number)).await;
                let mut client = crate::support::HttpClient::new(address);
                (Instant::now(), client.post_json("/v1/publish", &body).await.success(), Instant::now())
            }
        })
        .collect();
    let answers = join_all(waiting).await;
    for (number, (_, answer, _)) in (1..).zip(&answers) {
        let status = answer["status"].as_str().expect("a status");
        assert!(["published", "conflated"].contains(&status), "{answer}");
        assert_eq!(answer.get("cursor").is_some(), status == "published", "{answer}");
        assert_eq!(answer["id"], format!("id-{number}"));
    }
    let events = sidecar.all_events("channel=cursor.%3E").await;
    let newest = *numbers(&events).last().expect("events");
    let (asked, answer, answered) = &answers[newest as usize - 1];
    assert_eq!(answer["status"], "published");
    assert!(answered.duration_since(*asked) < Duration::from_secs(5));
    let kept: Vec<_> = answers.iter().filter(|(_, answer, _)| answer["status"] == "published").collect();
    assert_eq!(events.len(), kept.len() + 1, "what was conflated is nowhere: {events:?}");
    let times: Vec<u64> = events.iter().map(|event| event["time"].as_u64().expect("a time")).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");

    // What was sent, or replaced, before is no news.
    assert_eq!(publish(&sidecar, "cursor.a", newest, "").await.1["status"], "duplicate");
    assert_eq!(publish(&sidecar, "cursor.a", 0, "").await.1["status"], "duplicate");
    if let Some(place) = answers.iter().position(|(_, answer, _)| answer["status"] == "conflated") {
        let again = publish(&sidecar, "cursor.a", place as u64 + 1, "").await;
        assert_eq!((again.0, &again.1["status"]), (200, &json!("conflated")));
    }
    // A channel without the rule, and another one with it, do not wait.
    for channel in ["other", "cursor.b"] {
        let body = json!({"channel": channel, "data": 1});
        assert_eq!(sidecar.app().post_json("/v1/publish", &body).await.success()["status"], "published");
    }
    let metrics = sidecar.metrics().await;
    let conflated = answers.iter().filter(|(_, answer, _)| answer["status"] == "conflated").count();
    assert_eq!(metrics.sum("sidewire_conflated_events_total", &[]), conflated as f64);
    assert_eq!(metrics.sum("sidewire_held_events", &[]), 0.);
}

#[tokio::test]
async fn a_batch_is_answered_entry_by_entry() {
    let sidecar = TestSidecar::with_config(RULE).await;
    let batch: Vec<_> = (0..4).map(|number| json!({"channel": "cursor.a", "data": number})).collect();
    let mut batch: Vec<Value> = batch;
    batch.insert(2, json!({"channel": "other", "data": 9}));
    let answer = sidecar.app().post_json("/v1/publish", &json!(batch)).await.success();
    let words: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|one| &one["status"]).collect();
    assert_eq!(words, ["published", "conflated", "published", "conflated", "published"]);
    assert_eq!(numbers(&sidecar.all_events("channel=cursor.a").await), [0, 3]);

    let unawaited = sidecar.app().post_json("/v1/publish?ack=none", &json!(batch)).await.success();
    for entry in unawaited["results"].as_array().expect("results") {
        let status = entry["status"].as_str().expect("a status");
        assert!(["published", "queued"].contains(&status), "{entry}");
    }
    let events = sidecar.wait_for_events("channel=other", 2).await;
    assert_eq!(numbers(&events), [9, 9]);
    crate::support::eventually("the newest of what was not awaited", async || {
        (numbers(&sidecar.all_events("channel=cursor.a").await).last() == Some(&3)
            && sidecar.metrics().await.sum("sidewire_held_events", &[]) == 0.)
            .then_some(())
    })
    .await;
}

/// Somebody moves the mouse, 60 times a second; who looks on gets ten of these a second, and where it stopped.
#[tokio::test]
async fn the_cursor_of_an_editor_is_where_it_stopped() {
    let mut tokens = Tokens::new();
    let sidecar = TestSidecar::with_config(&format!("{}{RULE}", Tokens::config())).await;
    let address = sidecar.whereabouts().client();
    let token = tokens.user("ann", &json!({"cursor.*": ["sub", "pub"], "chat": ["sub", "pub"]}));
    let mut reader = WebSocketClient::open(&address, &format!("/v1/ws?channel=cursor.1&token={token}")).await;
    reader.expect("subscribed").await;
    let mut sender = WebSocketClient::open(&address, &format!("/v1/ws?token={token}")).await;
    const MOVES: u64 = 90;
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(16));
    for number in 0..MOVES {
        ticks.tick().await;
        let place = json!({"type": "publish", "id": number, "channel": "cursor.1", "data": number});
        sender.send(&place).await;
    }
    // What is said elsewhere does not wait behind the moves.
    sender.send(&json!({"type": "publish", "id": "said", "channel": "chat", "data": "hi"})).await;
    let (mut published, mut conflated) = (HashSet::new(), 0);
    for _ in 0..=MOVES {
        let answer = sender.expect("published").await;
        match answer["status"].as_str() {
            Some("published") if answer["id"] == "said" => {}
            Some("published") => {
                published.insert(answer["event_id"].as_str().expect("an id").to_owned());
            }
            Some("conflated") => conflated += 1,
            _ => panic!("{answer}"),
        }
    }
    let took = begun.elapsed();
    assert_eq!(published.len() + conflated, MOVES as usize, "each move is answered once");
    assert!(conflated > 0, "{took:?}");
    let most = took.as_millis() as usize / 100 + 2;
    assert!(published.len() <= most, "{} in {took:?}", published.len());
    let mut last = None;
    for _ in 0..published.len() {
        let event = reader.next_event().await;
        assert!(published.contains(event["id"].as_str().expect("an id")), "{event}");
        assert!(last < event["data"].as_u64(), "in order");
        last = event["data"].as_u64();
    }
    assert_eq!(last, Some(MOVES - 1));
    reader.expect_nothing().await;
}

#[tokio::test]
async fn nothing_that_was_answered_published_is_lost_by_a_kill() {
    fastrand::seed(random_seed("conflation"));
    let mut sidecar = TestSidecar::with_config(RULE).await;
    let mut promised = HashSet::new();
    for round in 0..3u64 {
        let publishers = (0..4u64).map(|publisher| {
            let address = sidecar.whereabouts().app();
            tokio::spawn(async move {
                let mut client = crate::support::HttpClient::new(address);
                let mut published = Vec::new();
                for number in 0.. {
                    let id = format!("{round}-{publisher}-{number}");
                    let body = json!({"channel": format!("cursor.{}", publisher % 2), "id": id, "data": 1})
                        .to_string();
                    let headers = [("Content-Type", "application/json")];
                    match client.try_request("POST", "/v1/publish", &headers, body.as_bytes()).await {
                        Ok(answer) if answer.json()["status"] == "published" => published.push(id),
                        Ok(answer) => assert!(answer.status() < 500, "{}", answer.text()),
                        Err(_) => break,
                    }
                }
                published
            })
        });
        let publishers: Vec<_> = publishers.collect();
        // The moment of the kill is the point of the test.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(250..700))).await;
        sidecar.kill();
        for publisher in publishers {
            promised.extend(publisher.await.expect("it does not panic"));
        }
        sidecar.start_again().await;
    }
    let events = sidecar.all_events("channel=cursor.%3E").await;
    let kept: HashSet<_> =
        events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert!(!promised.is_empty());
    let lost: Vec<_> = promised.difference(&kept).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", promised.len());
}

#[tokio::test]
async fn what_waits_goes_out_when_the_node_is_stopped() {
    let slow = RULE.replace("10/s", "1/s");
    let mut sidecar = TestSidecar::with_config(&slow).await;
    for number in 0..5 {
        let (status, _) = publish(&sidecar, "cursor.a", number, "?ack=none").await;
        assert!((200..300).contains(&status));
    }
    assert!(sidecar.terminate().await.success());
    sidecar.start_again().await;
    let kept = numbers(&sidecar.all_events("channel=cursor.a").await);
    assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&4)), "{kept:?}");
}

#[tokio::test]
async fn a_rule_that_cannot_be_kept_is_refused() {
    for (rule, word) in [
        ("when_over = \"latest\"", "rate"),
        ("rate = \"0.5/s\"\nwhen_over = \"latest\"", "rate"),
        ("rate = \"10/s\"\nwhen_over = \"newest\"", "latest"),
    ] {
        let said = Setup::new().config(&format!("[[channels]]\npattern = \"a\"\n{rule}\n")).refused().await;
        assert!(said.contains("when_over") || said.contains("rate"), "{rule}: {said}");
        assert!(said.contains(word), "{rule}: {said}");
    }
}
