//! The rules as `nft -a list ruleset` prints them: JSON says what they mean, and this what a person wrote.

use std::collections::BTreeMap;

/// Each rule's words, by its table's family and name and by its handle.
pub type Words = BTreeMap<(String, String, u64), String>;

/// A table's line begins at the margin, a rule's after two tabs. A rule with a chain in place ends with a brace alone.
pub fn words(listing: &str) -> Words {
    let mut words = Words::new();
    let (mut family, mut table) = ("", "");
    for line in listing.lines() {
        if let Some(head) = line.strip_prefix("table ") {
            let mut head = head.split(' ');
            (family, table) = (head.next().unwrap_or_default(), head.next().unwrap_or_default());
        }
        let rule = line.strip_prefix("\t\t").filter(|rule| !rule.starts_with(['\t', '}']));
        if let Some((text, handle)) = rule.and_then(|rule| rule.rsplit_once(" # handle "))
            && let Ok(handle) = handle.parse()
        {
            words.insert((family.to_owned(), table.to_owned(), handle), text.to_owned());
        }
    }
    words
}
