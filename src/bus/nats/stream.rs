//! The stream on the server: made when it is missing, checked when it is there.

use super::headers;
use crate::bus::backend::LinkError;
use crate::bus::envelope;
use crate::event::{Channel, Epoch};
use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, State, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use serde::Serialize;
use std::time::Duration;

/// Where the epoch stands in the metadata of the stream.
const EPOCH: &str = "sidewire-epoch";
/// How long the server remembers what came, so that nothing is stored twice. The layer above drops what is sent
/// again later.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Nodes that come at once may change the stream under each other: each time one looks again.
const ATTEMPTS: usize = 5;

/// For one look at the stream, and how often one looks at one that does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_millis(750);
const LOOKS: usize = 6;

/// How the server keeps events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Where.
    pub storage: Storage,
    /// On how many servers.
    pub replicas: usize,
    /// For how long.
    pub retention: Duration,
    /// How many bytes at most; `None` is no bound.
    pub max_bytes: Option<u64>,
}

/// Where the server keeps events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// On disk.
    File,
    /// In memory: gone when its servers are.
    Memory,
}

/// The stream of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    name: String,
    subjects: String,
    kept: Kept,
}

impl Stream {
    /// The stream of this namespace, kept so.
    pub(super) fn new(namespace: &str, kept: Kept) -> Self {
        Self { name: format!("SIDEWIRE_{namespace}"), subjects: format!("sidewire.{namespace}"), kept }
    }

    /// Its name on the server.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The subject of events on a channel.
    pub(super) fn subject(&self, channel: &Channel) -> String {
        format!("{}.ev.{channel}", self.subjects)
    }

    /// The subject of probes and notes.
    pub(super) fn system_subject(&self) -> String {
        format!("{}.sys", self.subjects)
    }

    /// Makes the stream or checks it, and says which log it is and how far it goes.
    pub(super) async fn ensure(&self, context: &Context) -> Result<(Epoch, State), LinkError> {
        for _ in 0..ATTEMPTS {
            let Some(info) = self.look(context).await? else {
                self.make(context).await?;
                continue;
            };
            let mut config = info.config;
            let outdated = self.bring_up_to_date(&mut config).map_err(LinkError::Refused)?;
            match epoch(&config) {
                Some(epoch) if !outdated => return Ok((epoch, info.state)),
                Some(_) => {}
                None => set_epoch(&mut config, Epoch::fresh()),
            }
            self.update(context, &config).await?;
            tracing::info!(stream = self.name, "brought the settings of the NATS stream up to date");
        }
        Err(LinkError::Away(format!(
            "the NATS stream {} changed each time it was looked at; do two nodes have different settings in [bus]?",
            self.name
        )))
    }

    /// Begins a new epoch unless `lost` is no longer the epoch, and says which it is then. All nodes that find
    /// `lost` incomplete at the same time agree: each reads again what the last one wrote, and one that was
    /// overtaken all the same learns so from the note.
    pub(super) async fn renew(&self, context: &Context, lost: Epoch) -> Result<(Epoch, State), LinkError> {
        let (found, state) = self.ensure(context).await?;
        if found != lost {
            return Ok((found, state));
        }
        let Some(mut info) = self.look(context).await? else {
            return self.ensure(context).await;
        };
        set_epoch(&mut info.config, Epoch::fresh());
        self.update(context, &info.config).await?;
        let (found, _) = self.ensure(context).await?;
        tracing::warn!(
            stream = self.name,
            epoch = %found,
            "the NATS stream has lost events that this node has: a new epoch begins"
        );
        self.note(context, found).await?;
        self.ensure(context).await
    }

    /// Tells the nodes that are connected.
    async fn note(&self, context: &Context, epoch: Epoch) -> Result<(), LinkError> {
        let headers = headers::written(envelope::epoch_fields(epoch)).ok_or_else(|| {
            LinkError::Refused(
                "an epoch is no header, which is a mistake in Sidewire: please report it".into(),
            )
        })?;
        let answer =
            context.client().request_with_headers(self.system_subject(), headers, Bytes::new()).await;
        answer.map(|_| ()).map_err(|error| {
            LinkError::Away(format!("cannot write to the NATS stream {}: {error}", self.name))
        })
    }

    async fn look(&self, context: &Context) -> Result<Option<Info>, LinkError> {
        match self.information(context).await? {
            Response::Ok(info) => Ok(Some(info)),
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            Response::Err { error } => Err(refused(&error, "look at", &self.name)),
        }
    }

