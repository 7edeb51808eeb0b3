//! Why a connection has to be failed (RFC 6455 section 7.1.7).

use std::fmt;

/// What a client did that ends its connection, told apart by the close code it is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// It broke a rule of the framing: 1002.
    Broken(Rule),
    /// Text, or the reason of a close, is not UTF-8: 1007.
    NotUtf8,
    /// The message is longer than allowed: 1009.
    TooBig,
}

impl ProtocolError {
    /// The code of the close frame that tells the client (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Broken(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }

    /// What was wrong, short enough for a close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Broken(rule) => rule.reason(),
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooBig => "message too big",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ProtocolError {}

impl From<Rule> for ProtocolError {
    fn from(rule: Rule) -> Self {
        Self::Broken(rule)
    }
}

/// A rule of the framing that a client broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// RSV1 to RSV3 belong to extensions, and none is negotiated (section 5.2).
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing yet (section 5.2).
    ReservedOpcode,
    /// A client masks every frame, or proxies on the way could be poisoned (sections 5.1 and 10.3).
    Unmasked,
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A control frame of more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A control frame in fragments (section 5.5).
    ControlFragmented,
    /// A continuation of no message (section 5.4).
    NothingToContinue,
    /// A new message before the last fragment of the one before (section 5.4).
    MessageUnfinished,
    /// A close frame of one byte has half a code (section 5.5.1).
    CloseTooShort,
    /// A code that must not be sent (section 7.4).
    CloseCode,
}

impl Rule {
    fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits set without an extension",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "client frame without mask",
            Self::LengthNotMinimal => "frame length not in its shortest form",
            Self::ControlTooLong => "control frame longer than 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::NothingToContinue => "continuation frame without a message",
            Self::MessageUnfinished => "new message before the end of the last",
            Self::CloseTooShort => "close frame of one byte",
            Self::CloseCode => "close code must not be sent",
        }
    }
}
