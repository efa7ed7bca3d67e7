//! Variables in texts: any text is replaced or refused, and one without a dollar sign stays.
#![no_main]

use deploykit_compose::interpolate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lookup = |name: &str| match name.len() % 3 {
        0 => None,
        1 => Some(String::new()),
        _ => Some("value".to_owned()),
    };
    if let Ok(replaced) = interpolate(text, &lookup)
        && !text.contains('$')
    {
        assert_eq!(replaced, text);
    }
    let escaped = text.replace('$', "$$");
    assert_eq!(interpolate(&escaped, &lookup).as_deref(), Ok(text));
});
