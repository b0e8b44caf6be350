//! Names of capabilities, capabilities(7).

use crate::units::value::{Expected, capability};

/// `net_raw`, `CAP_NET_RAW` and `all` in any case, as `CAP_NET_RAW` and `CAP_ALL`.
pub(super) fn parse(text: &str) -> Result<String, Expected> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match name == "ALL" || capability::number(name).is_some() {
        true => Ok(format!("CAP_{name}")),
        false => Err(Expected::Other("capabilities such as `CAP_NET_RAW`, or `all`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_becomes_one() {
        for text in ["net_raw", "CAP_NET_RAW", "cap_net_raw"] {
            assert_eq!(parse(text).as_deref(), Ok("CAP_NET_RAW"));
        }
        assert_eq!(parse("all").as_deref(), Ok("CAP_ALL"));
        assert!(parse("CAP_FLY").is_err());
    }
}
