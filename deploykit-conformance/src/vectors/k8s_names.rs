//! `k8s-names`: the checks of names of Kubernetes' apimachinery.

use deploykit_k8s::names;
use serde_json::Value;

use super::{expect_equal, text};

pub(super) fn check(case: &Value) -> Result<(), String> {
    let check = text(case, "check")?;
    let of_text: fn(&str) -> bool = match check {
        "DNS1123Label" => names::is_dns1123_label,
        "DNS1123Subdomain" => names::is_dns1123_subdomain,
        "DNS1035Label" => names::is_dns1035_label,
        "WildcardDNS1123Subdomain" => names::is_wildcard_dns1123_subdomain,
        "FullyQualifiedDomainName" => names::is_fully_qualified_domain_name,
        "FullyQualifiedName" => names::is_fully_qualified_name,
        "DomainPrefixedPath" => names::is_domain_prefixed_path,
        "QualifiedName" => names::is_qualified_name,
        "ValidLabelValue" => names::is_label_value,
        "ConfigMapKey" => names::is_config_map_key,
        "HTTPHeaderName" => names::is_http_header_name,
        "ValidPortName" => names::is_port_name,
        "ValidPercent" => names::is_percent,
        "ValidPortNum" => {
            let number = case["value"].as_i64().ok_or("the case has no number `value`")?;
            return expect_equal("valid", &case["valid"], &names::is_port_number(number).into());
        }
        other => return Err(format!("there is no check `{other}`")),
    };
    expect_equal("valid", &case["valid"], &of_text(text(case, "value")?).into())
}
