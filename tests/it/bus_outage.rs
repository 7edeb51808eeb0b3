//! The bus goes away, freezes or becomes slow while apps publish: they notice nothing, and nothing is lost.
//!
//! `SIDEWIRE_TEST_OUTAGE_SECONDS` (60), `SIDEWIRE_TEST_BUS_RATE` (1000 for each node) and
//! `SIDEWIRE_TEST_ANSWER_MS` (20) make it the promise in full, for a release build on a quiet machine.

use crate::servers::{Flow, Towards};
use crate::support::{
    BusKind, DEFAULT_HEDGE, Fleet, PublishReport, Publishers, RunningPublishers, Trouble, Watcher,
    eventually, number_from_environment,
};
use std::time::Duration;
use tokio::time::Instant;

/// What is published on.
const LOAD: &str = "channel=load.%3E";

/// How soon everything is where it belongs once the bus is back.
const BACK_WITHIN: Duration = Duration::from_secs(10);

fn outage() -> Duration {
    Duration::from_secs(number_from_environment("SIDEWIRE_TEST_OUTAGE_SECONDS", 6))
}

/// How long 99 % of the answers may take. A debug build among other tests waits for the disk and for its turn, now and
/// then for most of a second.
fn answer_limit() -> Duration {
    Duration::from_millis(number_from_environment("SIDEWIRE_TEST_ANSWER_MS", 2_000))
}

/// How long half of them may take on any machine: less than what waits for the bus.
const HALF_WITHIN: Duration = Duration::from_millis(500);

/// Publishers on every node, which have begun.
async fn busy(fleet: &Fleet, node_is_killed: bool) -> Vec<RunningPublishers> {
    let per_second = number_from_environment("SIDEWIRE_TEST_BUS_RATE", 200);
    let publishers = Publishers { name: "load".to_owned(), count: 10, per_second, node_is_killed };
    let load = publishers.start_on_each(&fleet.nodes);
    for running in &load {
        running.go_on_for(50).await;
    }
    load
}

async fn apps_and_clients_notice_nothing(kind: BusKind, trouble: Trouble) {
    let what = format!("{kind:?}, {trouble:?}");
    // A bus that keeps nothing cannot give to another node what was sent while that one was away.
    let count = if BusKind::PLAIN.contains(&kind) { 1 } else { 2 };
    let mut fleet = Fleet::with_config(kind, count, DEFAULT_HEDGE, "").await;
    let watchers = Watcher::start_on_each(&fleet.nodes, LOAD).await;
    let load = busy(&fleet, false).await;
    trouble.begin(&mut fleet).await;
    let begin = Instant::now();
    // As long as the outage lasts, clients of the same node get what is published now.
    while begin.elapsed() < outage() {
        for (running, watcher) in load.iter().zip(&watchers) {
            let late = Instant::now();
            watcher.keeps_up_with(running).await;
            assert!(late.elapsed() < Duration::from_secs(2), "{what}: live took {:?}", late.elapsed());
            running.go_on_for(20).await;
        }
    }
    let reports = RunningPublishers::stop_each(load).await;
    let all: PublishReport = reports.iter().cloned().sum();
    trouble.end(&mut fleet).await;
    let back = Instant::now();
    let total = all.total();
    for watcher in &watchers {
        watcher.sees(total as usize).await;
    }
    let took = back.elapsed();
    fleet.agree_on(LOAD, total as usize).await;
    for watcher in &watchers {
        watcher.check(&all.channels);
        assert!(watcher.shown().iter().all(|shown| shown.connection == 0), "{what}: nobody was cut off");
        if count == 2 {
            assert_eq!(watcher.resumes().len(), 1, "{what}: nobody is told of a loss, as there was none");
        }
    }
    let queued = all.queued;
    eprintln!("{what}: {total} published, {queued} queued, everywhere {took:?} after its return");
    for report in &reports {
        let (middle, most) = (report.answered_in(500), report.answered_in(990));
        eprintln!("{what}: answers in {middle:?}, 99 % in {most:?}");
        assert!(middle < HALF_WITHIN, "{what}: half of the answers in {middle:?}");
        assert!(most < answer_limit(), "{what}: 99 % of the answers in {most:?}");
    }
    assert!(queued > 0, "{what}: it was an outage");
    assert!(took < BACK_WITHIN, "{what}: it took {took:?} from its return");
    for node in &mut fleet.nodes {
        node.publish_until("published", "after").await;
        node.still_healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_gone() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_to_redis_swallows_everything() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Swallowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_late() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_slow() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_gone() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_to_nats_swallows_everything() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Swallowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_answers_late() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_slow() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_channels_of_redis_are_gone() {
    apps_and_clients_notice_nothing(BusKind::RedisPubSub, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_subjects_of_nats_are_frozen() {
    apps_and_clients_notice_nothing(BusKind::NatsCore, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_in_the_middle_of_an_outage_loses_nothing_it_has_acknowledged() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let watchers = Watcher::start_on_each(&fleet.nodes, LOAD).await;
        let load = busy(&fleet, true).await;
        fleet.proxy.cut().await;
        for _ in 0..2 {
            load[0].go_on_for(300).await;
            fleet.nodes[0].kill_and_start_again().await;
        }
        load[0].go_on_for(100).await;
        fleet.proxy.restore().await;
        let back = Instant::now();
        load[0].go_on_for(100).await;
        let report = RunningPublishers::stop_all(load).await;
        let total = report.total();
        for watcher in &watchers {
            watcher.sees(total as usize).await;
        }
        eprintln!("{kind:?}: {total} events, everywhere {:?} after its return", back.elapsed());
        fleet.agree_on(LOAD, total as usize).await;
        for watcher in &watchers {
            watcher.check_but(&report.channels, &report.again);
        }
    }
}

/// F14: what comes and goes all the time, late and by halves, neither reorders nor leaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_flaps_costs_nothing_but_time() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let open = fleet.proxy.open();
        let watchers = Watcher::start_on_each(&fleet.nodes, LOAD).await;
        let load = busy(&fleet, false).await;
        for flap in 0..12 {
            load[0].go_on_for(20).await;
            match flap % 4 {
                0 => fleet.proxy.reset(),
                1 => fleet.proxy.cut().await,
                2 => fleet.proxy.half_close(),
                _ => {
                    let late = Flow { delay: Duration::from_millis(300), ..Flow::default() };
                    fleet.proxy.set(Towards::Client, late);
                }
            }
            load[1].go_on_for(20).await;
            fleet.proxy.restore().await;
        }
        let report = RunningPublishers::stop_all(load).await;
        for watcher in &watchers {
            watcher.sees_exactly(&report.channels).await;
        }
        fleet.agree_on(LOAD, report.total() as usize).await;
        fleet.ready().await;
        eventually("no more connections than before", async || (fleet.proxy.open() <= open).then_some(()))
            .await;
    }
}
