//! How QEMU writes what an option holds: as `key=value,...`, where `,,` is a comma in a value (util/qemu-option.c), or
//! as JSON; and how it writes a MAC.

use macaddr::MacAddr6;
use serde_json::Value;

/// The properties in an option's argument.
pub fn properties(option: &str, value: &str) -> Vec<(String, String)> {
    match option {
        _ if value.starts_with('{') => json(value),
        "global" => global(value).unwrap_or_else(|| option_string(option, value)),
        _ => option_string(option, value),
    }
}

/// `driver,key=value,...`: the first item may leave out its key.
fn option_string(option: &str, value: &str) -> Vec<(String, String)> {
    let implied = if option == "device" { "driver" } else { "type" };
    // An argument cannot contain NUL, which stands for a comma in a value here.
    let value = value.replace(",,", "\0");
    let items = value.split_terminator(',').map(|item| item.replace('\0', ","));
    let property = |(at, item): (usize, String)| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None if at == 0 => (implied.to_owned(), item),
        None => (item, "on".to_owned()),
    };
    items.enumerate().map(property).collect()
}

/// `DRIVER.PROPERTY=VALUE`, the short form (qemu_global_option).
fn global(value: &str) -> Option<Vec<(String, String)>> {
    let (path, value) = value.split_once('=')?;
    let (driver, property) = path.split_once('.')?;
    let all = [("driver", driver), ("property", property), ("value", value)];
    Some(all.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
}

/// The top-level scalars of a JSON object.
fn json(value: &str) -> Vec<(String, String)> {
    let object = serde_json::from_str(value).or_else(|_| serde_json::from_str(&in_double_quotes(value)));
    let Ok(Value::Object(object)) = object else {
        return Vec::new();
    };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    };
    object.into_iter().filter_map(|(key, value)| Some((key, scalar(value)?))).collect()
}

/// QEMU takes strings in single quotes too (qobject/json-lexer.c).
fn in_double_quotes(value: &str) -> String {
    let mut text = String::new();
    let mut inside = None;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, inside) {
            ('\\', Some(_)) => match characters.next() {
                Some('\'') => text.push('\''),
                next => text.extend(['\\'].into_iter().chain(next)),
            },
            ('"', Some('\'')) => text.push_str("\\\""),
            ('\'' | '"', None) => {
                inside = Some(character);
                text.push('"');
            }
            (quote, Some(open)) if quote == open => {
                inside = None;
                text.push('"');
            }
            _ => text.push(character),
        }
    }
    text
}

/// A MAC as -nic and -net nic take it (net/util.c, net_parse_macaddr), of which a -device takes a part: six numbers with
/// colons or dashes, each as strtol reads it and cut to its last octet; or one number for the last three octets.
pub fn mac(text: &str) -> Option<MacAddr6> {
    if let Some(number) = number(text).filter(|number| *number <= 0xff_ffff) {
        let [_, octets @ ..] = u32::to_be_bytes(number as u32);
        return Some(MacAddr6::new(0, 0, 0, octets[0], octets[1], octets[2]));
    }
    let octets: Option<Vec<u8>> = text.split([':', '-']).map(octet).collect();
    <[u8; 6]>::try_from(octets?).ok().map(MacAddr6::from)
}

/// Without digits it is 0.
fn octet(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(|number| number as u8)
}

/// A number of C: decimal, 0x and hexadecimal, 0 and octal.
fn number(text: &str) -> Option<u64> {
    let digits = |text: &str, radix| {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_number.then(|| u64::from_str_radix(text, radix).ok()).flatten()
    };
    match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => digits(&text[2..], 16),
        [b'0', ..] => digits(text, 8),
        _ => digits(text, 10),
    }
}
