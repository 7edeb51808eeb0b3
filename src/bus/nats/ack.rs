//! What the stream answered to a batch of messages.

use crate::bus::backend::{SendError, SendFailure};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{Message, StatusCode};

/// The answers to a batch, which may come in any order.
pub(super) struct Answers {
    outcomes: Vec<Option<Result<(), SendError>>>,
    /// The number of the first, as the others tell theirs from it.
    first: u64,
    waiting: usize,
    failed: bool,
    /// The last place in the stream that was taken before the batch.
    before: u64,
    highest: u64,
}

impl Answers {
    pub(super) fn new(first: u64, capacity: usize, before: u64) -> Self {
        Self {
            outcomes: Vec::with_capacity(capacity),
            first,
            waiting: 0,
            failed: false,
            before,
            highest: before,
        }
    }

    /// One more is on its way; returns its number.
    pub(super) fn expect(&mut self) -> u64 {
        self.waiting += 1;
        self.outcomes.push(None);
        self.first + self.outcomes.len() as u64 - 1
    }

    /// One more was not even sent.
    pub(super) fn fail(&mut self, error: SendError) {
        self.failed = true;
        self.outcomes.push(Some(Err(error)));
    }

    /// How many answers are missing.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether there is no use in sending more.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// The highest place in the stream that is known to be taken.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Takes an answer. One to something else is passed over.
    pub(super) fn take(&mut self, message: &Message) {
        let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
        let index = number.and_then(|number| number.checked_sub(self.first));
        let slot = index.and_then(|index| self.outcomes.get_mut(usize::try_from(index).ok()?));
        let Some(slot @ None) = slot else { return };
        let outcome = read(message).and_then(|ack| {
            // A stream in which places come again is another one, or has lost its end.
            if !ack.duplicate && ack.sequence <= self.before {
                return Err(SendError::Gone(format!(
                    "the NATS stream gave place {} again, it was deleted or has lost its end",
                    ack.sequence
                )));
            }
            self.highest = self.highest.max(ack.sequence);
            Ok(())
        });
        self.failed |= outcome.is_err();
        *slot = Some(outcome);
        self.waiting -= 1;
    }

    /// The outcome; `missing` is why answers are missing, if any are.
    pub(super) fn outcome(self, missing: SendError) -> Result<(), SendFailure> {
        for (confirmed, outcome) in self.outcomes.into_iter().enumerate() {
            match outcome {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(SendFailure { confirmed, error }),
                None => return Err(SendFailure { confirmed, error: missing }),
            }
        }
        Ok(())
    }
}

fn read(message: &Message) -> Result<PublishAck, SendError> {
    const UNFIT: [ErrorCode; 2] =
        [ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM, ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM];
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(SendError::Gone("the NATS stream is gone, or has no leader now".into()));
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::Ok(ack)) => Ok(ack),
        Ok(Response::Err { error }) if UNFIT.contains(&error.error_code()) => {
            Err(SendError::Unfit(format!("the NATS stream never takes this event: {error}")))
        }
        Ok(Response::Err { error }) => {
            Err(SendError::Refused(format!("the NATS stream takes nothing now: {error}")))
        }
        Err(error) => Err(SendError::Lost(format!("the NATS server's answer cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u64, payload: &str) -> Message {
        Message {
            subject: format!("_INBOX.x.{number}").into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: payload.is_empty().then_some(StatusCode::NO_RESPONDERS),
            description: None,
            length: 0,
        }
    }

    fn stored(number: u64, place: u64) -> Message {
        answer(number, &format!("{{\"stream\":\"S\",\"seq\":{place}}}"))
    }

    fn lost() -> SendError {
        SendError::Lost("missing".into())
    }

    fn three() -> Answers {
        let mut answers = Answers::new(10, 3, 100);
        assert_eq!((answers.expect(), answers.expect(), answers.expect()), (10, 11, 12));
        answers
    }

    #[test]
    fn all_stored_in_any_order_is_success_and_so_is_a_duplicate() {
        let mut answers = three();
        answers.take(&stored(12, 103));
        answers.take(&answer(10, r#"{"stream":"S","seq":7,"duplicate":true}"#));
        for unexpected in [stored(9, 1), stored(13, 1), stored(12, 1), answer(1, "x")] {
            answers.take(&unexpected);
        }
        assert_eq!((answers.waiting(), answers.failed()), (1, false));
        answers.take(&stored(11, 102));
        assert_eq!((answers.waiting(), answers.highest()), (0, 103));
        assert!(answers.outcome(lost()).is_ok());
    }

    #[test]
    fn only_what_stands_before_the_first_failure_is_confirmed() {
        let mut answers = three();
        answers.take(&stored(10, 101));
        answers.take(&stored(12, 102));
        let failure = answers.outcome(lost()).unwrap_err();
        assert_eq!((failure.confirmed, failure.error), (1, lost()));

        let mut answers = three();
        answers.fail(SendError::Unfit("large".into()));
        for number in 10..13 {
            answers.take(&stored(number, 91 + number));
        }
        let failure = answers.outcome(lost()).unwrap_err();
        assert_eq!((failure.confirmed, failure.error), (3, SendError::Unfit("large".into())));
    }

    #[test]
    fn every_failure_has_its_kind() {
        let error =
            |code| format!("{{\"error\":{{\"code\":400,\"err_code\":{code},\"description\":\"d\"}}}}");
        for (answer, is_kind) in [
            (answer(10, ""), (|error| matches!(error, SendError::Gone(_))) as fn(&SendError) -> bool),
            (stored(10, 100), |error| matches!(error, SendError::Gone(_))),
            (answer(10, &error(10054)), |error| matches!(error, SendError::Unfit(_))),
            (answer(10, &error(10047)), |error| matches!(error, SendError::Refused(_))),
            (answer(10, "?"), |error| matches!(error, SendError::Lost(_))),
        ] {
            let mut answers = three();
            answers.take(&answer);
            assert!(answers.failed());
            let failure = answers.outcome(lost()).unwrap_err();
            assert!(failure.confirmed == 0 && is_kind(&failure.error), "{failure:?}");
        }
    }
}
