//! The `sidewire` binary.

use clap::{Parser, Subcommand};
use std::io;
use std::net::SocketAddr;

#[derive(Parser)]
#[command(name = "sidewire", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send every WebSocket message back, for conformance suites.
    Echo {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let Command::Echo { listen } = Arguments::parse().command;
    sidewire::websocket::echo::echo(tokio::net::TcpListener::bind(listen).await?).await;
    Ok(())
}
