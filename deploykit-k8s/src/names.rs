//! Which texts Kubernetes takes as names, with its own rules
//! ([apimachinery's validation](https://pkg.go.dev/k8s.io/apimachinery/pkg/util/validation)).

const LABEL: usize = 63;
const SUBDOMAIN: usize = 253;

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether a text is one or more of `inner`, with `outer` at both ends.
fn framed(text: &str, outer: fn(char) -> bool, inner: fn(char) -> bool) -> bool {
    text.starts_with(outer) && text.ends_with(outer) && text.chars().all(inner)
}

fn dns_label(text: &str) -> bool {
    framed(text, lower, |c| lower(c) || c == '-')
}

/// A label of a DNS name, as [RFC 1123](https://www.rfc-editor.org/rfc/rfc1123#section-2.1) has
/// them: what most objects are named by.
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LABEL && dns_label(text)
}

/// Labels with dots between them; they may be longer here than in DNS.
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN && text.split('.').all(dns_label)
}

/// A label that begins with a letter, as
/// [RFC 1035](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.1) has them: what Services are
/// named by.
pub fn is_dns1035_label(text: &str) -> bool {
    is_dns1123_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// `*.` and a name: the host of an Ingress.
pub fn is_wildcard_dns1123_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN && text.strip_prefix("*.").is_some_and(is_dns1123_subdomain)
}

/// A DNS name of two labels or more, with or without the dot at its end.
pub fn is_fully_qualified_domain_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    is_dns1123_subdomain(text) && text.contains('.') && text.split('.').all(is_dns1123_label)
}

/// A name of three labels or more: that of a custom resource.
pub fn is_fully_qualified_name(text: &str) -> bool {
    is_dns1123_subdomain(text) && text.split('.').count() >= 3
}

/// A DNS name, `/` and the path of a URL.
pub fn is_domain_prefixed_path(text: &str) -> bool {
    let in_path = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    text.split_once('/').is_some_and(|(host, path)| {
        is_dns1123_subdomain(host) && !path.is_empty() && path.chars().all(in_path)
    })
}

fn is_name_part(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LABEL
        && framed(text, alphanumeric, |c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// The key of a label or an annotation: a name, with or without a DNS name and `/` before it.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns1123_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

/// The value of a label.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The key of an entry of a ConfigMap or Secret.
pub fn is_config_map_key(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_a_file = text != "." && !text.starts_with("..");
    (1..=SUBDOMAIN).contains(&text.len()) && text.chars().all(fits) && is_a_file
}

/// The name of an HTTP header, for probes.
pub fn is_http_header_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The name of a port.
pub fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && dns_label(text)
        && !text.contains("--")
        && text.contains(|c: char| c.is_ascii_lowercase())
}

/// The number of a port.
pub fn is_port_number(number: i64) -> bool {
    (1..=65535).contains(&number)
}

/// A share, like `25%`.
pub fn is_percent(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    text.strip_suffix('%').is_some_and(digits)
}
