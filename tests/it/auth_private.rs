//! The app and admin listeners: a shared token, and the system user at the other end of a Unix socket. And the
//! commands that make and explain tokens.

use crate::support::{HttpClient, Setup, TestSidecar, Tokens, run_command};
use serde_json::json;

async fn get(client: &mut HttpClient, target: &str, authorization: &str) -> u16 {
    let headers = [("Authorization", authorization)];
    client.request("GET", target, if authorization.is_empty() { &[] } else { &headers }, b"").await.status()
}

#[tokio::test]
async fn a_listener_with_a_token_serves_nobody_without_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "a shared token\n").expect("written");
    let config = format!("[app]\ntoken_file = {file:?}\n[admin]\ntoken_file = {file:?}\n");
    let mut sidecar = TestSidecar::with_config(&config).await;
    let (mut app, mut admin) = (sidecar.app(), sidecar.admin());
    for target in ["/v1/events", "/v1/channels", "/v1/channels/a/last", "/nowhere"] {
        for shown in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a shared toke",
            "Bearer a shared token2",
            "Basic a shared token",
        ] {
            assert_eq!(get(&mut app, target, shown).await, 401, "{target} with {shown:?}");
        }
    }
    let refused = app.post_json("/v1/publish", &json!({"channel": "a"})).await;
    assert_eq!(refused.refusal(401), "unauthorized");
    assert_eq!(get(&mut app, "/v1/events", "Bearer a shared token").await, 200);
    assert_eq!(get(&mut app, "/v1/events", "bearer a shared token").await, 200);
    for target in ["/metrics", "/v1/config"] {
        assert_eq!(get(&mut admin, target, "").await, 401, "{target}");
        assert_eq!(get(&mut admin, target, "Bearer a shared token").await, 200, "{target}");
    }
    for probe in ["/healthz", "/readyz"] {
        assert!(matches!(get(&mut admin, probe, "").await, 200 | 503), "{probe}");
    }

    let address = sidecar.whereabouts().app().to_string();
    let published = async |options: &[&str]| {
        let words = [&["publish", "a", "1", "--app", &address], options].concat();
        run_command(sidecar.directory(), &words, "").await
    };
    assert!(!published(&[]).await.status.success());
    published(&["--token-file", file.to_str().expect("text")]).await.output();

    std::fs::write(&file, "another token").expect("written");
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.wait_for_log(&["configuration reloaded"]).await;
    assert_eq!(get(&mut sidecar.app(), "/v1/events", "Bearer a shared token").await, 401);
    assert_eq!(get(&mut sidecar.app(), "/v1/events", "Bearer another token").await, 200);
    assert!(!sidecar.log().contains("shared token"));
    sidecar.terminate().await;

    std::fs::write(&file, "\n").expect("written");
    let said = Setup::new().config(&config).refused().await;
    assert!(said.contains("app.token_file"), "{said}");
}

#[tokio::test]
async fn a_unix_socket_serves_the_system_users_that_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("app.sock");
    let mine = rustix::process::getuid().as_raw();
    for (uids, status) in
        [(vec![mine], 200), (vec![mine + 1, mine], 200), (vec![mine + 1], 403), (vec![], 200)]
    {
        let sidecar = Setup::new()
            .config(&format!("[app]\nallowed_uids = {uids:?}\n"))
            .listen("app", &format!("unix:{}", socket.display()))
            .start()
            .await;
        assert_eq!(get(&mut sidecar.app(), "/v1/events", "").await, status, "{uids:?}");
    }
}

#[tokio::test]
async fn a_token_is_made_and_explained_on_the_command_line() {
    let mut tokens = Tokens::new();
    let sidecar = TestSidecar::with_config(&Tokens::config()).await;
    let file = sidecar.config_file();
    let file = file.to_str().expect("text");
    let command = async |words: &[&str]| {
        let words = [words, &["--config", file]].concat();
        run_command(sidecar.directory(), &words, "").await
    };
    let token = command(&["token", "--sub", "ann", "--allow", "user.{sub}.>=sub,history", "--jti", "x"])
        .await
        .output();
    let token = token.trim();
    let mut client = sidecar.client();
    client.get(&format!("/v1/events?channel=user.ann.a&token={token}")).await.success();
    assert_eq!(client.get(&format!("/v1/events?channel=user.bob.a&token={token}")).await.status(), 403);

    let said = command(&["explain", "--token", token, "user.ann.a"]).await.output();
    for line in
        ["user: ann, until 20", "sub: yes, by user.ann.>", "history: yes", "pub: no, it is granted nowhere"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = command(&["explain", "--token", token, "user.>"]).await.output();
    assert!(said.contains("sub: no, it is granted on user.ann.> and not on all of user.>"), "{said}");
    let expired = tokens.token(&json!({"exp": 1000}));
    let refused = command(&["explain", "--token", &expired, "a"]).await;
    assert!(!refused.status.success() && refused.stderr.contains("the token has expired"), "{refused:?}");
    assert!(command(&["explain", "a"]).await.stderr.contains("there is no token"));
}
