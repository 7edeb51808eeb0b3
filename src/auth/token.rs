//! Tokens: JSON Web Tokens (RFC 7519), checked and, for development, made.

use super::cryptography;
use super::identity::Identity;
use super::keys::{Algorithm, VerificationKey};
use super::permissions::{GrantTemplate, Permissions};
use super::refusal::Reason;
use crate::event::UnixMs;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest token.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Most patterns of one token.
const MAX_GRANTS: usize = 1000;
/// Longest user name and longest token id.
const MAX_NAME_BYTES: usize = 255;

/// What a token must say besides having a good signature.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TokenRules {
    /// Any of these issuers; none is any.
    pub issuers: Vec<String>,
    /// Any of these audiences; none is that the token must name none.
    pub audiences: Vec<String>,
    /// How much the clocks of issuer and node may differ.
    pub leeway: Duration,
    /// Whether a token must end.
    pub require_exp: bool,
}

/// The claims that are read; others may be there.
#[derive(Serialize, Deserialize, Default, Debug)]
pub struct Claims {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The issuer. Read for its type: RFC 7519 lets it be one text only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<serde_json::Value>,
    /// When it ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<serde_json::Number>,
    /// When it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<serde_json::Number>,
    /// Its id, for revoking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What is allowed where.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, Vec<String>>,
    /// Whether everything is allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

/// A token that was taken apart and not yet believed.
pub(super) struct Unverified<'t> {
    token: &'t str,
    algorithm: jsonwebtoken::Algorithm,
    /// Names a key; nothing but a name to compare with.
    pub(super) key_id: Option<String>,
}

impl<'t> Unverified<'t> {
    pub(super) fn read(token: &'t str) -> Result<Self, Reason> {
        cryptography::install();
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TooLong);
        }
        // What else the header says (keys, addresses of keys) is not looked at by anybody.
        let header = decode_header(token).map_err(|_| Reason::Malformed)?;
        if header.crit.is_some() {
            return Err(Reason::Critical);
        }
        Ok(Self { token, algorithm: header.alg, key_id: header.kid })
    }

    /// The claims, if any of the keys fits.
    pub(super) fn verify<'k>(
        &self,
        keys: impl Iterator<Item = &'k VerificationKey>,
        rules: &TokenRules,
    ) -> Result<Claims, Reason> {
        let mut reason = Reason::NoKey;
        for key in keys.filter(|key| key.algorithms.contains(&self.algorithm)) {
            match decode::<Claims>(self.token, &key.key, &validation(key, rules)) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.into_kind() {
                    ErrorKind::InvalidSignature => reason = Reason::Signature,
                    kind => return Err(reason_of(kind)),
                },
            }
        }
        Err(reason)
    }
}

fn validation(key: &VerificationKey, rules: &TokenRules) -> Validation {
    let mut validation = Validation::default();
    validation.algorithms.clone_from(&key.algorithms);
    validation.leeway = rules.leeway.as_secs();
    validation.validate_nbf = true;
    validation.required_spec_claims.clear();
    if rules.require_exp {
        validation.required_spec_claims.insert("exp".into());
    }
    if !rules.issuers.is_empty() {
        validation.set_issuer(&rules.issuers);
        validation.required_spec_claims.insert("iss".into());
    }
    if !rules.audiences.is_empty() {
        validation.set_audience(&rules.audiences);
        validation.required_spec_claims.insert("aud".into());
    }
    validation
}

fn reason_of(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::ExpiredSignature => Reason::Expired,
        ErrorKind::ImmatureSignature => Reason::NotYet,
        ErrorKind::MissingRequiredClaim(claim) => Reason::Missing(claim),
        ErrorKind::InvalidClaimFormat(claim) => {
            Reason::Claim(format!("the claim `{claim}` is no number of seconds"))
        }
        ErrorKind::InvalidIssuer => Reason::Claim("the token is of another issuer (`iss`)".into()),
        ErrorKind::InvalidAudience => Reason::Claim(
            "the token is for another audience (`aud`), or for one where `auth.audience` names none".into(),
        ),
        // The text of serde has a part of the token in it.
        ErrorKind::Json(_) => Reason::Claim("a claim has the wrong type".into()),
        _ => Reason::Malformed,
    }
}

