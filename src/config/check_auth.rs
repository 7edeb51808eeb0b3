//! What no key of `[auth]` and of TLS can tell by itself.

use super::reader::Reader;
use super::{AllowedOrigin, Config, format_duration};
use std::time::Duration;

/// Clocks that differ by more are broken.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

impl Config {
    pub(super) fn check_auth(&self, reader: &mut Reader) {
        let auth = &self.auth;
        if auth.secret.is_some() && !auth.secret_file.as_os_str().is_empty() {
            reader.refuse("auth.secret_file", "stands beside auth.secret; write one of them");
        }
        if let Some(url) = &auth.jwks_url
            && url.is_plain()
            && !url.is_loopback()
        {
            reader.refuse(
                "auth.jwks_url",
                "without TLS, keys may come from anybody on the way; write \"https://\"",
            );
        }
        if self.webhook.url.is_some() && self.webhook.headers.is_empty() {
            reader.refuse(
                "auth.webhook.headers",
                "names nothing that has a session; write one such as \"cookie\"",
            );
        }
        if self.webhook.timeout.is_zero() {
            reader.refuse("auth.webhook.timeout", "cannot be zero; write a duration such as \"2s\"");
        }
        if self.takes_cookies() && self.client.allowed_origins.contains(&AllowedOrigin::Any) {
            reader.refuse(
                "client.allowed_origins",
                "\"*\" would let every page of the web act for who visits it, as cookies say who that is; name the origins",
            );
        }
        if let Some(grant) = auth.anonymous.0.iter().find(|grant| grant.names_user()) {
            reader.refuse(
                "auth.anonymous",
                format!("{:?} names a user, whom clients without a token do not have", grant.pattern()),
            );
        }
        if auth.leeway > MAX_LEEWAY {
            let most = format_duration(MAX_LEEWAY);
            reader.refuse("auth.leeway", format!("lets expired tokens in for long; write at most {most:?}"));
        }
        if auth.timeout.is_zero() {
            reader.refuse("auth.timeout", "cannot be zero; write a duration such as \"10s\"");
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !auth.cookie.bytes().all(is_token) {
            reader.refuse(
                "auth.cookie",
                "is not the name of a cookie; write the name alone, such as \"session\"",
            );
        }
    }

    pub(super) fn check_tls(&self, reader: &mut Reader) {
        let (app, client, admin) = (&self.app, &self.client, &self.admin);
        for (key, cert, private, ca) in [
            ("app.tls_key_file", &app.tls_cert_file, &app.tls_key_file, &app.tls_client_ca_file),
            ("client.tls_key_file", &client.tls_cert_file, &client.tls_key_file, &client.tls_client_ca_file),
            ("admin.tls_key_file", &admin.tls_cert_file, &admin.tls_key_file, &admin.tls_client_ca_file),
        ] {
            let [cert, private, ca] = [cert, private, ca].map(|path| !path.as_os_str().is_empty());
            if cert != private || (ca && !cert) {
                reader.refuse(key, "goes with tls_cert_file; write both, or none of the TLS keys");
            }
        }
    }
}
