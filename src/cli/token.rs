//! `sidewire token`: a token for development, signed with the secret of the configuration.

use super::error::CliError;
use super::output;
use crate::auth::{Algorithm, Claims, GrantTemplate, read_secret, sign};
use crate::config::{Config, Sources};
use crate::publish::unix_ms;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// The user
    #[arg(long, value_name = "USER")]
    sub: Option<String>,
    /// What is allowed, such as 'user.{sub}.>=sub,history'; may be repeated
    #[arg(long = "allow", value_name = "PATTERN=RIGHTS", value_parser = parse_grant)]
    allow: Vec<(String, Vec<String>)>,
    /// Allow everything
    #[arg(long)]
    admin: bool,
    /// For how long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::parse_duration)]
    expires_in: Duration,
    /// Its id, by which it can be revoked
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

fn parse_grant(text: &str) -> Result<(String, Vec<String>), String> {
    let (pattern, rights) =
        text.split_once('=').ok_or("write a pattern, = and rights, such as a.>=sub,pub")?;
    GrantTemplate::parse(pattern, rights.split(',')).map_err(|error| error.to_string())?;
    Ok((pattern.to_owned(), rights.split(',').map(str::to_owned).collect()))
}

/// Prints a token.
pub(super) fn run(args: TokenArgs) -> Result<(), CliError> {
    let auth = Config::load(Sources::of_process(args.config))?.auth;
    let secret = if auth.secret_file.as_os_str().is_empty() {
        auth.secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec()).unwrap_or_default()
    } else {
        read_secret("auth.secret_file", &auth.secret_file)
            .map_err(|error| CliError::Input(error.to_string()))?
    };
    if secret.is_empty() {
        return Err(CliError::Input(
            "the configuration has no auth.secret to sign with; set one, or let the issuer make the token"
                .into(),
        ));
    }
    let expires = (unix_ms() / 1000).saturating_add(args.expires_in.as_secs());
    let claims = Claims {
        sub: args.sub,
        iss: auth.issuer.first().cloned(),
        aud: auth.audience.first().map(|audience| audience.as_str().into()),
        exp: Some(expires.into()),
        nbf: None,
        jti: args.jti,
        channels: args.allow.into_iter().collect(),
        admin: args.admin,
    };
    let allowed = auth.algorithms.into_iter().chain([Algorithm::HS256]);
    let token = allowed.filter_map(|algorithm| sign(&claims, &secret, algorithm).ok()).next();
    let token = token.ok_or_else(|| CliError::Input("no token can be signed with auth.secret".into()))?;
    output::line(&token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_a_pattern_and_rights() {
        let (pattern, rights) = parse_grant("user.{sub}.>=sub,history").unwrap();
        assert_eq!((pattern.as_str(), rights.len()), ("user.{sub}.>", 2));
        for text in ["a", "a=", "a=fly", "a..b=sub", "=sub"] {
            assert!(parse_grant(text).is_err(), "{text}");
        }
    }
}
