//! Ports: `[[HOST_IP:][PUBLISHED]:]TARGET[/PROTOCOL]`, with ranges.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md#short-syntax-4)

use std::net::IpAddr;

/// One port of a container and how it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortShort {
    /// The address of the host that it is published at, as it is written; absent for all.
    pub host_ip: Option<String>,
    /// The port of the host, or a range of them to choose from; absent where it is not published
    /// at a given one.
    pub published: Option<String>,
    /// The port in the container.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

/// Why a text is not a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{spec}` is not a port: {why}; write it like 80, 8080:80, 127.0.0.1:8080:80/tcp")]
pub struct PortError {
    spec: String,
    why: String,
}

/// Parses the short form; a range of targets gives one port for each of them.
///
/// # Errors
/// [`PortError`] where the text is malformed or a range is empty or does not fit the other.
pub fn parse_port(spec: &str) -> Result<Vec<PortShort>, PortError> {
    parse(spec).map_err(|why| PortError { spec: spec.to_owned(), why })
}

fn parse(spec: &str) -> Result<Vec<PortShort>, String> {
    let (address, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = ["tcp", "udp", "sctp"]
        .into_iter()
        .find(|known| protocol.is_empty() || protocol.eq_ignore_ascii_case(known))
        .ok_or_else(|| format!("`{protocol}` is not a protocol"))?;
    let (front, target) = match address.rsplit_once(':') {
        Some((front, target)) => (Some(front), target),
        None => (None, address),
    };
    let (host, published) = match front.map(|f| f.rsplit_once(':').unwrap_or(("", f))) {
        Some((host, published)) => (host, published),
        None => ("", ""),
    };
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_ip = match bracketed.unwrap_or(host) {
        "" => None,
        host if bracketed.is_none() && host.contains(':') => {
            return Err(format!("`{host}` has to be put in brackets"));
        }
        host if host.parse::<IpAddr>().is_err() => {
            return Err(format!("`{host}` is not an IP address"));
        }
        host => Some(host.to_owned()),
    };
    if target.is_empty() {
        return Err("the container's port is missing".into());
    }
    let (first, last) = range(target)?;
    let hosts = if published.is_empty() { None } else { Some(range(published)?) };
    if let Some((from, to)) = hosts
        && first != last
        && to - from != last - first
    {
        return Err("the two ranges differ in length".into());
    }
    let port = |target: u16| PortShort {
        host_ip: host_ip.clone(),
        published: hosts.map(|(from, to)| match (first == last, from == to) {
            (true, false) => format!("{from}-{to}"),
            _ => (from + (target - first)).to_string(),
        }),
        target,
        protocol,
    };
    Ok((first..=last).map(port).collect())
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let digits = text.starts_with(|c: char| c.is_ascii_digit());
        let parsed = text.parse::<u16>().ok().filter(|_| digits);
        parsed.ok_or_else(|| format!("`{text}` is not a port number"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first { Err(format!("the range {text} is empty")) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_and_addresses() {
        let ports = parse_port("[::1]:80-81:8080-8081/UDP").unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[1].published.as_deref(), Some("81"));
        assert_eq!((ports[1].target, ports[1].protocol), (8081, "udp"));
        assert_eq!(ports[0].host_ip, Some("::1".into()));
        assert_eq!(parse_port("127.0.0.1::80").unwrap()[0].published, None);
    }

    #[test]
    fn what_is_no_port() {
        for spec in
            ["", ":", "80:", "x", "+80", "::1:80:80", "1-2:1-3", "3-2", "70000", "a:1:1", "1:1:1:1"]
        {
            assert!(parse_port(spec).is_err(), "{spec}");
        }
    }
}
