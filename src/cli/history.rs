//! `sidewire history CHANNEL..`

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::http::{HttpClient, target};
use super::output;
use super::publish::parse_tag;
use super::time::TimeArgument;
use super::tls::TrustArgs;
use super::wire::{WireEvent, from_json};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::time::SystemTime;

/// Most events that a node gives in one answer.
const PAGE_EVENTS: usize = 1000;

/// Options of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Channels and patterns
    #[arg(required = true)]
    channels: Vec<String>,
    /// Only events of these names; may be repeated or split by commas
    #[arg(long = "event", value_name = "NAME", value_delimiter = ',')]
    events: Vec<String>,
    /// Only events with this tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// From here on: RFC 3339, Unix milliseconds, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<TimeArgument>,
    /// Up to here
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArgument>,
    /// Only events after this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How many at most; without --since and --after the newest, oldest of them first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print events as on the wire, one JSON object a line
    #[arg(long)]
    json: bool,
    /// The app listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    app: Option<NodeAddress>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Prints events of the past.
pub(super) async fn run(args: HistoryArgs) -> Result<(), CliError> {
    let query = HistoryQuery::new(&args, SystemTime::now());
    let token = args.credential.token(&args.config, args.app.is_some(), |config| &config.app.token_file)?;
    let address = NodeAddress::resolve(args.app, &args.trust, args.config, Listener::App)?;
    let mut node = HttpClient::new(address).showing(token);
    let newest_first = query.newest_first;
    let mut lines = Vec::new();
    let mut pages = Pages::new(query, args.limit);
    while let Some(page) = pages.next(&mut node).await? {
        let page = page.lines(args.json)?;
        if newest_first {
            lines.extend(page);
        } else {
            output::lines(page)?;
        }
    }
    lines.reverse();
    output::lines(lines)
}

/// Which events of the past are wanted.
pub(super) struct HistoryQuery {
    pairs: Vec<(String, String)>,
    newest_first: bool,
}

impl HistoryQuery {
    fn new(args: &HistoryArgs, now: SystemTime) -> Self {
        let mut query = Self::of_channels(&args.channels, &args.events);
        query.pairs.extend(args.tags.iter().map(|(name, value)| (format!("tag.{name}"), value.clone())));
        for (name, time) in [("since", &args.since), ("until", &args.until)] {
            query.pairs.extend(time.as_ref().map(|time| (name.to_owned(), time.to_query(now))));
        }
        query.pairs.extend(args.after.iter().map(|cursor| ("after".to_owned(), cursor.clone())));
        query.newest_first = args.since.is_none() && args.after.is_none();
        query
    }

    /// Everything since a time, oldest first.
    pub(super) fn since(channels: &[String], events: &[String], time: String) -> Self {
        let mut query = Self::of_channels(channels, events);
        query.pairs.push(("since".into(), time));
        query
    }

    fn of_channels(channels: &[String], events: &[String]) -> Self {
        let mut pairs: Vec<_> = channels.iter().map(|channel| ("channel".into(), channel.clone())).collect();
        if !events.is_empty() {
            pairs.push(("event".into(), events.join(",")));
        }
        Self { pairs, newest_first: false }
    }

    /// The request for the next page. `last` is the cursor of the last event that is here already.
    fn target(&self, limit: usize, last: Option<&str>) -> String {
        let limit = limit.to_string();
        let (order, onward) = if self.newest_first { ("desc", "before") } else { ("asc", "after") };
        let given = self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let given = given.filter(|(name, _)| last.is_none() || *name != onward);
        let ours =
            [("order", order), ("limit", limit.as_str())].into_iter().chain(last.map(|last| (onward, last)));
        target("/v1/events", given.chain(ours))
    }
}

/// The answers of a node, page after page.
pub(super) struct Pages {
    query: HistoryQuery,
    /// How many events are wanted yet.
    wanted: usize,
    last: Option<String>,
    done: bool,
}

impl Pages {
    pub(super) fn new(query: HistoryQuery, limit: usize) -> Self {
        Self { query, wanted: limit, last: None, done: false }
    }

    /// The next page; `None` after the last.
    pub(super) async fn next(&mut self, node: &mut HttpClient) -> Result<Option<Page>, CliError> {
        if self.done || self.wanted == 0 {
            return Ok(None);
        }
        let target = self.query.target(self.wanted.min(PAGE_EVENTS), self.last.as_deref());
        let body = node.get(&target).await?.success()?;
        let page: Page = from_json(&String::from_utf8_lossy(&body))?;
        self.wanted = self.wanted.saturating_sub(page.events.len());
        if let Some(event) = page.events.last() {
            self.last = from_json::<WireEvent<'_>>(event.get())?.cursor;
        }
        // Without a cursor to go on from, the same page would come for ever.
        self.done = !page.more || page.events.is_empty() || self.last.is_none();
        Ok(Some(page))
    }
}

/// One answer.
#[derive(Deserialize)]
pub(super) struct Page {
    events: Vec<Box<RawValue>>,
    /// "Everything up to here": where a subscription goes on.
    pub(super) cursor: Option<String>,
    more: bool,
}

impl Page {
    /// The events as they are printed.
    pub(super) fn lines(&self, json: bool) -> Result<Vec<String>, CliError> {
        let line = |event: &RawValue| {
            if json {
                Ok(event.get().to_owned())
            } else {
                from_json(event.get()).map(|event: WireEvent<'_>| event.to_line())
            }
        };
        self.events.iter().map(|event| line(event)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Tool};
    use clap::Parser as _;
    use std::time::{Duration, UNIX_EPOCH};

    fn query(line: &str) -> HistoryQuery {
        let words = ["sidewire", "history"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Tool(Tool::History(args)) => {
                HistoryQuery::new(&args, UNIX_EPOCH + Duration::from_secs(60))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_are_asked_for_from_the_end() {
        let query = query("a b.* --event x,y --event z --tag k=v");
        let first = "/v1/events?channel=a&channel=b.*&event=x%2Cy%2Cz&tag.k=v&order=desc&limit=100";
        assert_eq!(query.target(100, None), first);
        assert_eq!(query.target(5, Some("C")), first.replace("limit=100", "limit=5&before=C"));
    }

    #[test]
    fn what_has_a_beginning_is_asked_for_from_there() {
        let since = query("a --since 10s --until 2024-01-01T00:00:00Z");
        assert_eq!(
            since.target(1, Some("C")),
            "/v1/events?channel=a&since=50000&until=2024-01-01T00%3A00%3A00Z&order=asc&limit=1&after=C"
        );
        let after = query("a --after A");
        assert_eq!(after.target(1, None), "/v1/events?channel=a&after=A&order=asc&limit=1");
        assert_eq!(after.target(1, Some("C")), "/v1/events?channel=a&order=asc&limit=1&after=C");
    }

    #[test]
    fn events_are_printed_in_both_forms() {
        let event = r#"{"type":"event","channel":"a","event":"e","data":1,"id":"i","time":0,"cursor":"c"}"#;
        let page: Page = from_json(&format!(r#"{{"events":[{event}],"cursor":"c","more":false}}"#)).unwrap();
        assert_eq!(page.lines(true).unwrap(), [event]);
        assert_eq!(page.lines(false).unwrap(), ["1970-01-01T00:00:00.000Z a e 1"]);
    }
}
