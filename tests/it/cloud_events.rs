//! CloudEvents 1.0 over HTTP: structured, batch and binary mode. `subject` is the channel, `type` the event,
//! `id` and `source` together the id.

use crate::support::TestSidecar;
use base64::Engine as _;
use serde_json::{Value, json};

fn cloud_event(id: &str, source: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": "com.example.saved",
        "subject": "cloud.orders",
        "datacontenttype": "application/json",
        "data": data,
    })
}

#[tokio::test]
async fn structured_mode_is_one_event_in_json() {
    let sidecar = TestSidecar::start().await;
    let kind = "application/cloudevents+json; charset=utf-8";
    let body = cloud_event("1", "/shop", json!({"n": 1})).to_string();
    let answer = sidecar.publish_as(kind, "", body.as_bytes()).await.success();
    assert_eq!((&answer["channel"], &answer["status"]), (&json!("cloud.orders"), &json!("published")));
    let event = sidecar.last("cloud.orders").await.expect("kept");
    assert_eq!((&event["event"], &event["data"]), (&json!("com.example.saved"), &json!({"n": 1})));

    // The same id of the same source is the same event; of another source it is not.
    assert_eq!(sidecar.publish_as(kind, "", body.as_bytes()).await.success()["status"], "duplicate");
    let other = cloud_event("1", "/warehouse", json!({"n": 2})).to_string();
    assert_eq!(sidecar.publish_as(kind, "", other.as_bytes()).await.success()["status"], "published");
}

#[tokio::test]
async fn structured_mode_carries_bytes_as_data_base64() {
    let sidecar = TestSidecar::start().await;
    let mut body = cloud_event("1", "/shop", Value::Null);
    let text = base64::engine::general_purpose::STANDARD.encode([1, 2, 255]);
    let fields = body.as_object_mut().expect("an object");
    fields.remove("data");
    fields.insert("data_base64".into(), json!(text));
    fields.insert("datacontenttype".into(), json!("application/octet-stream"));
    sidecar.publish_as("application/cloudevents+json", "", body.to_string().as_bytes()).await.success();
    assert_eq!(sidecar.last("cloud.orders").await.expect("kept")["data"], json!({"$base64": text}));
}

#[tokio::test]
async fn batch_mode_is_an_array_of_them() {
    let sidecar = TestSidecar::start().await;
    let mut bad = cloud_event("2", "/shop", json!({"n": 2}));
    bad["subject"] = json!("not a channel");
    let batch =
        json!([cloud_event("1", "/shop", json!({"n": 1})), bad, cloud_event("3", "/shop", json!({"n": 3}))]);
    let answer = sidecar
        .publish_as("application/cloudevents-batch+json", "", batch.to_string().as_bytes())
        .await
        .success();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 3, "{answer}");
    assert_eq!(results[1]["code"], "invalid_channel", "{answer}");
    assert_eq!(crate::support::numbers(&sidecar.all_events("channel=cloud.orders").await), [1, 3]);
}

#[tokio::test]
async fn binary_mode_has_the_attributes_in_headers() {
    let sidecar = TestSidecar::start().await;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "A234-1234-1234"),
        ("ce-source", "/sensors"),
        ("ce-type", "com.example.measured"),
        ("ce-subject", "cloud.sensors"),
        ("Content-Type", "application/json"),
    ];
    let mut app = sidecar.app();
    let answer = app.request("POST", "/v1/publish", &headers, br#"{"celsius": 21.5}"#).await.success();
    assert_eq!((&answer["channel"], &answer["status"]), (&json!("cloud.sensors"), &json!("published")));
    let event = sidecar.last("cloud.sensors").await.expect("kept");
    assert_eq!(
        (&event["event"], &event["data"]),
        (&json!("com.example.measured"), &json!({"celsius": 21.5}))
    );
    let again = app.request("POST", "/v1/publish", &headers, br#"{"celsius": 21.5}"#).await.success();
    assert_eq!(again["status"], "duplicate");
}

#[tokio::test]
async fn an_event_that_breaks_the_specification_is_refused_with_the_field() {
    let sidecar = TestSidecar::start().await;
    for field in ["id", "source", "type", "specversion"] {
        let mut body = cloud_event("1", "/shop", json!(1));
        body.as_object_mut().expect("an object").remove(field);
        let answer =
            sidecar.publish_as("application/cloudevents+json", "", body.to_string().as_bytes()).await;
        answer.refusal(400);
        assert!(answer.text().contains(field), "the field is named: {}", answer.text());
    }
}
