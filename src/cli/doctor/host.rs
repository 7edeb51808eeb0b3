//! What can be seen on this host, whether the node runs or not.

use super::Finding;
use crate::config::Config;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit, getuid};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No build of this program is older: a clock before it is wrong. 2026-01-01.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Syncs that are timed.
const SYNCS: usize = 20;
/// A disk that needs longer for one is slow.
const SLOW_SYNC: Duration = Duration::from_millis(20);

/// Looks around.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        config.warnings().into_iter().map(|warning| Finding::doubtful("configuration", warning)).collect();
    if findings.is_empty() {
        findings.push(Finding::new("configuration", Ok("valid".into())));
    }
    findings.push(Finding::new("clock", clock(SystemTime::now())));
    findings.push(Finding::new("log directory", directory(&config.log.dir)));
    findings.push(disk(&config.log.dir, config.log.max_bytes.0));
    findings.push(disk_speed(&config.log.dir));
    findings.push(open_files(config.limits.connections.map_or(0, |most| most.get() as u64)));
    findings
}

fn clock(now: SystemTime) -> Result<String, String> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since < EARLIEST {
        return Err(format!(
            "it is {} by the clock of this host: events would get wrong times; set it and keep it by NTP",
            humantime::format_rfc3339_seconds(now)
        ));
    }
    Ok(humantime::format_rfc3339_seconds(now).to_string())
}

fn directory(path: &Path) -> Result<String, String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(format!("{shown} will be made")),
        Err(error) => Err(format!("{shown}: {error}; run this as the user that runs the node")),
        Ok(found) if !found.is_dir() => Err(format!("{shown} is no directory; choose another log.dir")),
        Ok(found) if found.mode() & 0o002 != 0 => {
            Err(format!("{shown} is writable for everybody: chmod 700"))
        }
        Ok(found) if found.uid() != getuid().as_raw() => {
            Ok(format!("{shown} belongs to the user {}, who must be the one that runs the node", found.uid()))
        }
        Ok(_) => Ok(format!("{shown} is yours")),
    }
}

fn disk(path: &Path, wanted: u64) -> Finding {
    // It may not be there yet: then the directory counts in which it will be.
    let Some(free) = path.ancestors().find_map(|place| {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        let found = rustix::fs::statvfs(place).ok()?;
        Some(found.f_bavail * found.f_frsize)
    }) else {
        return Finding::new("disk", Err(format!("nothing is known of the disk of {}", path.display())));
    };
    let mebibytes = |bytes: u64| bytes >> 20;
    if free < wanted {
        let words = format!(
            "{} MiB are free, and the log may grow to {} MiB (log.max_bytes): publishes are refused when the disk is full",
            mebibytes(free),
            mebibytes(wanted)
        );
        return Finding::doubtful("disk", words);
    }
    Finding::new("disk", Ok(format!("{} MiB are free", mebibytes(free))))
}

/// How long the disk takes to make a small write durable, which is what a publisher waits for.
fn disk_speed(path: &Path) -> Finding {
    match sync_times(path) {
        Ok((middle, longest)) => {
            let words = format!(
                "a sync takes {:.1} ms, the slowest of {SYNCS} {:.1} ms",
                middle.as_secs_f64() * 1e3,
                longest.as_secs_f64() * 1e3
            );
            if middle > SLOW_SYNC {
                let advice = "every publish with ack=log waits so long: use a local disk, or set log.sync";
                Finding::doubtful("disk speed", format!("{words}; {advice}"))
            } else {
                Finding::new("disk speed", Ok(words))
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::new("disk speed", Ok("not tried: the log directory is not there yet".into()))
        }
        Err(error) => {
            let words = format!("not tried: {error}; run this as the user that runs the node");
            Finding::doubtful("disk speed", words)
        }
    }
}

/// The middle and the longest time of some syncs of a file that has no name.
fn sync_times(directory: &Path) -> std::io::Result<(Duration, Duration)> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok((times[SYNCS / 2], times[SYNCS - 1]))
}

fn open_files(clients: u64) -> Finding {
    // A node raises its limit as far as it may.
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < clients => {
            let words = format!(
                "{most} is the limit here, below limits.connections ({clients}): raise it, or lower that"
            );
            Finding::doubtful("open files", words)
        }
        Some(most) => Finding::new("open files", Ok(format!("{most}"))),
        None => Finding::new("open files", Ok("no limit".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_clock_that_was_never_set_is_found() {
        assert!(clock(UNIX_EPOCH + Duration::from_secs(60)).unwrap_err().contains("NTP"));
        assert!(clock(UNIX_EPOCH + EARLIEST).is_ok());
    }

    #[test]
    fn a_directory_for_everybody_is_found() {
        let directory_ = tempfile::tempdir().unwrap();
        assert!(directory(directory_.path()).unwrap().contains("is yours"));
        assert!(directory(&directory_.path().join("new")).unwrap().contains("will be made"));
        std::fs::set_permissions(directory_.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(directory(directory_.path()).unwrap_err().contains("chmod"));
        let file = directory_.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(directory(&file).unwrap_err().contains("no directory"));
        assert!(matches!(disk(&directory_.path().join("a/b"), 0).verdict, super::super::Verdict::Good(_)));
        assert!(matches!(disk(directory_.path(), u64::MAX).verdict, super::super::Verdict::Doubtful(_)));
    }

    #[test]
    fn the_disk_is_timed_and_left_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let (middle, longest) = sync_times(place.path()).unwrap();
        assert!(middle <= longest && longest > Duration::ZERO);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        let words = disk_speed(&place.path().join("new")).to_string();
        assert!(words.starts_with("ok   disk speed: not tried"), "{words}");
    }
}
