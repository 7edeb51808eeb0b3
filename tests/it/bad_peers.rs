//! Peers that are slow on purpose, or go away in the middle: their time is bounded, and they keep nobody else
//! waiting.

use crate::support::{Connection, TestSidecar, eventually, upgrade_request, within};

/// Opens a connection, sends `bytes` and nothing more, and waits until the node closes it.
async fn cut_off_in_time(sidecar: &TestSidecar, listener: &str, bytes: &[u8]) {
    let address = sidecar.whereabouts().all(listener)[0].clone();
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(bytes).await.expect("written");
    let what = format!("the node gives up on {:?} on {listener}", String::from_utf8_lossy(bytes));
    within(&what, connection.read_until_closed()).await;
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_cut_off_and_others_are_served_meanwhile() {
    let config = "[limits]\nheader_timeout = \"1s\"\nbody_timeout = \"2s\"\n";
    let mut sidecar = TestSidecar::with_config(config).await;
    let upgrade = upgrade_request(&sidecar.whereabouts().client(), "/v1/ws", "");
    let half_upgrade = &upgrade[..upgrade.len() / 2];
    let half_body = b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                      Content-Length: 100\r\n\r\n{\"channel\":";
    let half_chunk = b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                       Transfer-Encoding: chunked\r\n\r\n40\r\n{";
    tokio::join!(
        cut_off_in_time(&sidecar, "app", b""),
        cut_off_in_time(&sidecar, "app", b"POST /v1/pub"),
        cut_off_in_time(&sidecar, "app", b"POST /v1/publish HTTP/1.1\r\nHost: loc"),
        cut_off_in_time(&sidecar, "app", half_body),
        cut_off_in_time(&sidecar, "app", half_chunk),
        cut_off_in_time(&sidecar, "client", b""),
        cut_off_in_time(&sidecar, "client", b"GET /v1/sse?channel=a HTTP/1.1\r\n"),
        cut_off_in_time(&sidecar, "client", half_upgrade),
        cut_off_in_time(&sidecar, "admin", b"GET /metr"),
        async {
            for _ in 0..20 {
                sidecar.publish_numbers("meanwhile", 0..1).await;
            }
        },
    );
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_header_that_drips_in_is_cut_off_too() {
    let sidecar = TestSidecar::with_config("[limits]\nheader_timeout = \"1s\"\n").await;
    let address = sidecar.whereabouts().client();
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(b"GET /v1/sse?channel=a HTTP/1.1\r\n").await.expect("written");
    let mut drops = 0;
    // Every byte comes soon after the one before: only a bound on the whole head ends this.
    eventually("the node gives up on a dripping head", async || {
        drops += 1;
        let written = if drops % 10 == 0 { connection.write(b"X").await } else { Ok(()) };
        written.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_keep_nobody_waiting_and_are_let_go() {
    let config = "[limits]\nconnections = 100000\nconnections_per_ip = 100000\nheader_timeout = \"2s\"\n";
    let mut sidecar = TestSidecar::with_config(config).await;
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).expect("the node runs").count();
    let before = descriptors();
    let mut silent = Vec::new();
    for at in 0..1_000 {
        let address = match at % 2 {
            0 => sidecar.whereabouts().client(),
            _ => sidecar.whereabouts().app(),
        };
        silent.push(Connection::open(&address).await.expect("connected"));
    }
    eventually("they are accepted", async || (descriptors() >= before + 1_000).then_some(())).await;
    sidecar.publish_numbers("others", 0..10).await;
    eventually("they are let go, though they never hang up", async || {
        (descriptors() < before + 50).then_some(())
    })
    .await;
    drop(silent);
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_a_request_publishes_nothing() {
    let mut sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().app();
    let body = br#"[{"channel":"half","data":1},{"channel":"half","data":2}]"#;
    for cut in (0..body.len()).step_by(7) {
        let mut connection = Connection::open(&address).await.expect("connected");
        let head = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            address.host(),
            body.len()
        );
        connection.write(&[head.as_bytes(), &body[..cut]].concat()).await.expect("written");
        drop(connection);
    }
    sidecar.still_healthy().await;
    assert!(sidecar.last("half").await.is_none(), "half a request is none");
}
