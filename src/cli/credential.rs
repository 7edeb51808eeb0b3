//! What a command shows to a node that asks who comes.

use super::error::CliError;
use crate::config::{Config, Sources};
use std::path::{Path, PathBuf};

/// Options of commands that talk to a node. A file, as flags can be seen by all users of a host.
#[derive(clap::Args, Clone, Default, Debug)]
pub(super) struct CredentialArgs {
    /// File with the token to show to the node [default: as configured]
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl CredentialArgs {
    /// The token to show; `configured` says where the configuration has one. None where nobody asks.
    pub(super) fn token(
        &self,
        config: &Option<PathBuf>,
        address_is_typed: bool,
        configured: impl Fn(&Config) -> &Path,
    ) -> Result<Option<String>, CliError> {
        let path = match &self.token_file {
            Some(path) => path.clone(),
            // The token of this node is not for another.
            None if address_is_typed => return Ok(None),
            None => match Config::load(Sources::of_process(config.clone())) {
                Ok(config) => configured(&config).to_owned(),
                Err(_) => return Ok(None),
            },
        };
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let token = std::fs::read_to_string(&path).map_err(|error| {
            CliError::Input(format!("the token file {} cannot be read: {error}", path.display()))
        })?;
        Ok(Some(token.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
