//! The keys that tokens are checked with. A key knows the algorithms it is for; a token has no say in it.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use std::fmt;
use std::str::FromStr;

/// Most keys of a published set. Each may be tried for a token that names none.
const MAX_KEYS: usize = 64;

/// How a token is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Algorithm(pub(super) jsonwebtoken::Algorithm);

impl Algorithm {
    /// HMAC with SHA-256.
    pub const HS256: Self = Self(jsonwebtoken::Algorithm::HS256);
}

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        text.parse().map(Self).map_err(|_| AlgorithmError(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The text names no algorithm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlgorithmError(String);

impl fmt::Display for AlgorithmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no algorithm of signed tokens; there are HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
            self.0
        )
    }
}

impl std::error::Error for AlgorithmError {}

/// A key, its name, and what it is for.
pub(super) struct VerificationKey {
    /// The name that a token may call it by.
    pub(super) id: Option<Box<str>>,
    pub(super) key: DecodingKey,
    /// All of one family, never empty.
    pub(super) algorithms: Vec<jsonwebtoken::Algorithm>,
}

/// Why a key cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// The shared secret is empty.
    EmptySecret,
    /// The text holds no public key.
    NotPublicKey,
    /// None of the algorithms that are allowed fits the key.
    NoAlgorithm,
    /// No set of keys (RFC 7517, section 5).
    NotKeySet,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySecret => "the secret is empty; write at least 32 random bytes",
            Self::NotPublicKey => {
                "this is no public key in PEM; write one that begins with -----BEGIN PUBLIC KEY-----, of RSA (2048 bits or more), P-256, P-384 or Ed25519"
            }
            Self::NoAlgorithm => {
                "none of `auth.algorithms` can be checked with the configured key; add one that fits it, or leave the list empty for all that do"
            }
            Self::NotKeySet => "this is no JSON Web Key Set; it must be an object with a list of `keys`",
        })
    }
}

impl std::error::Error for KeyError {}

impl VerificationKey {
    /// A shared secret.
    pub(super) fn secret(secret: &[u8], allowed: &[Algorithm]) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        Self::new(None, DecodingKey::from_secret(secret), AlgorithmFamily::Hmac.algorithms(), allowed)
            .ok_or(KeyError::NoAlgorithm)
    }

    /// A public key in PEM.
    pub(super) fn pem(text: &[u8], allowed: &[Algorithm]) -> Result<Self, KeyError> {
        use jsonwebtoken::Algorithm::{ES256, ES384};
        // A private key would be taken too, and then fit nothing.
        let is_private = text.windows(b"PRIVATE KEY".len()).any(|part| part == b"PRIVATE KEY");
        let (key, fitting) = if is_private {
            return Err(KeyError::NotPublicKey);
        } else if let Ok(key) = DecodingKey::from_rsa_pem(text) {
            (key, AlgorithmFamily::Rsa.algorithms())
        } else if let Ok(key) = DecodingKey::from_ec_pem(text) {
            // An uncompressed point: a byte, then both coordinates.
            let fitting: &[_] = match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(65) => &[ES256],
                Ok(97) => &[ES384],
                _ => return Err(KeyError::NotPublicKey),
            };
            (key, fitting)
        } else if let Ok(key) = DecodingKey::from_ed_pem(text) {
            (key, AlgorithmFamily::Ed.algorithms())
        } else {
            return Err(KeyError::NotPublicKey);
        };
        Self::new(None, key, fitting, allowed).ok_or(KeyError::NoAlgorithm)
    }

    /// The keys of a published set that can check signatures. What is not for us is passed over: a set may hold
    /// keys for encryption, and of kinds that are not known yet.
    pub(super) fn set(text: &[u8], allowed: &[Algorithm]) -> Result<Vec<Self>, KeyError> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| KeyError::NotKeySet)?;
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(keys.filter_map(|key| Self::jwk(&key, allowed)).take(MAX_KEYS).collect())
    }

    fn jwk(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Self> {
        use jsonwebtoken::Algorithm::{ES256, ES384};
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let fitting: &[_] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => &[ES256],
                EllipticCurve::P384 => &[ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                AlgorithmFamily::Ed.algorithms()
            }
            // A secret that is published is none.
            _ => return None,
        };
        let named = match jwk.common.key_algorithm {
            Some(named) => vec![jsonwebtoken::Algorithm::try_from(named).ok()?],
            None => fitting.to_vec(),
        };
        let fitting: Vec<_> = fitting.iter().copied().filter(|algorithm| named.contains(algorithm)).collect();
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| for_signatures)?;
        let id = jwk.common.key_id.as_deref().map(Box::from);
        Self::new(id, key, &fitting, allowed)
    }

    fn new(
        id: Option<Box<str>>,
        key: DecodingKey,
        fitting: &[jsonwebtoken::Algorithm],
        allowed: &[Algorithm],
    ) -> Option<Self> {
        let is_allowed = |algorithm: &jsonwebtoken::Algorithm| {
            allowed.is_empty() || allowed.iter().any(|allowed| allowed.0 == *algorithm)
        };
        let algorithms: Vec<_> = fitting.iter().copied().filter(is_allowed).collect();
        (!algorithms.is_empty()).then_some(Self { id, key, algorithms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, allowed: &[Algorithm]) -> Vec<VerificationKey> {
        VerificationKey::set(text.as_bytes(), allowed).unwrap()
    }

    #[test]
    fn a_key_set_gives_what_can_check_signatures_and_nothing_else() {
        let keys = set(
            r#"{"keys": [
                {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
                {"kty": "RSA", "kid": "rs", "alg": "RS256", "n": "AQAB", "e": "AQAB"},
                {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
                {"kty": "RSA", "kid": "oaep", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"},
                {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
                {"kty": "RSA", "kid": "wrong", "alg": "HS256", "n": "AQAB", "e": "AQAB"},
                {"kty": "new", "kid": "later"},
                17
            ]}"#,
            &[],
        );
        let ids: Vec<_> = keys.iter().filter_map(|key| key.id.as_deref()).collect();
        assert_eq!(ids, ["ed", "rs"]);
        assert_eq!(keys[1].algorithms, [jsonwebtoken::Algorithm::RS256]);
        for text in ["", "[]", "{}", "{\"keys\": {}}", "null"] {
            assert!(VerificationKey::set(text.as_bytes(), &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_configuration_narrows_what_a_key_is_for() {
        let allowed: Vec<Algorithm> = ["HS512", "RS256"].map(|name| name.parse().unwrap()).into();
        let key = VerificationKey::secret(b"a secret", &allowed).unwrap();
        assert_eq!(key.algorithms, [jsonwebtoken::Algorithm::HS512]);
        assert_eq!(VerificationKey::secret(b"a secret", &allowed[1..]).err(), Some(KeyError::NoAlgorithm));
        assert_eq!(VerificationKey::secret(b"", &[]).err(), Some(KeyError::EmptySecret));
        assert_eq!(VerificationKey::pem(b"a secret", &[]).err(), Some(KeyError::NotPublicKey));
        assert!("none".parse::<Algorithm>().is_err());
    }
}
