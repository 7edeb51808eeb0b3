//! The server of the bus, asked directly: a node may be away because it is, or for a reason of its own.

use super::Finding;
use crate::bus::nats;
use crate::bus::redis;
use crate::bus::survey::{Remark, Survey};
use crate::config::{BusMode, Config};
use crate::sidecar::{nats_kept, nats_options, redis_options};

/// Looks at the server that the configuration names.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Some(mode) = config.bus.mode() else {
        return vec![Finding::new("bus server", Ok("none: the node's own log is the bus".into()))];
    };
    let surveyed = match (redis_options(&config.bus), nats_options(&config.bus)) {
        (Some(options), _) => redis::survey(&options, mode == BusMode::Stream).await,
        (_, Some(options)) => {
            nats::survey(&options, (mode == BusMode::JetStream).then(|| nats_kept(&config.bus))).await
        }
        // A URL with a mode is one of these.
        (None, None) => return Vec::new(),
    };
    match surveyed {
        Ok(survey) => findings(survey),
        Err(error) => vec![Finding::new("bus server", Err(error.to_string()))],
    }
}

fn findings(survey: Survey) -> Vec<Finding> {
    let clock = survey.clock().map(|remark| finding("bus clock", remark));
    let mut findings = vec![Finding::new("bus server", Ok(survey.server))];
    findings.extend(clock);
    findings.extend(survey.remarks.into_iter().map(|remark| finding("bus settings", remark)));
    findings
}

fn finding(what: &'static str, remark: Remark) -> Finding {
    match remark {
        Remark::Good(words) => Finding::new(what, Ok(words)),
        Remark::Doubtful(words) => Finding::doubtful(what, words),
        Remark::Bad(words) => Finding::new(what, Err(words)),
    }
}
