//! What `init` finds out about this machine's addresses, and what follows from it.

use std::net::IpAddr;

use crate::app::offer;
use crate::config::value::ExternalIp;

/// Addresses, as found.
pub(super) struct Facts {
    /// Of this machine.
    pub(super) local: Vec<IpAddr>,
    /// Those that it sends from to far ones, one of each family at most.
    pub(super) routed: Vec<IpAddr>,
    /// Of the domain.
    pub(super) resolved: Vec<IpAddr>,
    /// Ours as a STUN server sees it.
    pub(super) seen: Option<IpAddr>,
}

impl Facts {
    /// What the world knows this machine by, if that isn't an address of its own: what a STUN server says, else the domain's.
    pub(super) fn external_ip(&self) -> Option<ExternalIp> {
        self.routed.iter().filter(|ip| !offer::is_public(**ip)).find_map(|local| {
            let outside = self.seen.into_iter().chain(self.resolved.iter().copied());
            let is_other =
                |ip: &IpAddr| ip.is_ipv4() == local.is_ipv4() && !self.local.contains(ip) && !ip.is_loopback();
            let external = outside.into_iter().find(is_other)?;
            Some(ExternalIp { external, local: Some(*local) })
        })
    }

    /// The addresses that a record for the domain should name.
    pub(super) fn public(&self) -> Vec<IpAddr> {
        let own = self.routed.iter().copied().filter(|ip| offer::is_public(*ip));
        let mut public: Vec<_> = own.chain(self.seen).collect();
        public.dedup();
        public
    }

    /// The domain's addresses that are neither this machine's nor `external`.
    pub(super) fn elsewhere(&self, external: &[ExternalIp]) -> Vec<IpAddr> {
        let is_ours = |ip: &IpAddr| self.local.contains(ip) || external.iter().any(|entry| entry.external == *ip);
        self.resolved.iter().copied().filter(|ip| !is_ours(ip)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn facts(local: &[&str], resolved: &[&str], seen: Option<&str>) -> Facts {
        let seen = seen.map(|ip| ip.parse().unwrap());
        Facts { local: ips(local), routed: ips(local), resolved: ips(resolved), seen }
    }

    #[test]
    fn behind_nat_the_domain_or_a_stun_server_tells_the_public_address() {
        let by_dns = facts(&["10.0.0.4"], &["9.9.9.9"], None);
        let by_stun = facts(&["10.0.0.4"], &["9.9.9.9"], Some("8.8.8.8"));
        let unknown = facts(&["10.0.0.4"], &[], None);
        let direct = facts(&["9.9.9.9"], &["9.9.9.9"], Some("9.9.9.9"));
        let other_family = facts(&["10.0.0.4"], &["2620:fe::fe"], None);

        assert_eq!(by_dns.external_ip().unwrap().to_string(), "9.9.9.9/10.0.0.4");
        assert_eq!(by_stun.external_ip().unwrap().to_string(), "8.8.8.8/10.0.0.4");
        for facts in [unknown, direct, other_family] {
            assert_eq!(facts.external_ip(), None);
        }
    }

    #[test]
    fn a_domain_that_leads_elsewhere_is_told_from_one_that_leads_here() {
        let facts = facts(&["9.9.9.9"], &["9.9.9.9", "8.8.8.8"], None);
        let external = ["8.8.8.8".parse().unwrap()];

        assert_eq!(facts.elsewhere(&[]), ips(&["8.8.8.8"]));
        assert_eq!(facts.elsewhere(&external), ips(&[]));
        assert_eq!(facts.public(), ips(&["9.9.9.9"]));
    }
}
