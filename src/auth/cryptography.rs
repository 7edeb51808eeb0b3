//! The signatures of tokens, by ring: the one cryptography that TLS brings along already.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::{hmac, signature};

/// Makes ring the cryptography of tokens. To be called before any token is looked at; again does nothing.
pub(super) fn install() {
    // It fails only where it was installed before, by us.
    let _ = PROVIDER.install_default();
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // For making key sets, which Sidewire never does.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

fn unsupported() -> Error {
    new_error(ErrorKind::UnsupportedAlgorithm)
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// Signs with a shared secret, for `sidewire token`: private keys are the issuer's.
struct Mac {
    key: hmac::Key,
    algorithm: Algorithm,
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match hmac_algorithm(*algorithm) {
        Some(mac) if key.family() == AlgorithmFamily::Hmac => {
            Ok(Box::new(Mac { key: hmac::Key::new(mac, key.as_bytes()), algorithm: *algorithm }))
        }
        _ => Err(unsupported()),
    }
}

impl Signer<Vec<u8>> for Mac {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.key, message).as_ref().to_vec())
    }
}

impl JwtSigner for Mac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Mac {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // In constant time.
        hmac::verify(&self.key, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Mac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Checks a signature with a public key.
struct PublicKey {
    key: DecodingKeyKind,
    algorithm: Algorithm,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // The key says what it is for, whatever the token says: a public key is never taken for a shared secret.
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    if let Some(mac) = hmac_algorithm(*algorithm) {
        let key = hmac::Key::new(mac, key.try_get_as_bytes()?);
        return Ok(Box::new(Mac { key, algorithm: *algorithm }));
    }
    Ok(Box::new(PublicKey { key: key.kind().clone(), algorithm: *algorithm }))
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match (&self.key, rsa_parameters(self.algorithm)) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(parameters)) => {
                signature::RsaPublicKeyComponents { n: strip_zeros(n), e: strip_zeros(e) }
                    .verify(parameters, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), Some(parameters)) => {
                signature::UnparsedPublicKey::new(parameters, key).verify(message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), None) => {
                signature::UnparsedPublicKey::new(curve(self.algorithm)?, key).verify(message, signature)
            }
            (DecodingKeyKind::RsaModulusExponent { .. }, None) => return Err(SignatureError::new()),
        };
        verified.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Result<&'static dyn signature::VerificationAlgorithm, SignatureError> {
    match algorithm {
        Algorithm::ES256 => Ok(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Ok(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Ok(&signature::ED25519),
        _ => Err(SignatureError::new()),
    }
}

/// Some issuers write numbers with zeros in front, which ring does not take.
fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