    /// A stream without a leader answers nothing, and not later either: a question that is asked again is answered
    /// as soon as there is one.
    async fn information(&self, context: &Context) -> Result<Response<Info>, LinkError> {
        let mut impatient = context.clone();
        impatient.set_timeout(LOOK_TIMEOUT);
        let mut looks = 1;
        loop {
            let answer = impatient.request(format!("STREAM.INFO.{}", self.name), &()).await;
            match answer {
                Err(error) if error.kind() == RequestErrorKind::TimedOut && looks < LOOKS => looks += 1,
                answer => return answer.map_err(|error| unanswered(&error)),
            }
        }
    }

    async fn make(&self, context: &Context) -> Result<(), LinkError> {
        let epoch = Epoch::fresh();
        let mut config = self.config();
        set_epoch(&mut config, epoch);
        let answer: Response<Info> = ask(context, format!("STREAM.CREATE.{}", self.name), &config).await?;
        match answer {
            Response::Ok(_) => {
                tracing::info!(stream = self.name, %epoch, "made the NATS stream");
                Ok(())
            }
            // Another node was faster; its epoch counts.
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
            Response::Err { error } => Err(refused(&error, "make", &self.name)),
        }
    }

    async fn update(&self, context: &Context, config: &Config) -> Result<(), LinkError> {
        let answer: Response<Info> = ask(context, format!("STREAM.UPDATE.{}", self.name), config).await?;
        match answer {
            Response::Ok(_) => Ok(()),
            Response::Err { error } => Err(refused(&error, "update", &self.name)),
        }
    }

    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            description: Some("Events of Sidewire".into()),
            subjects: self.all_subjects().into(),
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: self.storage(),
            num_replicas: self.kept.replicas,
            max_age: self.kept.retention,
            max_bytes: self.max_bytes(),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            duplicate_window: self.duplicate_window(),
            allow_direct: true,
            ..Config::default()
        }
    }

    fn all_subjects(&self) -> [String; 2] {
        [format!("{}.ev.>", self.subjects), self.system_subject()]
    }

    fn storage(&self) -> StorageType {
        match self.kept.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        }
    }

    fn max_bytes(&self) -> i64 {
        self.kept.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// The server takes none that is longer than what it keeps.
    fn duplicate_window(&self) -> Duration {
        DUPLICATE_WINDOW.min(self.kept.retention)
    }

    /// Changes what is ours to change, and says whether anything was to be changed. What would lose events, or
    /// cannot be changed, or is more the operator's business, is refused with what to do.
    fn bring_up_to_date(&self, config: &mut Config) -> Result<bool, String> {
        let problem = |what: String| Err(format!("the NATS stream {} {what}", self.name));
        if config.retention != RetentionPolicy::Limits || config.mirror.is_some() || config.sealed {
            return problem(
                "is a work queue, an interest stream, a mirror or sealed; delete it, or choose another bus.namespace"
                    .into(),
            );
        }
        if config.no_ack
            || config.discard != DiscardPolicy::Old
            || config.max_messages_per_subject > 0
            || config.max_message_size > 0
        {
            return problem(
                "does not acknowledge, discards new messages, or bounds messages per subject or their size; mend it with `nats stream edit`, or delete it"
                    .into(),
            );
        }
        if let Some(missing) = self
            .all_subjects()
            .iter()
            .find(|ours| !config.subjects.iter().any(|subject| covers(subject, ours)))
        {
            return problem(format!("does not take the subject {missing}; add it with `nats stream edit`"));
        }
        if config.storage != self.storage() {
            return problem(format!(
                "is not kept in {:?} storage, and that cannot be changed; set bus.storage as the stream is, or delete the stream",
                self.kept.storage
            ));
        }
        if config.num_replicas != self.kept.replicas {
            return problem(format!(
                "has {} replicas and bus.replicas is {}; make them agree, with `nats stream edit --replicas` or in the configuration",
                config.num_replicas, self.kept.replicas
            ));
        }
        let before = config.clone();
        config.max_age = self.kept.retention;
        config.max_bytes = self.max_bytes();
        config.duplicate_window = config.duplicate_window.min(self.kept.retention);
        Ok(*config != before)
    }
}

fn epoch(config: &Config) -> Option<Epoch> {
    let text = config.metadata.get(EPOCH)?;
    u64::from_str_radix(text, 16).ok().map(Epoch)
}

fn set_epoch(config: &mut Config, epoch: Epoch) {
    config.metadata.insert(EPOCH.into(), epoch.to_string());
}

