//! The command line: what can be typed, and the commands that talk to a running node as any client would.

mod address;
mod bench;
mod check_config;
mod credential;
mod doctor;
mod echo;
mod error;
mod explain;
mod generate;
mod health;
mod history;
mod http;
mod log;
mod output;
mod publish;
mod run;
mod scrape;
mod status;
mod subscribe;
mod tail;
mod time;
mod tls;
mod token;
mod trace;
mod websocket;
mod wire;

pub use address::{NodeAddress, NodeAddressError};
pub use bench::BenchArgs;
pub use check_config::CheckConfigArgs;
pub use doctor::DoctorArgs;
pub use error::CliError;
pub use explain::ExplainArgs;
pub use generate::GenerateArgs;
pub use health::HealthArgs;
pub use history::HistoryArgs;
pub use publish::PublishArgs;
pub use status::StatusArgs;
pub use subscribe::SubscribeArgs;
pub use tail::TailArgs;
pub use token::TokenArgs;
pub use trace::TraceArgs;

use crate::config::{Flag, ListenAddress, Sources};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A message-broker sidecar: plain HTTP publishes in, a durable event log, live delivery over WebSocket, SSE
/// and long-poll out.
#[derive(Parser, Debug)]
#[command(name = "sidewire", version, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `sidewire` can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a node
    Run(RunArgs),
    /// Look at the event log of a node that is not running
    #[command(subcommand)]
    Log(LogCommand),
    /// Serve a WebSocket echo over Sidewire's own framing, for conformance suites
    Echo(EchoArgs),
    /// The rest: commands that are done with one answer of a node, or none.
    #[command(flatten)]
    Tool(Tool),
}

/// Commands that run no part of a node.
#[derive(Subcommand, Debug)]
pub enum Tool {
    /// Check a configuration file
    CheckConfig(CheckConfigArgs),
    /// Publish an event
    Publish(PublishArgs),
    /// Print events as they come
    Subscribe(SubscribeArgs),
    /// Print events that are kept
    History(HistoryArgs),
    /// Put load on a running node and measure it
    Bench(BenchArgs),
    /// Succeed while a node is ready
    Health(HealthArgs),
    /// Make a token for development
    Token(TokenArgs),
    /// Say what a token allows on a channel, and why not
    Explain(ExplainArgs),
    /// Show how a running node is doing, on one screen
    Status(StatusArgs),
    /// Look for what is wrong with a node and around it
    Doctor(DoctorArgs),
    /// Print the newest events and follow
    Tail(TailArgs),
    /// Tell what became of an event
    Trace(TraceArgs),
    /// Write man pages and shell completions into a directory
    #[command(hide = true)]
    Generate(GenerateArgs),
}

impl Tool {
    /// Does it. Errors are told on standard error.
    pub async fn execute(self) -> ExitCode {
        let result = match self {
            Self::CheckConfig(args) => check_config::run(args),
            Self::Publish(args) => publish::run(args).await,
            Self::Subscribe(args) => subscribe::run(args).await,
            Self::History(args) => history::run(args).await,
            Self::Bench(args) => bench::run(args).await,
            Self::Health(args) => health::run(args).await,
            Self::Token(args) => token::run(args),
            Self::Explain(args) => explain::run(args).await,
            Self::Status(args) => status::run(args).await,
            Self::Doctor(args) => doctor::run(args).await,
            Self::Tail(args) => tail::run(args).await,
            Self::Trace(args) => trace::run(args).await,
            Self::Generate(args) => generate::run(args),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error.report(),
        }
    }
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the app listener listens; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub app: Vec<ListenAddress>,
    /// Where the client listener listens; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub client: Vec<ListenAddress>,
    /// Where the admin listener listens; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Vec<ListenAddress>,
    /// Directory of the event log
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The bus, such as memory:
    #[arg(long, value_name = "URL")]
    pub bus: Option<String>,
}

impl RunArgs {
    /// The sources of this node's configuration.
    pub fn sources(self) -> Sources {
        let listen = |key, name, addresses: Vec<ListenAddress>| Flag {
            key,
            name,
            values: addresses.iter().map(ToString::to_string).collect(),
        };
        let mut sources = Sources::of_process(self.config);
        sources.flags = vec![
            listen("app.listen", "--app", self.app),
            listen("client.listen", "--client", self.client),
            listen("admin.listen", "--admin", self.admin),
            data_dir_flag(self.data_dir),
            Flag { key: "bus.url", name: "--bus", values: self.bus.into_iter().collect() },
        ];
        sources
    }
}

