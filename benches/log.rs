//! What the event log costs: `cargo bench --bench log [-- EVENTS] [tight] [sustained] [encrypted]`.
#![allow(missing_docs, clippy::unwrap_used)]

use sidewire::cipher::Keyring;
use sidewire::event::{
    Channel, Data, Event, EventId, EventName, Filter, Interest, Json, Pattern, Position, Tags, Ttl,
};
use sidewire::log::{Budget, Log, LogOptions, Order, Query};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn event(log: &Log, position: u64, time: u64, random: &mut Random) -> Arc<Event> {
    let n = random.below(10_000);
    let (channel, name, data) = match n % 4 {
        0 => (
            format!("cron.execution.{n}"),
            "execution-update",
            format!(
                r#"{{"job_id":{},"execution_id":{},"status":"running","progress":{},"duration_ms":{},"memory_mb":{}.{},"timestamp":{}}}"#,
                random.below(50),
                random.below(100_000),
                random.below(100),
                random.below(60_000),
                random.below(64),
                random.below(10),
                time / 1000
            ),
        ),
        1 => (
            format!("user.{n}.inbox"),
            "notification",
            format!(
                r#"{{"title":"Execution finished","body":"Job {} finished in {}.{} s","href":"/cron/{}/executions/{}","read":false}}"#,
                random.below(50),
                random.below(60),
                random.below(10),
                random.below(50),
                random.below(100_000)
            ),
        ),
        2 => (
            format!("batch.b-{n}"),
            "batch_progress",
            format!(
                r#"{{"batchId":"b-{n}","total":500,"completed":{},"failed":{},"running":16,"costUsd":{}.{},"etaSeconds":{}}}"#,
                random.below(500),
                random.below(5),
                random.below(9),
                random.below(10_000),
                random.below(1000)
            ),
        ),
        _ => (
            format!("job.job_{n}"),
            "status_update",
            format!(
                r#"{{"jobId":"job_{n}","status":"processing","progress":{},"page":{},"pages":150,"timestamp":{time}}}"#,
                random.below(100),
                random.below(150)
            ),
        ),
    };
    let channel = Channel::parse(&channel).unwrap();
    let expiry = log.expiry(&channel, Ttl::Default, time);
    let tags = match random.below(100) {
        0 => Tags::from_pairs([("rare".to_owned(), format!("{}", random.below(100)))]).unwrap(),
        _ => Tags::default(),
    };
    Arc::new(Event {
        position: Position(position),
        id: EventId::fresh(),
        id_given: false,
        channel,
        name: EventName::parse(name).unwrap(),
        data: Data::Json(Json::parse(&data).unwrap()),
        time,
        tags,
        expiry,
        exclude: None,
        from: None,
        way: None,
    })
}

/// What the event takes as JSON on the wire.
fn wire_bytes(event: &Event) -> usize {
    let envelope =
        r#"{"type":"event","channel":"","event":"","data":,"id":"","time":1767052800000,"cursor":""}"#.len();
    envelope
        + event.channel.as_str().len()
        + event.name.as_str().len()
        + event.data.len()
        + event.id.as_str().len()
        + 23
}

fn rss_mb() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
}

/// Files may vanish while they are counted.
fn disk_bytes(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    meta.blocks() * 512 + entries.map(|entry| disk_bytes(&entry.path())).sum::<u64>()
}

/// CPU time of this thread: what a query costs, whoever else uses the machine.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn percentiles(name: &str, mut times: Vec<Duration>, note: String) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    println!("{name:24} p50 {:7.3} p99 {:7.3} max {:7.3} ms  {note}", at(500), at(990), at(1000));
}

/// A log in a directory, encrypted if that was asked for.
fn options(dir: &std::path::Path) -> LogOptions {
    let mut options = LogOptions::new(dir.join("log"));
    if std::env::args().any(|arg| arg == "encrypted") {
        let path = dir.join("keys");
        std::fs::write(&path, "5a".repeat(32)).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        options.keyring = Keyring::load(&path).unwrap();
    }
    options
}

fn appends(size: usize, sync: bool) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(options(dir.path())).unwrap();
    let mut random = Random(7);
    let total = if sync { 2000 * size.min(64) } else { 300_000 };
    let first = log.next_position().0;
    let time = now();
    let events: Vec<_> = (0..total as u64).map(|n| event(&log, first + n, time, &mut random)).collect();
    let (start, cpu_start) = (Instant::now(), cpu());
    let mut behind = 0;
    for group in events.chunks(size) {
        while let Err(error) = log.append(group) {
            assert!(matches!(error, sidewire::log::AppendError::Behind), "{error}");
            behind += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        if sync {
            log.sync().unwrap();
        }
    }
    let (took, cpu) = (start.elapsed(), cpu() - cpu_start);
    println!(
        "append, groups of {size:3}, {:9} {:>9.0} events/s, {:.2} µs of CPU each (waited {behind} times, fsync {:?})",
        if sync { "synced" } else { "unsynced" },
        total as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / total as f64,
        log.stats().last_fsync,
    );
    log.close();
}

