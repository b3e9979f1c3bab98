//! Which `Host` and `Origin` a request may name. A browser that was lured to a hostile page sends that
//! page's origin, or after DNS rebinding its host; neither gets as far as routing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The names under which this server may be called.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    bound: SocketAddr,
}

impl Hosts {
    /// The names of a server that listens here.
    pub(super) fn new(bound: SocketAddr) -> Self {
        Self { bound }
    }

    /// True for `name` or `name:port` with an allowed name. The port is not compared: a tunnel may change it,
    /// and an attacker gains nothing by it.
    pub(super) fn allows_host(&self, host: &str) -> bool {
        split_authority(host).is_some_and(|(name, _)| self.allows_name(name))
    }

    /// True for `http://name:port` of this very server.
    pub(super) fn allows_origin(&self, origin: &str) -> bool {
        let Some(authority) = origin.strip_prefix("http://") else { return false };
        split_authority(authority)
            .is_some_and(|(name, port)| self.allows_name(name) && port.unwrap_or(80) == self.bound.port())
    }

    fn allows_name(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let Some(ip) = ip_of(name) else { return false };
        // Bound to every address, any of them may be meant. A literal address cannot be rebound.
        ip.is_loopback() || ip == self.bound.ip() || self.bound.ip().is_unspecified()
    }
}

/// `name[:port]`, `[v6][:port]`. `None` when it is neither.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_v6 = authority.find(']').map_or(0, |end| end + 1);
    match authority.get(after_v6..)?.find(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let (name, port) = authority.split_at(after_v6 + colon);
            let port = port.get(1..)?;
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            if digits { Some((name, Some(port.parse().ok()?))) } else { None }
        }
    }
}

/// The literal address, as a URL writes it.
fn ip_of(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_rebound_are_allowed_as_host() {
        let hosts = Hosts::new("127.0.0.1:3889".parse().unwrap());
        for good in ["localhost", "LOCALHOST:3889", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:3889"] {
            assert!(hosts.allows_host(good), "{good} was refused");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:3889",
            "localhost.",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "user@127.0.0.1",
            "[::1",
            "::1",
            "[::1]x",
            "10.0.0.1",
            "xn--lclhost-9za",
            "lоcalhost",
            "0x7f000001",
        ] {
            assert!(!hosts.allows_host(bad), "{bad} was allowed");
        }
    }

    #[test]
    fn only_our_own_pages_are_allowed_as_origin() {
        let hosts = Hosts::new("127.0.0.1:3889".parse().unwrap());
        for good in ["http://localhost:3889", "http://127.0.0.1:3889", "http://[::1]:3889"] {
            assert!(hosts.allows_origin(good), "{good} was refused");
        }
        for bad in [
            "null",
            "",
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:3889",
            "http://evil.example",
            "http://evil.example:3889",
            "http://localhost:3889.evil.example",
            "http://localhost:3889/",
            "file://",
        ] {
            assert!(!hosts.allows_origin(bad), "{bad} was allowed");
        }
    }

    #[test]
    fn a_server_on_an_address_of_its_own_is_called_by_it() {
        let one = Hosts::new("192.168.1.5:80".parse().unwrap());
        assert!(one.allows_host("192.168.1.5"));
        assert!(!one.allows_host("192.168.1.6"));
        assert!(one.allows_origin("http://192.168.1.5"));
        let all = Hosts::new("0.0.0.0:3889".parse().unwrap());
        assert!(all.allows_host("192.168.1.6:3889"));
        assert!(!all.allows_host("my-machine:3889"));
    }
}
