//! The `sidewire` binary.

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

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
    Run { #[arg(long)] config: Option<PathBuf>, #[arg(long)] app: Vec<String>, #[arg(long)] client: Vec<String>, #[arg(long)] admin: Vec<String>, #[arg(long)] data_dir: Option<String> },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Echo { listen } => { tokio::runtime::Runtime::new().expect("x").block_on(async { sidewire::websocket::echo::echo(tokio::net::TcpListener::bind(listen).await.expect("x")).await; }); ExitCode::SUCCESS }
        Command::Run { config, app, client, admin, data_dir } => {
            use sidewire::config::{Flag, Sources};
            let mut sources = Sources::of_process(config);
            for (key, name, values) in [("app.listen", "--app", app), ("client.listen", "--client", client), ("admin.listen", "--admin", admin), ("log.dir", "--data-dir", data_dir.into_iter().collect())] { sources.flags.push(Flag { key, name, values }); }
            sidewire::cli::run::run(sources)
        }
    }
}