/// What can be done with a log.
#[derive(Subcommand, Debug)]
pub enum LogCommand {
    /// Print how much it holds
    Stats(LogArgs),
    /// Read all of it and check every sum
    Verify(LogArgs),
    /// Print every event, one JSON object a line
    Export(LogArgs),
    /// Print every event that the bus refused, one JSON object a line
    Rejected(LogArgs),
}

/// Options of `log`.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the event log
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// File with the keys that it is encrypted with
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl LogArgs {
    /// The sources of the configuration that tells where the log is.
    pub fn sources(self) -> Sources {
        let mut sources = Sources::of_process(self.config);
        let key_file = path_values(self.key_file);
        let key_file = Flag { key: "log.encryption_key_file", name: "--key-file", values: key_file };
        sources.flags = vec![data_dir_flag(self.data_dir), key_file];
        sources
    }
}

/// Options of `echo`.
#[derive(Args, Debug)]
pub struct EchoArgs {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    pub listen: ListenAddress,
}

impl Cli {
    /// Does what was asked for.
    pub fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(args) => run::run(args.sources()),
            Command::Log(command) => log::run(command),
            Command::Echo(args) => echo::run(&args.listen),
            Command::Tool(tool) => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(tool.execute()),
                Err(error) => {
                    eprintln!("cannot start: {error}");
                    ExitCode::FAILURE
                }
            },
        }
    }
}

/// Reads the command line. A wrong one is told on standard error and ends the process with code 2.
pub fn parse() -> Cli {
    Cli::parse()
}

fn data_dir_flag(directory: Option<PathBuf>) -> Flag {
    Flag { key: "log.dir", name: "--data-dir", values: path_values(directory) }
}

fn path_values(path: Option<PathBuf>) -> Vec<String> {
    path.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::CommandFactory as _;

    fn run(line: &str) -> RunArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_contract_is_read() {
        for line in [
            "run",
            "run --config c.toml --app 127.0.0.1:1 --app unix:/a --client 127.0.0.1:2 --admin 127.0.0.1:3",
            "run --data-dir /d --bus memory:",
            "check-config c.toml",
            "publish a.b",
            "publish a.b {\"x\":1} --event e --id i --ttl 24h --tag k=v --tag l=w --ack none --app unix:/a",
            "publish a.b -",
            "subscribe a b.* --since 10m --json --event x,y --client http://127.0.0.1:7080",
            "subscribe a --history 5",
            "history a --event x --since 2024-01-01T00:00:00Z --until 1700000000000 --limit 5 --json",
            "log stats --data-dir /d",
            "log verify --key-file /k",
            "log rejected",
            "log export",
            "bench --clients 5 --rate 100 --seconds 2 --size 64",
            "health --admin 127.0.0.1:7090",
            "status --json --admin unix:/a",
            "status --watch",
            "doctor --round-trip --app a:1 --client b:2 --admin c:3 --proxy http://events.example.com",
            "tail",
            "tail a.> --history 3 --json",
            "trace order-42",
            "trace 0190 --json --admin a:1 --admin unix:/b",
            "generate /tmp",
            "echo --listen 127.0.0.1:9001",
            "token --sub ann --allow user.{sub}.>=sub,history --expires-in 10m --jti x",
            "token --admin",
            "explain --token a.b.c user.ann.>",
        ] {
            let words = std::iter::once("sidewire").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "jump",
            "run --app nowhere",
            "publish",
            "publish a --tag novalue",
            "publish a --ack maybe",
            "subscribe",
            "subscribe a --history x",
            "subscribe a --history 5 --since 10m",
            "health --admin https://a:1/path",
            "health --admin https://a:1 --cert-file c",
            "status --json --watch",
            "echo",
            "token --allow a=fly",
            "explain",
        ] {
            let words = std::iter::once("sidewire").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line:?}");
        }
    }

    #[test]
    fn flags_reach_the_configuration() {
        let mut sources = run(
            "sidewire run --app 127.0.0.1:1 --app unix:/a --client 127.0.0.1:2 --data-dir /d --bus memory:",
        )
        .sources();
        sources.environment.clear();
        sources.file = None;
        let config = Config::load(sources).unwrap();
        assert_eq!(config.app.listen.len(), 2);
        assert_eq!(config.client.listen[0].to_string(), "127.0.0.1:2");
        assert_eq!(config.admin.listen, Config::default().admin.listen);
        assert_eq!(config.log.dir, PathBuf::from("/d"));
    }

    #[test]
    fn a_bad_flag_is_named() {
        let mut sources = run("sidewire run --bus http://host").sources();
        sources.environment.clear();
        sources.file = None;
        let message = Config::load(sources).unwrap_err().to_string();
        assert!(message.ends_with("(flag --bus)"), "{message}");
    }
}
