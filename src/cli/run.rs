//! `sidewire run`: start, obey signals, drain.

use crate::config::{Config, LogFormat, Sources};
use crate::sidecar::{OTHER_DESCRIPTORS, Sidecar};
use crate::systemd::{self, PassedSockets, ServiceManager};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Threads that may read the log at a time. Reads are short; more would only take memory.
const BLOCKING_THREADS: usize = 16;

/// Runs a node until it is told to stop.
pub(super) fn run(sources: Sources) -> ExitCode {
    let passed = match systemd::take_passed_sockets() {
        Ok(passed) => passed,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let config = match Config::load(sources.clone()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let filter = start_logging(&config);
    raise_open_files(config.limits.connections.map_or(0, |most| most.get() as u64));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the threads of the runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(config, sources, passed, filter))
}

/// Raises the limit of open files as far as the system lets us: the usual 1,024 would end at as many clients.
fn raise_open_files(clients: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if let Some(most) = most.filter(|most| *most < clients.saturating_add(OTHER_DESCRIPTORS)) {
        tracing::info!(
            open_files = most,
            "fewer clients than limits.connections allows can connect: the limit of open files ends first"
        );
    }
}

/// What is logged. The NATS client is left out unless it is asked for: of a broken link it says several times what
/// is said once here.
fn filter_text(config: &Config) -> String {
    let asked = config.telemetry.log_level.as_str();
    if asked.contains("async_nats") { asked.to_owned() } else { format!("{asked},async_nats=off") }
}

type FilterHandle = reload::Handle<EnvFilter, tracing_subscriber::Registry>;

async fn serve(config: Config, sources: Sources, passed: PassedSockets, filter: FilterHandle) -> ExitCode {
    // Before anything is started, so that no signal meets the default, which kills.
    let signals =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("cannot listen to signals");
        return ExitCode::FAILURE;
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut sidecar = match Sidecar::start(config, passed).await {
        Ok(sidecar) => sidecar,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut manager = ServiceManager::of_process();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = next_report(&manager) => {
                let (readiness, clients) = sidecar.state();
                manager.report(readiness.condition(), &format!("{readiness}; {clients} clients"));
            }
            _ = hangup.recv() => {
                manager.reloading();
                manager.reloaded(reload(&mut sidecar, &sources, &filter));
            }
        }
    }
    manager.stopping();
    // A second signal means now.
    tokio::select! {
        () = sidecar.stop() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::FAILURE,
        _ = interrupt.recv() => ExitCode::FAILURE,
    }
}

/// Puts the configuration as it is now in force, if it is valid. Says what became of it.
fn reload(sidecar: &mut Sidecar, sources: &Sources, filter: &FilterHandle) -> &'static str {
    let reloaded = Config::load(sources.clone()).map_err(|error| error.to_string()).and_then(|config| {
        let directives = EnvFilter::try_new(filter_text(&config)).map_err(|error| error.to_string())?;
        sidecar.reload(config).map_err(|error| error.to_string())?;
        Ok(directives)
    });
    match reloaded {
        Ok(directives) => {
            // Fails only when the subscriber is gone, and that lives as long as the process.
            let _ = filter.reload(directives);
            "reloaded"
        }
        Err(error) => {
            tracing::error!("not reloaded, the old configuration stays in force: {error}");
            "not reloaded, the old configuration stays in force: see the log lines"
        }
    }
}

/// Until the service manager wants to hear of us again, if there is one.
async fn next_report(manager: &ServiceManager) {
    match manager.interval() {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

fn start_logging(config: &Config) -> FilterHandle {
    let directives =
        EnvFilter::try_new(filter_text(config)).expect("the configuration takes only filters that parse");
    let (filter, handle) = reload::Layer::new(directives);
    let registry = tracing_subscriber::registry().with(filter);
    match config.telemetry.log_format {
        LogFormat::Text => {
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal())).init()
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init();
        }
    }
    handle
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
