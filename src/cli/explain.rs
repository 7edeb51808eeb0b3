//! `sidewire explain`: what a token allows on a channel, and why not.

use super::error::CliError;
use super::output;
use crate::auth::{Identity, Right};
use crate::config::{Config, Sources};
use crate::event::Pattern;
use crate::publish::unix_ms;
use crate::sidecar::authority;
use clap::Args;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// The channel, or a pattern
    channel: String,
    /// The token; without one, what everybody may do
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Prints who the token stands for, and a line for each right. A token that is refused is an error.
pub(super) async fn run(args: ExplainArgs) -> Result<(), CliError> {
    let pattern = Pattern::parse(&args.channel).map_err(|error| CliError::Input(error.to_string()))?;
    let config = Config::load(Sources::of_process(args.config))?;
    let Some(authority) = authority(&config).map_err(|error| CliError::Input(error.to_string()))? else {
        return output::line("no [auth] is configured: everybody who can connect may read everything");
    };
    let identity = match args.token {
        Some(token) => authority
            .identify(&token, unix_ms())
            .await
            .map_err(|refusal| CliError::Input(format!("refused: {refusal}")))?,
        None => match authority.anonymous() {
            Some(anonymous) => (**anonymous).clone(),
            None => {
                return Err(CliError::Input(
                    "refused: there is no token, and auth.anonymous grants nothing".into(),
                ));
            }
        },
    };
    output::lines(explain(&identity, &pattern, &config))
}

fn explain(identity: &Identity, pattern: &Pattern, config: &Config) -> Vec<String> {
    let until = identity.expires.map_or("for ever".to_owned(), |end| {
        let end = UNIX_EPOCH + Duration::from_millis(end.min(253_402_300_799_999));
        format!("until {}", humantime::format_rfc3339_seconds(end))
    });
    let mut lines = vec![format!("user: {}, {until}", identity.user.as_deref().unwrap_or("none"))];
    for right in [Right::Subscribe, Right::Publish, Right::History, Right::Presence] {
        lines.push(format!("{right}: {}", verdict(identity, right, pattern, config)));
    }
    lines
}

fn verdict(identity: &Identity, right: Right, pattern: &Pattern, config: &Config) -> String {
    if let (Right::Publish, Pattern::Exact(channel)) = (right, pattern)
        && config.rule_for(channel).is_some_and(|rule| rule.publish == Some(false))
    {
        return "no, its rule in `channels` lets no client publish".into();
    }
    let permissions = &identity.permissions;
    if permissions.is_everything() {
        return "yes, by `admin`".into();
    }
    let granted: Vec<&str> = permissions.patterns(right).map(Pattern::as_str).collect();
    match (permissions.allow(right, pattern), &*granted) {
        (true, _) => format!("yes, by {}", granted.join(" ")),
        (false, []) => "no, it is granted nowhere".into(),
        (false, _) => {
            format!("no, it is granted on {} and not on all of {}", granted.join(" "), pattern.as_str())
        }
    }
}
