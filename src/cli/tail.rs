//! `sidewire tail`

use super::address::NodeAddress;
use super::credential::CredentialArgs;
use super::error::CliError;
use super::subscribe::{self, SubscribeArgs};
use super::tls::TrustArgs;
use clap::Args;
use std::path::PathBuf;

/// Options of `tail`.
#[derive(Args, Debug)]
pub struct TailArgs {
    /// Channels and patterns
    #[arg(default_value = ">")]
    channels: Vec<String>,
    /// Begin with the last N events
    #[arg(long, value_name = "N", default_value_t = 10)]
    history: u32,
    /// Only events of these names; may be repeated or split by commas
    #[arg(long = "event", value_name = "NAME", value_delimiter = ',')]
    events: Vec<String>,
    /// Print events as on the wire, one JSON object a line
    #[arg(long)]
    json: bool,
    /// The client listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<NodeAddress>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Prints what came last and what comes, until it is interrupted.
pub(super) async fn run(args: TailArgs) -> Result<(), CliError> {
    let TailArgs { channels, history, events, json, client, credential, trust, config } = args;
    // No history at all is what a subscription begins with anyway.
    let history = Some(history).filter(|count| *count > 0);
    let args =
        SubscribeArgs { channels, since: None, history, events, json, client, credential, trust, config };
    subscribe::run(args).await
}