impl Claims {
    /// The identity that the claims describe. `default` is granted to everybody with a token.
    pub fn identity(
        &self,
        rules: &TokenRules,
        default: &[GrantTemplate],
        now: UnixMs,
    ) -> Result<Identity, Reason> {
        let name = |claim: &str, text: &Option<String>| match text.as_deref() {
            Some(text)
                if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) =>
            {
                Err(Reason::Claim(format!(
                    "`{claim}` must be 1 to {MAX_NAME_BYTES} bytes without control characters"
                )))
            }
            text => Ok(text.map(Box::from)),
        };
        let (user, token_id): (Option<Box<str>>, _) = (name("sub", &self.sub)?, name("jti", &self.jti)?);
        let permissions =
            if self.admin { Permissions::everything() } else { self.permissions(user.as_deref(), default)? };
        // Who comes within the leeway has until its end; who comes in time has until `exp` and no longer.
        let expires = self.expires().map(|end| {
            let late = now.saturating_sub(end);
            if late > 0 || end == now { end.saturating_add(rules.leeway.as_millis() as u64) } else { end }
        });
        Ok(Identity { user, token_id, expires, permissions })
    }

    fn permissions(&self, user: Option<&str>, default: &[GrantTemplate]) -> Result<Permissions, Reason> {
        if self.channels.len() > MAX_GRANTS {
            return Err(Reason::Claim(format!("`channels` may have at most {MAX_GRANTS} patterns")));
        }
        let claimed = self.channels.iter().map(|(pattern, rights)| {
            GrantTemplate::parse(pattern, rights.iter().map(String::as_str))
                .and_then(|template| template.fill(user))
        });
        // A default for users is none for a token without one.
        let default = default.iter().filter(|template| user.is_some() || !template.names_user());
        let grants = claimed.chain(default.map(|template| template.fill(user)));
        let grants: Result<Vec<_>, _> = grants.collect();
        grants.map(Permissions::new).map_err(|error| Reason::Claim(format!("`channels`: {error}")))
    }

    /// `exp` in milliseconds.
    fn expires(&self) -> Option<UnixMs> {
        let seconds = self.exp.as_ref()?.as_f64()?;
        // A float that is too large becomes the largest number.
        Some((seconds * 1000.0) as UnixMs)
    }
}

/// Signs claims with a shared secret, for development.
pub fn sign(claims: &Claims, secret: &[u8], algorithm: Algorithm) -> Result<String, SignError> {
    cryptography::install();
    encode(&Header::new(algorithm.0), claims, &EncodingKey::from_secret(secret)).map_err(|_| SignError)
}

