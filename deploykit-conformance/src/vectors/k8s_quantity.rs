//! `k8s-quantity`: the amounts of Kubernetes' apimachinery.

use deploykit_k8s::{Format, Quantity};
use serde_json::{Value, json};

use super::{expect_equal, text};

pub(super) fn check(case: &Value) -> Result<(), String> {
    let parsed: Result<Quantity, _> = text(case, "input")?.parse();
    let quantity = match (parsed, case["ok"].as_bool()) {
        (Ok(quantity), Some(true)) => quantity,
        (Err(_), Some(false)) => return Ok(()),
        (Ok(found), _) => return Err(format!("should be rejected, found {found}")),
        (Err(error), _) => return Err(error.to_string()),
    };
    if let Some(canonical) = case.get("canonical") {
        return expect_equal("canonical form", canonical, &quantity.to_string().into());
    }
    let expression = case.get("expr");
    let expected = match expression.map(|e| (&e["d"]["$id"], &e["Format"]["$id"])) {
        Some((name, format)) if name == "maxAllowed" => json!([i64::MAX.to_string(), 0, format]),
        Some((name, _)) => return Err(format!("there is no amount named {name}")),
        None => {
            let digits = case["unscaled"].as_i64().ok_or("the case has no number `unscaled`")?;
            let scale = case["scale10"].as_i64().ok_or("the case has no number `scale10`")?;
            let (digits, scale) = without_zeros(digits, scale);
            json!([digits.to_string(), scale, case["format"]])
        }
    };
    let (digits, scale) = quantity.normal();
    let format = match quantity.format() {
        Format::BinarySi => "BinarySI",
        Format::DecimalSi => "DecimalSI",
        Format::DecimalExponent => "DecimalExponent",
    };
    expect_equal("value", &expected, &json!([digits.to_string(), scale, format]))
}

/// The one way of writing a number as digits times a power of ten.
fn without_zeros(mut digits: i64, mut scale: i64) -> (i64, i64) {
    if digits == 0 {
        return (0, 0);
    }
    while digits % 10 == 0 {
        digits /= 10;
        scale += 1;
    }
    (digits, scale)
}
