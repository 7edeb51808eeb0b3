//! Why a connection is closed by this node, and whether its client is to come back: one table.

/// A reason to close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// This node is going away.
    GoingAway,
    /// The log cannot be read now.
    LogUnavailable,
    /// The socket took nothing for too long.
    TooSlow,
    /// The client sent nothing for too long.
    Idle,
    /// The client sends too much.
    RateLimited,
    /// The app asked for it.
    Disconnected,
    /// The client did not say who it is, or its token was revoked.
    Unauthorized,
    /// The client may not have what its URL asks for.
    Forbidden,
    /// The client's token has expired.
    TokenExpired,
    /// What the client waited for has happened (`close_on`).
    Done,
}

impl CloseReason {
    /// The WebSocket close code. 4000–4099: come back with backoff; 4100–4199: do not; 4200: done.
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::LogUnavailable => 4001,
            Self::TooSlow => 4008,
            Self::Idle => 4009,
            Self::RateLimited => 4010,
            Self::Disconnected => 4100,
            Self::Unauthorized => 4101,
            Self::Forbidden => 4103,
            Self::TokenExpired => 4104,
            Self::Done => 4200,
        }
    }

    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going away",
            Self::LogUnavailable => "the log cannot be read now",
            Self::TooSlow => "too slow",
            Self::Idle => "idle",
            Self::RateLimited => "too many messages",
            Self::Disconnected => "disconnected by the app",
            Self::Unauthorized => "unauthorised",
            Self::Forbidden => "forbidden",
            Self::TokenExpired => "token expired",
            Self::Done => "done",
        }
    }

    /// Whether the client is to come back.
    pub const fn retry(self) -> bool {
        matches!(
            self,
            Self::GoingAway | Self::LogUnavailable | Self::TooSlow | Self::Idle | Self::RateLimited
        )
    }

    /// The number under which it is kept in an atomic; 0 is none.
    pub(super) const fn index(self) -> u8 {
        self as u8 + 1
    }

    /// The reason with this number.
    pub(super) fn from_index(index: u8) -> Option<Self> {
        use CloseReason::*;
        [
            GoingAway,
            LogUnavailable,
            TooSlow,
            Idle,
            RateLimited,
            Disconnected,
            Unauthorized,
            Forbidden,
            TokenExpired,
            Done,
        ]
        .into_iter()
        .find(|reason| reason.index() == index)
    }
}
