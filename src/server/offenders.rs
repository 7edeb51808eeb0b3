//! Addresses that are refused again and again, and so are not listened to for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses that are watched. Beyond it those with nothing of late are forgotten, and if there is none all are:
/// a flood from many addresses must not take memory.
const MAX_ADDRESSES: usize = 10_000;
/// For how long an offence counts.
const WINDOW: Duration = Duration::from_secs(60);

/// The offences of late, address by address.
#[derive(Default)]
pub(super) struct Offenders(Mutex<HashMap<IpAddr, Offences, foldhash::fast::RandomState>>);

struct Offences {
    count: u32,
    since: Instant,
    last: Instant,
}

impl Offenders {
    /// Notes an offence.
    pub(super) fn note(&self, ip: IpAddr, now: Instant) {
        // On this host many share one address, such as all that a local proxy passes on.
        if ip.is_loopback() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ADDRESSES && !all.contains_key(&ip) {
            all.retain(|_, offences| now.saturating_duration_since(offences.last) < WINDOW);
            if all.len() >= MAX_ADDRESSES {
                all.clear();
            }
        }
        let offences = all.entry(ip).or_insert(Offences { count: 0, since: now, last: now });
        if now.saturating_duration_since(offences.since) >= WINDOW {
            *offences = Offences { count: 0, since: now, last: now };
        }
        offences.count = offences.count.saturating_add(1);
        offences.last = now;
    }

    /// How long an address stays cut off that has offended more than `most` times within a minute; zero is never.
    pub(super) fn banned(&self, ip: IpAddr, most: u32, ban: Duration, now: Instant) -> Option<Duration> {
        if most == 0 {
            return None;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offences = all.get(&ip).filter(|offences| offences.count > most)?;
        let left =
            ban.checked_sub(now.saturating_duration_since(offences.last)).filter(|left| !left.is_zero());
        if left.is_none() {
            all.remove(&ip);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_offends_too_often_is_cut_off_for_a_while_and_no_longer() {
        let offenders = Offenders::default();
        let start = Instant::now();
        let ip = IpAddr::from([8, 8, 8, 8]);
        let ban = Duration::from_secs(30);
        let banned = |at: u64| offenders.banned(ip, 3, ban, start + Duration::from_secs(at)).is_some();
        for at in 0..3 {
            offenders.note(ip, start + Duration::from_secs(at));
        }
        assert!(!banned(2));
        offenders.note(ip, start + Duration::from_secs(3));
        assert!(banned(4) && banned(32));
        assert!(offenders.banned(ip, 0, ban, start).is_none(), "switched off");
        assert!(!banned(33) && !banned(4), "it has served its time");
        for at in 0..10 {
            offenders.note(ip, start + Duration::from_secs(1000 + at * 30));
        }
        assert!(!banned(1300), "slow ones are not many within a minute");
        let here = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..10 {
            offenders.note(here, start);
        }
        assert!(offenders.banned(here, 3, ban, start).is_none());
        for number in 0..3 * MAX_ADDRESSES as u32 {
            offenders.note(IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(offenders.0.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
