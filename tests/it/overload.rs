//! Under overload new clients are refused first: who is connected, and the app, notice nothing.

use crate::support::{Connection, Setup, TestSidecar, WebSocketClient, eventually, within};
use serde_json::json;

/// Open files that the node may have in these tests.
const OPEN_FILES: usize = 600;

/// Connects until the node closes what is connected, and keeps all that it did not close.
async fn connect_until_closed(sidecar: &TestSidecar, first_bytes: &str) -> Vec<Connection> {
    let address = sidecar.whereabouts().client();
    let mut taken = Vec::new();
    loop {
        let mut connection = Connection::open(&address).await.expect("the kernel connects");
        let refused = sidecar.metrics().await.sum("sidewire_connections_refused_total", &[]);
        // A connection that is closed already takes nothing.
        let _ = connection.write(first_bytes.as_bytes()).await;
        taken.push(connection);
        if refused > 0. {
            return taken;
        }
        assert!(taken.len() <= OPEN_FILES, "nothing stops it");
    }
}

#[tokio::test]
async fn a_flood_of_connections_leaves_the_app_and_those_that_are_connected_alone() {
    let wrapper = format!("--nofile={OPEN_FILES}:{OPEN_FILES}");
    let setup = Setup::new().wrapper(&["prlimit", &wrapper]);
    let sidecar = setup.config("[limits]\nheader_timeout = \"60s\"\n").start().await;
    let address = sidecar.whereabouts().client();
    let mut client = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    // Each says a little, and never all.
    let flood = connect_until_closed(&sidecar, "GET /v1/ws HTTP/1.1\r\nHost: a\r\n").await;
    assert!(flood.len() > 100, "{}", flood.len());
    sidecar.wait_for_log(&["new clients are closed at once"]).await;
    assert!(WebSocketClient::try_open(&address, "/v1/ws", &[]).await.is_err());
    for number in 0..50 {
        // A new connection each time: there are descriptors left.
        let published =
            sidecar.app().post_json("/v1/publish", &json!({"channel": "a", "data": number})).await;
        assert_eq!(published.success()["status"], "published");
        assert_eq!(client.next_event().await["data"], number);
        assert_eq!(sidecar.admin().get("/readyz").await.status(), 200);
    }
    drop(flood);
    eventually("new clients are taken again", async || {
        WebSocketClient::try_open(&address, "/v1/ws", &[]).await.ok().map(drop)
    })
    .await;
    sidecar.wait_for_log(&["new clients are taken again"]).await;
    assert_eq!(sidecar.log().matches("new clients are closed at once").count(), 1, "said once");
}

#[tokio::test]
async fn who_connects_and_says_nothing_gives_its_place_back() {
    let wrapper = format!("--nofile={OPEN_FILES}:{OPEN_FILES}");
    let setup = Setup::new().wrapper(&["prlimit", &wrapper]);
    let sidecar = setup.config("[limits]\nheader_timeout = \"500ms\"\n").start().await;
    let address = sidecar.whereabouts().client();
    let begun: Vec<_> = {
        let mut begun = Vec::new();
        for _ in 0..OPEN_FILES {
            begun.push(Connection::open(&address).await.expect("the kernel connects"));
        }
        begun
    };
    for mut connection in begun {
        within("its end", connection.read_until_closed()).await;
    }
    let mut client = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
}
