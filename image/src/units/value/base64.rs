//! Base64, RFC 4648 section 4; blanks are skipped.

use super::Expected;

const EXPECTED: Expected = Expected::Other("Base64");

/// The bytes behind a text.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Expected> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = digits.iter().rev().take_while(|digit| **digit == b'=').count();
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return Err(EXPECTED);
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let mut sum = 0u32;
    let mut bits = 0;
    for digit in &digits[..digits.len() - padding] {
        sum = (sum << 6 | digit_value(*digit).ok_or(EXPECTED)?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((sum >> bits) as u8);
        }
    }
    Ok(bytes)
}

fn digit_value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\n YmFy", "foobar")]
        {
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/+/").as_deref(), Ok(&[0xfb, 0xff, 0xbf][..]));
        for bad in ["Zg", "Zg=", "Z===", "Zm9=v", "Zm9-"] {
            assert_eq!(decode(bad), Err(EXPECTED), "{bad}");
        }
    }
}
