//! Says when the certificate that is served comes to its end, and nobody has renewed it.

use std::time::Duration;

use crate::clock::Now;
use crate::net::tls::CertificateInfo;
use crate::net::tls::Source;

const DAY: u64 = 24 * 3600;
/// How long before its end a certificate should have been renewed.
const NEAR: u64 = 14 * DAY;
/// Of those that live shorter: which part of their life.
const NEAR_PART: u64 = 6;

/// What has been said, of which certificate.
#[derive(Debug, Default)]
pub(super) struct Expiry(Option<(u64, Stage)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Early,
    Good,
    Near,
    Over,
}

impl Expiry {
    /// Warns once for each stage of each certificate that isn't good.
    pub(super) fn look(&mut self, info: &CertificateInfo, now: Now) {
        let stage = stage(info, now.unix);
        if self.0.replace((info.not_after, stage)) == Some((info.not_after, stage)) {
            return;
        }
        let (left, cure) = (words(info.not_after.saturating_sub(now.unix.as_secs())), cure(info.source));
        match stage {
            Stage::Good => (),
            Stage::Early => tracing::warn!("the certificate is not yet valid: browsers refuse it; is the clock right?"),
            Stage::Near => tracing::warn!("the certificate ends in {left}: {cure}"),
            Stage::Over => tracing::warn!("the certificate has expired: browsers refuse it; {cure}"),
        }
    }
}

fn stage(info: &CertificateInfo, now: Duration) -> Stage {
    let (now, life) = (now.as_secs(), info.not_after.saturating_sub(info.not_before));
    if now < info.not_before {
        return Stage::Early;
    }
    match info.not_after.checked_sub(now) {
        None => Stage::Over,
        Some(left) if left < NEAR.min(life / NEAR_PART) => Stage::Near,
        Some(_) => Stage::Good,
    }
}

fn cure(source: Source) -> &'static str {
    match source {
        Source::SelfSigned => "make its directory certs/ writable",
        Source::Files => "put another one into tls.certificate and tls.key",
        Source::Acme => "the authority gives no other one, the warnings before say why",
    }
}

fn words(seconds: u64) -> String {
    match seconds {
        0..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage_of(life_days: u64, left_days: u64) -> Stage {
        let info = CertificateInfo {
            names: Vec::new(),
            not_before: 1000 * DAY,
            not_after: (1000 + life_days) * DAY,
            source: Source::Files,
        };
        stage(&info, Duration::from_secs((1000 + life_days - left_days) * DAY))
    }

    #[test]
    fn the_end_is_near_two_weeks_before_or_a_sixth_of_a_short_life() {
        assert_eq!([stage_of(90, 14), stage_of(90, 13)], [Stage::Good, Stage::Near]);
        assert_eq!([stage_of(397, 15), stage_of(397, 13)], [Stage::Good, Stage::Near]);
        assert_eq!([stage_of(12, 2), stage_of(12, 1)], [Stage::Good, Stage::Near]);
        assert_eq!(stage_of(90, 90), Stage::Good);
    }

    #[test]
    fn before_its_first_and_after_its_last_second_it_is_not_good() {
        let info = CertificateInfo { names: Vec::new(), not_before: 10, not_after: 20, source: Source::Files };
        let at = |seconds| stage(&info, Duration::from_secs(seconds));

        assert_eq!([at(9), at(10), at(20), at(21)], [Stage::Early, Stage::Good, Stage::Near, Stage::Over]);
        assert_eq!(["119 minutes", "2 hours", "13 days"], [words(7199), words(7200), words(13 * DAY)]);
    }
}