/// Whether all that fits the second subject fits the first.
fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = narrow.split('.');
    for token in wide.split('.') {
        match (token, narrow.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(other)) if other != ">" => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

async fn ask<T: serde::de::DeserializeOwned>(
    context: &Context,
    subject: String,
    payload: &impl Serialize,
) -> Result<Response<T>, LinkError> {
    context.request(subject, payload).await.map_err(|error| unanswered(&error))
}

fn unanswered(error: &RequestError) -> LinkError {
    match error.kind() {
        RequestErrorKind::NoResponders => LinkError::Refused(NO_JETSTREAM.into()),
        RequestErrorKind::TimedOut => {
            LinkError::Away("JetStream does not answer; does its cluster have a leader?".into())
        }
        _ => LinkError::Away(format!("JetStream cannot be asked: {error}")),
    }
}

const NO_JETSTREAM: &str = "the NATS server has no JetStream, or not for this account; start it with `jetstream` enabled, or set bus.mode = \"core\"";

/// What it means that the server does not let this node `act` on the stream.
pub(super) fn refused(error: &async_nats::jetstream::Error, act: &str, stream: &str) -> LinkError {
    const NOT_FOUND: usize = 404;
    const UNAVAILABLE: usize = 503;
    let disabled = [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT];
    if disabled.contains(&error.error_code()) {
        LinkError::Refused(NO_JETSTREAM.into())
    } else if [NOT_FOUND, UNAVAILABLE].contains(&error.code()) {
        // Gone between two questions, or without a leader.
        LinkError::Away(format!("the NATS stream {stream} is not available now: {error}"))
    } else {
        LinkError::Refused(format!("NATS does not let this node {act} the stream {stream}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        let kept =
            Kept { storage: Storage::File, replicas: 1, retention: Duration::from_secs(60), max_bytes: None };
        Stream::new("test", kept)
    }

    #[test]
    fn a_subject_covers_what_fits_it() {
        for (wide, narrow, is_covered) in [
            ("a.ev.>", "a.ev.>", true),
            ("a.>", "a.ev.>", true),
            (">", "a.ev.>", true),
            ("a.*", "a.sys", true),
            ("a.*.>", "a.ev.>", true),
            ("a.ev.*", "a.ev.>", false),
            ("a.ev.x.>", "a.ev.>", false),
            ("a.sys.>", "a.sys", false),
            ("a", "a.sys", false),
            ("b.>", "a.sys", false),
        ] {
            assert_eq!(covers(wide, narrow), is_covered, "{wide} {narrow}");
        }
    }

    #[test]
    fn what_is_ours_to_change_is_changed() {
        let stream = stream();
        let mut config = stream.config();
        assert_eq!(config.duplicate_window, Duration::from_secs(60));
        assert_eq!(stream.bring_up_to_date(&mut config), Ok(false));
        config.max_age = Duration::from_secs(5);
        config.max_bytes = 7;
        assert_eq!(stream.bring_up_to_date(&mut config), Ok(true));
        assert_eq!((config.max_age, config.max_bytes), (Duration::from_secs(60), -1));
    }

    #[test]
    fn what_would_lose_events_is_refused() {
        type Spoil = (fn(&mut Config), &'static str);
        let spoils: [Spoil; 9] = [
            (|config| config.retention = RetentionPolicy::WorkQueue, "work queue"),
            (|config| config.sealed = true, "sealed"),
            (|config| config.no_ack = true, "does not acknowledge"),
            (|config| config.discard = DiscardPolicy::New, "discards new"),
            (|config| config.max_messages_per_subject = 1, "per subject"),
            (|config| config.max_message_size = 9, "their size"),
            (|config| config.subjects = vec!["sidewire.test.sys".into()], "sidewire.test.ev.>"),
            (|config| config.storage = StorageType::Memory, "bus.storage"),
            (|config| config.num_replicas = 3, "bus.replicas"),
        ];
        for (spoil, words) in spoils {
            let mut config = stream().config();
            spoil(&mut config);
            let message = stream().bring_up_to_date(&mut config).expect_err(words);
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn the_epoch_is_in_the_metadata() {
        let mut config = stream().config();
        assert_eq!(epoch(&config), None);
        set_epoch(&mut config, Epoch(0xab));
        assert_eq!(config.metadata[EPOCH], "00000000000000ab");
        assert_eq!(epoch(&config), Some(Epoch(0xab)));
    }
}
