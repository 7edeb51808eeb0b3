use super::*;
use crate::config::node::parse_toml;
use proptest::prelude::*;

fn read(text: &str) -> Result<Vec<Route>, Vec<String>> {
    let table = parse_toml(text, "test").unwrap();
    Vec::<Route>::read(&table["routes"])
        .map_err(|problems| problems.into_iter().map(|problem| problem.to_string()).collect())
}

fn route(path: &str, channel: &str) -> Route {
    read(&format!("routes = [{{path = {path:?}, channel = {channel:?}}}]")).unwrap().remove(0)
}

fn refusal(path: &str, channel: &str) -> String {
    read(&format!("routes = [{{path = {path:?}, channel = {channel:?}}}]")).unwrap_err().join("\n")
}

fn channel_for(route: &Route, path: &str) -> Option<String> {
    route.channel_for(path).map(|pattern| pattern.as_str().to_owned())
}

#[test]
fn a_path_names_its_channel() {
    let job = route("/ws/job/{id}", "job.{id}");
    assert_eq!(channel_for(&job, "/ws/job/42").as_deref(), Some("job.42"));
    assert_eq!(channel_for(&job, "/ws/job/a%2Fb").as_deref(), Some("job.a/b"));
    for path in
        ["/ws/job", "/ws/job/", "/ws/job/1/2", "/ws/jobs/1", "/ws/job/%ff", "ws/job/1", "/ws/job/a%20b"]
    {
        assert_eq!(channel_for(&job, path), None, "{path}");
    }
    let room = route("/rooms/{house}/{room}", "room.{room}-{house}.>");
    assert_eq!(channel_for(&room, "/rooms/a/b").as_deref(), Some("room.b-a.>"));
    assert_eq!(channel_for(&route("/news", "news"), "/news").as_deref(), Some("news"));
}

#[test]
fn a_value_reaches_no_other_channel() {
    let job = route("/ws/job/{id}", "job.{id}");
    for path in ["/ws/job/a.b", "/ws/job/*", "/ws/job/%3E", "/ws/job/a%2Eb", "/ws/job/$x"] {
        assert_eq!(channel_for(&job, path), None, "{path}");
    }
}

#[test]
fn bad_templates_say_what_to_write() {
    for (path, channel, words) in [
        ("ws/{id}", "a.{id}", "does not begin with /"),
        ("/ws//{id}", "a.{id}", "the segment \"\""),
        ("/ws/a-{id}", "a.{id}", "neither plain text nor one {name}"),
        ("/ws/{}", "a", "is no name"),
        ("/ws/{id}/{id}", "a.{id}", "is there twice"),
        ("/v1/ws", "a", "of Sidewire's own"),
        ("/{any}/ws", "a", "of Sidewire's own"),
        ("/ws/{id}", "job.{other}", "`{other}` is not in the path /ws/{id}"),
        ("/ws/{id}", "job.{id", "without its }"),
        ("/ws/{id}", "job..{id}", "is no channel"),
        ("/ws/{id}", "", "is no channel"),
    ] {
        let message = refusal(path, channel);
        assert!(message.contains(words), "{path} {channel}: {message}");
    }
    let message = read("routes = [{path = '/a', chanel = 'a'}]").unwrap_err().join("\n");
    assert!(
        message.contains("unknown key `[0].chanel` in test line 1; did you mean `[0].channel`?"),
        "{message}"
    );
    assert!(message.contains("[0].channel: is missing; add it"), "{message}");
}

#[test]
fn templates_are_shown_as_written() {
    let shown = route("/ws/{a}/x/{b}", "q.{b}-{a}.>").show();
    assert_eq!(shown["path"], "/ws/{a}/x/{b}");
    assert_eq!(shown["channel"], "q.{b}-{a}.>");
}

#[test]
fn two_routes_for_the_same_paths_are_seen() {
    assert!(route("/ws/{a}", "x").same_paths_as(&route("/ws/{b}", "y")));
    assert!(!route("/ws/{a}", "x").same_paths_as(&route("/ws/b", "y")));
    assert!(!route("/ws", "x").same_paths_as(&route("/ws/b", "y")));
}

proptest! {
    #[test]
    fn any_path_is_answered(path in "/[ws/job.%0-9a-f{}*>é]{0,20}") {
        if let Some(channel) = route("/ws/job/{id}", "job.{id}").channel_for(&path) {
            let one_token = channel.as_str().matches('.').count() == 1;
            prop_assert!(matches!(channel, Pattern::Exact(_)) && one_token);
        }
    }

    #[test]
    fn any_template_is_read_or_refused(path in "/?[a-z/{}%]{0,12}", channel in "[a-z.{}*>]{0,12}") {
        let _ = path.parse::<PathTemplate>();
        let _ = channel.parse::<ChannelTemplate>();
    }
}