/// Writes many times what the limit lets stay: the disk and the memory must not grow.
fn sustained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::open(LogOptions { max_bytes: 32 << 20, ..options(dir.path()) }).unwrap();
    let mut random = Random(5);
    let (mut worst, mut slowest) = (0, Duration::ZERO);
    let start = Instant::now();
    for quarter in 1..=4 {
        for round in 0..4000 {
            let first = log.next_position().0;
            let group: Vec<_> = (0..256).map(|n| event(&log, first + n, now(), &mut random)).collect();
            loop {
                let begun = Instant::now();
                if log.append(&group).is_ok() {
                    slowest = slowest.max(begun.elapsed());
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            if round % 50 == 0 {
                worst = worst.max(disk_bytes(&path));
            }
        }
        println!(
            "sustained, quarter {quarter}: {:.1} s, disk at worst {} MB of 33, slowest append {slowest:?}, RSS {} MB, {} events kept",
            start.elapsed().as_secs_f64(),
            worst / 1_000_000,
            rss_mb(),
            log.stats().events,
        );
        slowest = Duration::ZERO;
    }
    log.close();
}

fn main() {
    if std::env::args().any(|arg| arg == "sustained") {
        return sustained();
    }
    let events: u64 = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000);
    for size in [1, 16, 256] {
        appends(size, false);
        appends(size, true);
    }

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut options = options(dir.path());
    if std::env::args().any(|arg| arg == "tight") {
        options.max_bytes = 72 << 20;
    }
    let log = Log::open(options.clone()).unwrap();
    let mut random = Random(11);
    let first = log.next_position().0;
    let start_time = now() - events;
    let (mut wire, mut position) = (0u64, first);
    let start = Instant::now();
    while position < first + events {
        let group: Vec<_> = (0..256.min(first + events - position))
            .map(|n| event(&log, position + n, start_time + position + n - first, &mut random))
            .collect();
        position += group.len() as u64;
        wire += group.iter().map(|event| wire_bytes(event) as u64).sum::<u64>();
        while log.append(&group).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while log.stats().folds_waiting > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let disk = disk_bytes(&path);
    println!(
        "{events} events in {:.1} s: wire JSON {} MB, disk {} MB ({:.1} % smaller), RSS {} MB, {:?}",
        start.elapsed().as_secs_f64(),
        wire / 1_000_000,
        disk / 1_000_000,
        100.0 - disk as f64 * 100.0 / wire as f64,
        rss_mb(),
        log.stats(),
    );
    log.close();
    drop(log);
    let start = Instant::now();
    let log = Log::open(options).unwrap();
    println!("open {:?}, RSS {} MB", start.elapsed(), rss_mb());

    let head = log.head();
    let mut run = |name: &str, make: &mut dyn FnMut(&mut Random) -> Query| {
        let (mut times, mut cpus, mut found, mut more) = (Vec::new(), Vec::new(), 0, 0);
        for _ in 0..200 {
            let mut query = make(&mut random);
            for order in [Order::Ascending, Order::Descending] {
                query.order = order;
                let (start, cpu_start) = (Instant::now(), cpu());
                let page = log.query(&query).unwrap();
                times.push(start.elapsed());
                cpus.push(cpu() - cpu_start);
                found += page.events.len();
                more += usize::from(page.more);
            }
        }
        let count = times.len();
        percentiles(
            name,
            times,
            format!("{} events, {more}/{count} more, RSS {} MB", found / count, rss_mb()),
        );
    };
    let on = |patterns: &[String]| Interest::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()));
    run("channel", &mut |random| {
        let n = random.below(2500) * 4;
        Query { interest: on(&[format!("cron.execution.{n}")]), ..Query::default() }
    });
    run("channel, absent", &mut |random| Query {
        interest: on(&[format!("absent.{}", random.below(1000))]),
        ..Query::default()
    });
    run("pattern user.N.>", &mut |random| {
        let n = random.below(2500) * 4 + 1;
        Query { interest: on(&[format!("user.{n}.>")]), ..Query::default() }
    });
    run("pattern *.job_N", &mut |random| {
        let n = random.below(2500) * 4 + 3;
        Query { interest: on(&[format!("*.job_{n}")]), ..Query::default() }
    });
    run("pattern *.absent.*", &mut |_| Query {
        interest: on(&["*.absent.*".to_owned()]),
        ..Query::default()
    });
    run("pattern batch.>", &mut |random| Query {
        interest: on(&["batch.>".to_owned()]),
        after: Position(first + random.below(events)),
        ..Query::default()
    });
    run("event name", &mut |random| Query {
        filter: Filter { events: vec![EventName::parse("notification").unwrap()], tags: Vec::new() },
        after: Position(first + random.below(events)),
        ..Query::default()
    });
    run("tag rare=N", &mut |random| Query {
        filter: Filter {
            events: Vec::new(),
            tags: vec![("rare".into(), format!("{}", random.below(100)).into())],
        },
        ..Query::default()
    });
    run("time range", &mut |random| {
        let since = start_time + random.below(events);
        Query { since: Some(since), until: Some(since + 1000), ..Query::default() }
    });
    run("all, from a cursor", &mut |random| Query {
        after: Position(first + random.below(events)),
        ..Query::default()
    });
    let all = on(&[">".to_owned()]);
    let (start, cpu_start) = (Instant::now(), cpu());
    let (mut at, mut count) = (Position::ZERO, 0);
    while at < head {
        let budget = Budget { events: 1000, bytes: 1 << 20 };
        let page = log.read_after(&all, &Filter::default(), at, head, budget).unwrap();
        count += page.events.len();
        at = page.reached;
    }
    println!(
        "replay of {count} events {:?}, {:?} of CPU, RSS {} MB",
        start.elapsed(),
        cpu() - cpu_start,
        rss_mb()
    );
}
