//! Names, amounts and references: any text is read or refused, and what was read is written and
//! read alike.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use deploykit_core::model::{Bytes, Cpu, ImageRef, Percent, ServiceName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    round_trip::<Bytes>(text);
    round_trip::<Cpu>(text);
    round_trip::<Percent>(text);
    round_trip::<ServiceName>(text);
    if let Ok(reference) = ImageRef::new(text) {
        assert_eq!(ImageRef::new(reference.to_string()).as_ref(), Ok(&reference));
    }
});

fn round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().expect("what was written can be read");
        assert_eq!(again, value);
    }
}
