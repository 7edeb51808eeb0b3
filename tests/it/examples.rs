//! The example apps as they stand in `examples/`, each on its own server, with Sidewire beside it as their READMEs tell:
//! a real browser signs in, receives and is signed out; cookies, forms and other people's channels are tried.

mod app;

use crate::support::{Browser, Connection, HttpClient, WebSocketClient, eventually, upgrade_request};
use app::{ExampleApp, Framework, Visitor};
use serde_json::json;

const STATE: &str = "document.getElementById('state')?.textContent";
const NOTES: &str = "[...document.querySelectorAll('#notes li')].map(note => note.textContent).join(' | ')";

/// Signs in by the form on the page, as a person would.
async fn sign_in(browser: &mut Browser, user: &str) {
    browser.shows("document.forms[0]?.id", "sign-in").await;
    let password = app::password(user);
    let fill = format!(
        "document.forms[0].user.value = {}; document.forms[0].password.value = {}; document.forms[0].requestSubmit(); 1",
        json!(user),
        json!(password)
    );
    browser.evaluate(&fill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_signs_in_in_a_browser_receives_and_is_signed_out_elsewhere() {
    for framework in Framework::ALL {
        let app = ExampleApp::start(framework).await;
        let mut browser = Browser::open(&app.page()).await;
        sign_in(&mut browser, "ann").await;
        browser.shows(STATE, "live").await;

        let mut bob = Visitor::signed_in(&app, "bob").await;
        assert_eq!(bob.send_note("ann", "<b>tea</b> & more?").await.status(), 303, "{framework:?}");
        browser.shows(NOTES, "bob: <b>tea</b> & more?").await;
        assert_eq!(browser.evaluate("document.querySelectorAll('#notes b').length").await, 0, "it is text");

        // By the page's own form; the page that comes next has what was there before.
        let send = "document.forms.note.text.value = 'to myself'; document.forms.note.to.value = 'ann'; document.forms.note.requestSubmit(); 1";
        browser.evaluate(send).await;
        browser.shows(NOTES, "bob: <b>tea</b> & more? | ann: to myself").await;
        browser.shows(STATE, "live").await;

        // As from another tab: the page itself is not touched.
        let cookie = browser.cookies(&app.page()).await;
        let mut other_tab = Visitor::with_cookie(&app, &cookie);
        assert_eq!(other_tab.sign_out().await.status(), 303, "{framework:?}");
        browser.shows(STATE, "signed out").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_web_socket_gets_through_the_page_follows_by_server_sent_events() {
    for framework in Framework::ALL {
        let app = ExampleApp::start(framework).await;
        let mut browser = Browser::start().await;
        let closes_at_once =
            "window.WebSocket = class { constructor() { setTimeout(() => this.onclose(), 0); } };";
        browser.before_every_page(closes_at_once).await;
        browser.go_to(&app.page()).await;
        sign_in(&mut browser, "ann").await;
        browser.shows(STATE, "live, by server-sent events").await;
        let mut bob = Visitor::signed_in(&app, "bob").await;
        assert_eq!(bob.send_note("ann", "hello").await.status(), 303, "{framework:?}");
        browser.shows(NOTES, "bob: hello").await;

        let cookie = browser.cookies(&app.page()).await;
        assert_eq!(Visitor::with_cookie(&app, &cookie).sign_out().await.status(), 303, "{framework:?}");
        browser.shows(STATE, "signed out").await;
    }
}

#[tokio::test]
async fn a_session_that_ends_is_cut_off_and_its_cookie_is_worth_nothing() {
    for framework in Framework::ALL {
        let app = ExampleApp::start(framework).await;
        let mut ann = Visitor::signed_in(&app, "ann").await;
        let address = app.sidecar.whereabouts().client();
        let cookie = ann.cookie.clone();
        let headers = [("Cookie", &*cookie)];
        let target = "/v1/ws?channel=user.ann.notes";
        let (mut client, _) = WebSocketClient::open_with_welcome(&address, target, &headers).await;
        client.expect("subscribed").await;
        assert_eq!(app.poll("user.ann.notes", &cookie).await, 200, "{framework:?}");
        ann.sign_out().await;
        assert_eq!(client.closed().await, 4100, "{framework:?}");
        // At once: what the app said before counts no longer.
        assert_eq!(app.poll("user.ann.notes", &cookie).await, 401, "{framework:?}");

        // By itself, too.
        let app = ExampleApp::with(framework, &[("SESSION_SECONDS", "2")], "").await;
        let ann = Visitor::signed_in(&app, "ann").await;
        let address = app.sidecar.whereabouts().client();
        let headers = [("Cookie", &*ann.cookie)];
        let (mut client, _) = WebSocketClient::open_with_welcome(&address, target, &headers).await;
        assert_eq!(client.closed().await, 4104, "{framework:?}");
        eventually("the session has ended for the app as well", async || {
            (app.poll("user.ann.notes", &ann.cookie).await == 401).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_channel_of_another_user_and_pages_of_another_site_are_refused() {
    for framework in Framework::ALL {
        let app = ExampleApp::start(framework).await;
        let bob = Visitor::signed_in(&app, "bob").await;
        assert_eq!(app.poll("user.bob.notes", &bob.cookie).await, 200, "{framework:?}");
        for foreign in ["user.ann.notes", "user.*.notes", "user.%3E", "%3E", "user.bob.notes,user.ann.notes"]
        {
            assert_eq!(app.poll(foreign, &bob.cookie).await, 403, "{framework:?}: {foreign}");
        }
        let mut forged = bob.cookie.clone();
        forged.truncate(forged.len() - 3);
        for cookie in ["", &*forged, "PHPSESSID=../../etc/passwd", "session=e30=.x.y"] {
            assert_eq!(app.poll("user.bob.notes", cookie).await, 401, "{framework:?}: {cookie}");
        }
        // A page of another site, in the browser of somebody who is signed in.
        let address = app.sidecar.whereabouts().client();
        let headers = format!("Cookie: {}\r\nOrigin: http://evil.example\r\n", bob.cookie);
        let mut connection = Connection::open(&address).await.expect("connected");
        let request = upgrade_request(&address, "/v1/ws?channel=user.bob.notes", &headers);
        connection.write(&request).await.expect("written");
        let answer = connection.read_response().await.expect("answered");
        assert_eq!(answer.refusal(403), "forbidden", "{framework:?}");
    }
}

#[tokio::test]
async fn cookies_are_kept_from_scripts_and_forms_of_other_sites_from_the_app() {
    for framework in Framework::ALL {
        let app = ExampleApp::start(framework).await;
        let mut ann = Visitor::signed_in(&app, "ann").await;
        for token in [None, Some(""), Some("0123456789abcdef")] {
            let mut fields = vec![("to", "bob"), ("text", "forged")];
            fields.extend(token.map(|token| ("form_token", token)));
            assert_eq!(ann.post("note", &fields).await.status(), 403, "{framework:?}: {token:?}");
            assert_eq!(ann.post("sign-out", &fields[2..]).await.status(), 403, "{framework:?}: {token:?}");
        }
        assert!(app.sidecar.all_events("channel=user.%3E").await.is_empty(), "{framework:?}");
        // Of another session, and with a wrong password.
        let token = Visitor::new(&app).form_token().await;
        let fields = [("form_token", &*token), ("to", "bob"), ("text", "forged")];
        assert_eq!(ann.post("note", &fields).await.status(), 403, "{framework:?}");
        let mut stranger = Visitor::new(&app);
        for (user, password) in [("ann", "wrong"), ("nobody", app::password("ann"))] {
            assert_eq!(stranger.sign_in_with(user, password).await.status(), 403, "{framework:?}");
        }

        let attributes = |app: &ExampleApp| {
            let mut client = HttpClient::new(app.address());
            async move {
                let page = client.get("/").await;
                assert!(page.header("content-security-policy").is_some(), "{framework:?}");
                page.header("set-cookie").expect("a session begins").to_ascii_lowercase()
            }
        };
        let cookie = attributes(&app).await;
        assert!(cookie.contains("httponly") && cookie.contains("samesite=lax"), "{framework:?}: {cookie}");
        let app = ExampleApp::with(framework, &[("APP_ENV", "production")], "").await;
        let cookie = attributes(&app).await;
        assert!(cookie.contains("; secure"), "{framework:?}: {cookie}");
    }
}

#[tokio::test]
async fn while_the_app_is_down_nobody_comes_in_or_who_was_in_as_configured() {
    for framework in Framework::ALL {
        for (policy, status) in [("refuse", 503), ("cached", 200)] {
            let mut app =
                ExampleApp::with(framework, &[], &format!("cache = \"0s\"\non_error = {policy:?}\n")).await;
            let ann = Visitor::signed_in(&app, "ann").await;
            assert_eq!(app.poll("user.ann.notes", &ann.cookie).await, 200, "{framework:?}");
            let address = app.sidecar.whereabouts().client();
            let headers = [("Cookie", &*ann.cookie)];
            let target = "/v1/ws?channel=user.ann.notes";
            let (mut client, _) = WebSocketClient::open_with_welcome(&address, target, &headers).await;
            client.expect("subscribed").await;
            app.process.kill();
            assert_eq!(app.poll("user.ann.notes", &ann.cookie).await, status, "{framework:?}, {policy}");
            assert_eq!(app.poll("user.ann.notes", "PHPSESSID=other").await, 503, "{framework:?}, {policy}");
            // Who is connected stays, whatever becomes of the app.
            app.sidecar.publish_numbers("user.ann.notes", 0..3).await;
            assert_eq!(client.next_numbers(3).await, [0, 1, 2], "{framework:?}, {policy}");
            app.process.start().await;
            // What the PHP app knows of a session is on its disk.
            if framework == Framework::Php {
                eventually("the app is asked again", async || {
                    (app.poll("user.ann.notes", &ann.cookie).await == 200).then_some(())
                })
                .await;
            }
        }
    }
}

#[test]
fn both_examples_have_the_same_script() {
    let (php, fastapi) = (
        include_str!("../../examples/php/public/live.js"),
        include_str!("../../examples/fastapi/static/live.js"),
    );
    assert!(php == fastapi, "a change of one belongs into the other");
}
