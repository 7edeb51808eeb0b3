//! `sidewire echo`: the WebSocket framing alone, for conformance suites.

use crate::config::ListenAddress;
use std::process::ExitCode;
use tokio::net::TcpListener;

/// Echoes until the process is ended.
pub(super) fn run(listen: &ListenAddress) -> ExitCode {
    let ListenAddress::Tcp(address) = listen else {
        eprintln!("echo listens on an IP address and a port, such as 127.0.0.1:9001");
        return ExitCode::FAILURE;
    };
    let served = tokio::runtime::Builder::new_multi_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            crate::websocket::echo::echo(TcpListener::bind(address).await?).await;
            Ok(())
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot listen on {address}: {error}");
            ExitCode::FAILURE
        }
    }
}
