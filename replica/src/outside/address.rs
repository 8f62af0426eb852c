//! Which machines outcalls may reach: public addresses, and by configuration the loopback of this machine. A canister
//! must not use the process to reach what only this machine reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The system's resolver without the addresses that outcalls may not reach.
#[derive(Debug)]
pub struct PublicResolver {
    inner: DefaultResolver,
    loopback: bool,
}

impl PublicResolver {
    /// `loopback`: whether this machine may be reached too.
    pub fn new(loopback: bool) -> Self {
        Self {
            inner: DefaultResolver::default(),
            loopback,
        }
    }
}

impl Resolver for PublicResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        let reachable = found.iter().filter(|address| may_reach(address, self.loopback));
        reachable.for_each(|address| allowed.push(*address));
        match allowed.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(allowed),
        }
    }
}

fn may_reach(address: &SocketAddr, loopback: bool) -> bool {
    match address.ip().to_canonical() {
        ip if ip.is_loopback() => loopback,
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // Carrier-grade NAT, and the range kept for measurements of networks.
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_benchmark = first == 198 && (18..20).contains(&second);
    !(ip.is_private()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || is_shared
        || is_benchmark
        || first == 0
        || first >= 240)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_unique_local() || ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_reached() {
        let reached = |ip: &str, loopback| may_reach(&SocketAddr::new(ip.parse().unwrap(), 443), loopback);
        for private in [
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::ffff:10.0.0.1",
            "fd00::1",
            "fe80::1",
            "::",
        ] {
            assert!(!reached(private, true), "{private}");
        }
        assert!(reached("93.184.216.34", false) && reached("2606:4700::1111", false));
        assert!(!reached("127.0.0.1", false) && !reached("::1", false) && !reached("::ffff:127.0.0.1", false));
        assert!(reached("127.0.0.1", true) && reached("::1", true));
    }
}
