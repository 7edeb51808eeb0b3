//! Puts parcels on the stream: all on their way at once, each with its own answer.

use super::ack::Answers;
use super::headers;
use super::link::Link;
use super::stream::Stream;
use crate::bus::backend::{LinkError, Parcel, SendError, SendFailure, Sender};
use crate::bus::envelope;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;

/// So many messages are without an answer at most.
const MOST_UNANSWERED: usize = 4096;
/// Room for headers within what the server takes, beyond what is counted as the event's: names and numbers, and
/// what 32 tags of the longest kind grow by when all of it must be escaped. What is accepted by its size always fits.
const HEADER_BYTES: usize = 24 << 10;

/// Puts parcels on the stream.
pub struct Publisher {
    link: Link,
    stream: Stream,
    answers: Subscriber,
    inbox: String,
    /// The number of the next message.
    next: u64,
    /// The highest place in the stream that is known to be taken.
    highest: u64,
}

impl Publisher {
    /// On a stream whose last place that is taken is `last`.
    pub(super) async fn begin(link: Link, stream: Stream, last: u64) -> Result<Self, LinkError> {
        let inbox = link.client().new_inbox();
        let answers =
            link.client().subscribe(format!("{inbox}.*")).await.map_err(|error| {
                LinkError::Away(format!("cannot subscribe to the server's answers: {error}"))
            })?;
        Ok(Self { link, stream, answers, inbox, next: 1, highest: last })
    }

    fn message(&self, parcel: &Parcel) -> Result<(String, HeaderMap, Bytes), SendError> {
        let (fields, payload) = envelope::fields(parcel);
        let mut headers = headers::written(fields)
            .ok_or_else(|| SendError::Unfit("a field of the event holds a line break".into()))?;
        let subject = match parcel {
            Parcel::Probe { .. } => self.stream.system_subject(),
            Parcel::Event { event, origin, sequence } => {
                headers.insert(NATS_MESSAGE_ID, format!("{origin}-{sequence}"));
                self.stream.subject(&event.channel)
            }
        };
        let payload = Bytes::copy_from_slice(payload.unwrap_or_default());
        let bytes = headers::bytes(&headers) + payload.len();
        let most = self.link.client().max_payload();
        if bytes > most {
            return Err(SendError::Unfit(format!(
                "the event is a message of {bytes} bytes, and the NATS server takes {most}; raise its max_payload"
            )));
        }
        Ok((subject, headers, payload))
    }

    /// Waits for the next answer.
    async fn answer(&mut self, answers: &mut Answers) -> Result<(), SendError> {
        tokio::select! {
            biased;
            answer = self.answers.next() => match answer {
                Some(answer) => {
                    answers.take(&answer);
                    Ok(())
                }
                None => Err(self.link.lost().await),
            },
            reason = self.link.lost() => Err(reason),
        }
    }

    async fn put(&mut self, parcels: &[Parcel], answers: &mut Answers) -> Result<(), SendError> {
        for parcel in parcels {
            while answers.waiting() >= MOST_UNANSWERED {
                self.answer(answers).await?;
            }
            if answers.failed() {
                break;
            }
            match self.message(parcel) {
                Err(error) => answers.fail(error),
                Ok((subject, headers, payload)) => {
                    let reply = format!("{}.{}", self.inbox, answers.expect());
                    let client = self.link.client();
                    let sent = client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
                    if sent.is_err() {
                        return Err(self.link.lost().await);
                    }
                }
            }
        }
        while answers.waiting() > 0 {
            self.answer(answers).await?;
        }
        Ok(())
    }
}

impl Sender for Publisher {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        let mut answers = Answers::new(self.next, parcels.len(), self.highest);
        self.next += parcels.len() as u64;
        let put = self.put(parcels, &mut answers).await;
        self.highest = answers.highest();
        // Without an error of the link nothing is missing but what was not sent after a failure.
        answers.outcome(put.err().unwrap_or_else(|| SendError::Lost("not sent".into())))
    }

    fn max_event_bytes(&self) -> usize {
        let most = self.link.client().max_payload();
        most - HEADER_BYTES.min(most / 2)
    }
}
