//! A plan's file: any text is read or refused, and what was read can be shown and written.
#![no_main]

use deploykit_core::Plan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(plan) = serde_json::from_slice::<Plan>(text) {
        let _ = plan.to_string();
        let json = serde_json::to_vec(&plan).expect("a plan can be written");
        let again: Plan = serde_json::from_slice(&json).expect("what was written can be read");
        assert_eq!(again.to_string(), plan.to_string());
    }
});