/// Only HMAC signs here: the other algorithms need a private key, which is the issuer's alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignError;

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn rules() -> TokenRules {
        TokenRules { require_exp: true, leeway: Duration::from_secs(5), ..TokenRules::default() }
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn with_header(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
        let signature = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn verify(token: &str, rules: &TokenRules) -> Result<Claims, Reason> {
        let key = VerificationKey::secret(SECRET, &[]).unwrap();
        Unverified::read(token)?.verify([&key].into_iter(), rules)
    }

    fn claimed(claims: &Value) -> Result<Claims, Reason> {
        verify(&with_header(&json!({"alg": "HS256", "typ": "JWT"}), claims), &rules())
    }

    #[test]
    fn a_token_of_ours_is_taken() {
        let claims = Claims { sub: Some("ann".into()), exp: Some((now() + 60).into()), ..Claims::default() };
        let token = sign(&claims, SECRET, Algorithm::HS256).unwrap();
        assert_eq!(verify(&token, &rules()).unwrap().sub.as_deref(), Some("ann"));
        assert_eq!(sign(&claims, SECRET, "RS256".parse().unwrap()), Err(SignError));
    }

    #[test]
    fn times_are_numbers_and_checked() {
        let now = now();
        assert!(claimed(&json!({"exp": now + 60})).is_ok());
        assert!(claimed(&json!({"exp": now as f64 + 60.5, "nbf": now})).is_ok());
        assert_eq!(claimed(&json!({})).err(), Some(Reason::Missing("exp".into())));
        assert_eq!(claimed(&json!({"exp": now - 60})).err(), Some(Reason::Expired));
        assert_eq!(claimed(&json!({"exp": now + 60, "nbf": now + 30})).err(), Some(Reason::NotYet));
        for exp in
            [json!((now + 60).to_string()), json!(null), json!(-1), json!([now + 60]), json!(true), json!({})]
        {
            assert!(claimed(&json!({"exp": exp})).is_err(), "{exp}");
        }
        assert!(claimed(&json!({"exp": now + 60, "nbf": "soon"})).is_err());
        let open = TokenRules { require_exp: false, ..rules() };
        let endless = with_header(&json!({"alg": "HS256"}), &json!({}));
        assert!(verify(&endless, &open).is_ok());
        let text = with_header(&json!({"alg": "HS256"}), &json!({"exp": "never"}));
        assert!(verify(&text, &open).is_err());
    }

    #[test]
    fn headers_decide_nothing() {
        let claims = json!({"exp": now() + 60});
        for (header, good) in [
            (json!({"alg": "HS256", "kid": "../../dev/null"}), true),
            (
                json!({"alg": "HS256", "jku": "https://evil.example/keys", "x5u": "https://evil.example"}),
                true,
            ),
            (json!({"alg": "none"}), false),
            (json!({"alg": "None"}), false),
            (json!({"alg": "RS256"}), false),
            (json!({"alg": "HS384"}), false),
            (json!({"alg": ["HS256"]}), false),
            (json!({"alg": "HS256", "crit": ["exp"]}), false),
            (json!({"alg": "HS256", "kid": 7}), false),
            (json!({}), false),
        ] {
            assert_eq!(verify(&with_header(&header, &claims), &rules()).is_ok(), good, "{header}");
        }
        let good = with_header(&json!({"alg": "HS256"}), &claims);
        let (message, _) = good.rsplit_once('.').unwrap();
        for token in [
            "",
            ".",
            "..",
            "a.b.c",
            message,
            &format!("{message}."),
            &format!("{good}.x"),
            &"x".repeat(20_000),
        ] {
            assert!(verify(token, &rules()).is_err(), "{token}");
        }
    }

    #[test]
    fn issuer_and_audience_are_strict() {
        let rules =
            TokenRules { issuers: vec!["a".into()], audiences: vec!["x".into(), "y".into()], ..rules() };
        let exp = now() + 60;
        for (claims, good) in [
            (json!({"exp": exp, "iss": "a", "aud": "x"}), true),
            (json!({"exp": exp, "iss": "a", "aud": ["z", "y"]}), true),
            (json!({"exp": exp, "iss": "a"}), false),
            (json!({"exp": exp, "aud": "x"}), false),
            (json!({"exp": exp, "iss": "b", "aud": "x"}), false),
            (json!({"exp": exp, "iss": ["a"], "aud": "x"}), false),
            (json!({"exp": exp, "iss": "a", "aud": "z"}), false),
            (json!({"exp": exp, "iss": "a", "aud": []}), false),
            (json!({"exp": exp, "iss": "a", "aud": 7}), false),
        ] {
            let token = with_header(&json!({"alg": "HS256"}), &claims);
            assert_eq!(verify(&token, &rules).is_ok(), good, "{claims}");
        }
        assert!(claimed(&json!({"exp": exp, "aud": "somebody else"})).is_err());
    }

    #[test]
    fn claims_become_permissions_or_nothing() {
        let identity = |claims: Value| -> Result<Identity, Reason> {
            let claims: Claims = serde_json::from_value(claims).unwrap();
            claims.identity(&rules(), &[GrantTemplate::parse("all.{sub}", ["sub"]).unwrap()], 1_000_000)
        };
        let ann =
            identity(json!({"sub": "ann", "exp": 2000, "channels": {"user.{sub}.>": ["sub", "history"]}}))
                .unwrap();
        assert_eq!(ann.permissions.grants().len(), 2);
        assert_eq!((ann.user.as_deref(), ann.expires), (Some("ann"), Some(2_000_000)));
        assert_eq!(identity(json!({"exp": 999})).unwrap().expires, Some(1_004_000));
        assert_eq!(identity(json!({"exp": 1e300})).unwrap().expires, Some(u64::MAX));
        assert!(identity(json!({"admin": true})).unwrap().permissions.is_everything());
        for claims in [
            json!({"sub": "a.>", "channels": {"user.{sub}": ["sub"]}}),
            json!({"channels": {"user.{sub}": ["sub"]}}),
            json!({"channels": {"a": ["everything"]}}),
            json!({"channels": {"a..b": ["sub"]}}),
            json!({"sub": "a\nb"}),
            json!({"sub": ""}),
            json!({"jti": "x".repeat(300)}),
        ] {
            assert!(identity(claims.clone()).is_err(), "{claims}");
        }
    }
}
