//! What an operator should know of the server of a bus: whether it answers, how it is set up, what time it has.
//! Nothing on it is changed or made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that is further away makes events look old or new.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// What was found at a server.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Which server answered, in words.
    pub server: String,
    /// How far its clock is ahead of ours, in milliseconds; none where it does not tell.
    pub clock_ahead_ms: Option<i64>,
    /// What is to be said of its settings.
    pub remarks: Vec<Remark>,
}

/// What is to be said of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remark {
    /// As it should be.
    Good(String),
    /// It works, and yet deserves a second thought.
    Doubtful(String),
    /// Promises do not hold so; the words say what to do.
    Bad(String),
}

impl Survey {
    /// What is to be said of its clock.
    pub fn clock(&self) -> Option<Remark> {
        let ahead = self.clock_ahead_ms?;
        let words = format!(
            "{} ms {} this host",
            ahead.unsigned_abs(),
            if ahead < 0 { "behind" } else { "ahead of" }
        );
        Some(if Duration::from_millis(ahead.unsigned_abs()) > CLOCKS_APART {
            Remark::Doubtful(format!(
                "{words}: events expire early or late by as much; keep the clocks of both by NTP"
            ))
        } else {
            Remark::Good(words)
        })
    }
}

/// How far a clock is ahead that showed `theirs` at some time between `asked` and now.
pub(super) fn ahead_ms(theirs: i64, asked: SystemTime) -> i64 {
    let ms = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    };
    let (asked, now) = (ms(asked), ms(SystemTime::now()));
    // Within that time nothing is known.
    theirs.saturating_sub(theirs.clamp(asked.min(now), now.max(asked)))
}

/// Bytes for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_well_as_a_question_can() {
        let asked = SystemTime::now() - Duration::from_secs(1);
        let ms = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        assert_eq!(ahead_ms(ms(asked) + 500, asked), 0);
        assert_eq!(ahead_ms(ms(asked) - 3000, asked), -3000);
        let ahead = ahead_ms(ms(asked) + 61_000, asked);
        assert!((59_000..=60_000).contains(&ahead), "{ahead}");
        let survey =
            |ahead| Survey { server: String::new(), clock_ahead_ms: Some(ahead), remarks: Vec::new() };
        assert_eq!(survey(-20).clock(), Some(Remark::Good("20 ms behind this host".into())));
        assert!(matches!(survey(i64::MIN).clock(), Some(Remark::Doubtful(_))));
        assert!(matches!(survey(60_000).clock(), Some(Remark::Doubtful(words)) if words.contains("NTP")));
    }
}
