//! WebSocket in MessagePack: the same maps, in binary frames, with bytes as `bin`.

use crate::support::{TestSidecar, WebSocketClient};
use base64::Engine as _;
use serde_json::json;

#[tokio::test]
async fn the_protocol_is_the_same_in_binary_frames() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut client = WebSocketClient::open_msgpack(&address, "/v1/ws").await;
    let message = json!({"type": "subscribe", "id": 3, "channels": ["packed.>"]});
    client.send_msgpack(&message).await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(subscribed["id"], 3, "{subscribed}");
    assert!(subscribed["cursor"].is_string(), "{subscribed}");

    let data = json!({"n": 0, "text": "ü", "list": [null, true, 1.5, -7, u64::MAX], "map": {"": {}}});
    let answer = sidecar.publish(&json!({"channel": "packed.a", "data": data, "tags": {"t": "v"}})).await;
    let event = client.next_event().await;
    assert_eq!(event["data"], data);
    assert_eq!(event["tags"], json!({"t": "v"}));
    assert_eq!((&event["id"], &event["cursor"]), (&answer["id"], &answer["cursor"]));

    client.send_msgpack(&json!({"type": "ping", "id": "p"})).await;
    assert_eq!(client.expect("pong").await["id"], "p");
    client.send_msgpack(&json!({"type": "history", "id": "h", "channel": "packed.a"})).await;
    let page = client.expect("history").await;
    assert_eq!(page["events"][0]["data"], data, "{page}");
}

#[tokio::test]
async fn bytes_are_bin_here_and_base64_in_json() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut packed = WebSocketClient::open_msgpack(&address, "/v1/ws?channel=bytes").await;
    let mut plain = WebSocketClient::open(&address, "/v1/ws?channel=bytes&format=json").await;
    packed.expect("subscribed").await;
    plain.expect("subscribed").await;
    let bytes = [0, 159, 146, 150];
    sidecar.app().post("/v1/channels/bytes", "application/octet-stream", &bytes).await.success();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    assert_eq!(packed.next_event().await["data"], json!({"$bin": text}));
    assert_eq!(plain.next_event().await["data"], json!({"$base64": text}));
}

#[tokio::test]
async fn the_format_may_be_asked_for_in_the_url() {
    let sidecar = TestSidecar::start().await;
    let mut client =
        WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a&format=msgpack").await;
    client.expect("subscribed").await;
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(client.next_numbers(1).await, [0]);
}

#[tokio::test]
async fn what_is_no_messagepack_gets_an_error_and_the_connection_goes_on() {
    let sidecar = TestSidecar::start().await;
    let mut client = WebSocketClient::open_msgpack(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    for bytes in [
        &b""[..],
        b"\xc1",
        b"\x81\xa4type",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        &[0x91; 10_000],
        b"\x81\xa4type\xa4ping\x00",
    ] {
        client.send_raw(tokio_tungstenite::tungstenite::Message::binary(bytes.to_vec())).await;
        let error = client.expect("error").await;
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    }
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(client.next_numbers(1).await, [0]);
}
