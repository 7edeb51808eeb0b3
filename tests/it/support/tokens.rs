//! Keys and tokens of another implementation (PyJWT), so that ours is not held against itself.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a token is signed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    Secret,
    Rsa,
    OtherRsa,
    P256,
    P384,
    Ed25519,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Secret => "secret",
            Key::Rsa => "rsa",
            Key::OtherRsa => "rsa-other",
            Key::P256 => "p256",
            Key::P384 => "p384",
            Key::Ed25519 => "ed25519",
        }
    }
}

/// A certificate with its key, and that of who signed it.
pub(crate) struct Certificate {
    pub(crate) authority: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// An issuer of tokens, with keys of its own.
pub(crate) struct Tokens {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Tokens {
    /// What [`Key::Secret`] is.
    pub(crate) const SECRET: &'static str =
        "a secret for tests, of more than 64 bytes, so that HS512 is content too";

    pub(crate) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(root.join(".cache/python/bin/python"))
            .arg(root.join("tests/it/support/tokens.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("PyJWT is there: tests/setup.sh installs it");
        let (asks, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, asks, answers: BufReader::new(answers) }
    }

    /// A configuration that takes tokens of [`Tokens::token`].
    pub(crate) fn config() -> String {
        format!("[auth]\nsecret = {:?}\n", Self::SECRET)
    }

    /// A token by the secret that is good for an hour, unless the claims say otherwise.
    pub(crate) fn token(&mut self, claims: &Value) -> String {
        self.signed(Key::Secret, "HS256", &json!({}), claims)
    }

    /// The same for a user who may do these things.
    pub(crate) fn user(&mut self, user: &str, channels: &Value) -> String {
        self.token(&json!({"sub": user, "channels": channels}))
    }

    /// A token by any key and any algorithm that fits it, with headers of its own.
    pub(crate) fn signed(&mut self, key: Key, algorithm: &str, headers: &Value, claims: &Value) -> String {
        let mut claims = claims.clone();
        if claims.get("exp").is_none() {
            claims["exp"] = in_seconds(3600).into();
        }
        let asked = json!({"what": "token", "key": key.name(), "algorithm": algorithm, "headers": headers, "claims": claims});
        self.ask(&asked).as_str().expect("a token").to_owned()
    }

    /// A token with these headers and claims and nothing else, signed by HMAC with any text, or not signed at all.
    pub(crate) fn forged(&mut self, headers: &Value, claims: &Value, secret: Option<&str>) -> String {
        let asked = json!({"what": "forged", "headers": headers, "claims": claims, "secret": secret});
        self.ask(&asked).as_str().expect("a token").to_owned()
    }

    /// The public key.
    pub(crate) fn pem(&mut self, key: Key) -> String {
        self.ask(&json!({"what": "pem", "key": key.name()})).as_str().expect("PEM").to_owned()
    }

    /// The public key as an issuer publishes it.
    pub(crate) fn jwk(&mut self, key: Key, id: &str) -> Value {
        let mut jwk = self.ask(&json!({"what": "jwk", "key": key.name()}));
        jwk["kid"] = id.into();
        jwk
    }

    /// A certificate for 127.0.0.1 with its key, in PEM, by the authority of this issuer.
    pub(crate) fn certificate(&mut self, serial: u64) -> Certificate {
        let made = self.ask(&json!({"what": "certificate", "serial": serial}));
        let text = |name: &str| made[name].as_str().expect("PEM").to_owned();
        Certificate { authority: text("ca"), chain: text("cert"), key: text("key") }
    }

    fn ask(&mut self, asked: &Value) -> Value {
        writeln!(self.asks, "{asked}").expect("the issuer runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the issuer answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?} to {asked}"))
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        // Our own child; it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A time as tokens have it.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    now + seconds
}
