//! What `nft -j list ruleset` prints (libnftables-json(5)), read as tables. IPv4's alone, for guests have no other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::Value;

use super::iptables::GO_ON;
use super::model::{Action, End, Match, Rule, Share, Table};
use super::shares;
use super::words::Words;

#[derive(Deserialize)]
struct Ruleset {
    nftables: Vec<Object>,
}

/// One object of the list; of the others none has a field.
#[derive(Deserialize)]
struct Object {
    table: Option<Named>,
    chain: Option<Named>,
    rule: Option<Named>,
    set: Option<Named>,
    map: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    family: String,
    #[serde(default)]
    name: String,
    /// Of what is in a table.
    #[serde(default)]
    table: String,
    /// Of a rule.
    #[serde(default)]
    chain: String,
    #[serde(default)]
    handle: u64,
    /// Of a base chain.
    hook: Option<String>,
    policy: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
    /// Of a set or a map.
    #[serde(default)]
    elem: Vec<Value>,
    #[serde(default)]
    flags: Value,
}

impl Named {
    /// nft 1.0.6 prints the table's own name in place of the flag (measured). A dormant table does nothing.
    fn is_dormant(&self) -> bool {
        let is = |flag: &Value| flag == "dormant" || flag == self.name.as_str();
        is(&self.flags) || self.flags.as_array().is_some_and(|flags| flags.iter().any(is))
    }
}

type Sets = BTreeMap<(String, String, String), Vec<Value>>;

/// # Errors
/// The text is not what nft prints.
pub fn tables(json: &str, words: &Words) -> Result<Vec<Table>, String> {
    let ruleset: Ruleset = serde_json::from_str(json).map_err(|error| format!("nft's JSON: {error}"))?;
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    let mut sets = Sets::new();
    for object in &ruleset.nftables {
        if let Some(table) = object.table.as_ref().filter(|table| !table.is_dormant()) {
            let (family, name) = (table.family.clone(), table.name.clone());
            tables.insert((family.clone(), name.clone()), Table { family, name, ..Table::default() });
        }
        if let Some(set) = object.set.as_ref().or(object.map.as_ref()) {
            sets.insert((set.family.clone(), set.table.clone(), set.name.clone()), set.elem.clone());
        }
    }
    for object in &ruleset.nftables {
        let Some(found) = object.chain.as_ref().or(object.rule.as_ref()) else { continue };
        let Some(table) = tables.get_mut(&(found.family.clone(), found.table.clone())) else { continue };
        if object.chain.is_some() {
            table.chains.entry(found.name.clone()).or_default();
            if found.hook.as_deref() == Some("forward") {
                table.forward.insert(found.name.clone(), found.policy.as_deref() == Some("drop"));
            }
        } else {
            let length = table.lengths.entry(found.chain.clone()).or_default();
            let rules = rules(found, *length, &sets, words);
            *length += 1;
            table.chains.entry(found.chain.clone()).or_default().extend(rules);
        }
    }
    Ok(tables.into_values().filter(|table| ["ip", "inet"].contains(&table.family.as_str())).collect())
}

/// A rule; one with a verdict map is a rule for each of the map's elements.
fn rules(found: &Named, number: usize, sets: &Sets, words: &Words) -> Vec<Rule> {
    let set = |name: &str| sets.get(&(found.family.clone(), found.table.clone(), name.to_owned())).cloned();
    let text = match words.get(&(found.family.clone(), found.table.clone(), found.handle)) {
        Some(words) => format!("`{words}` (handle {} of its chain {})", found.handle, found.chain),
        None => format!("the rule with handle {} of its chain {}", found.handle, found.chain),
    };
    let partly_shown = found.expr.iter().any(|statement| statement.get("xt").is_some()).then_some(number);
    let rule = |matches: &[Match], action| Rule { matches: matches.to_vec(), action, text: text.clone(), partly_shown };
    let mut matches = Vec::new();
    for statement in &found.expr {
        // A chain in place, which nft prints as text alone.
        if statement.as_str().is_some_and(|text| text.starts_with("jump {") || text.starts_with("goto {")) {
            return vec![rule(&matches, Action::Ask)];
        }
        let Some((key, value)) = statement.as_object().and_then(|object| object.iter().next()) else { continue };
        match key.as_str() {
            "match" => matches.push(condition(value, &set)),
            "limit" | "quota" | "ct count" | "meter" => matches.push(Match::Always(Share::Unknown)),
            "set" if value["stmt"].is_array() => matches.push(Match::Always(Share::Unknown)),
            "xt" => match (value["type"].as_str(), value["name"].as_str()) {
                (Some("match"), Some("comment")) => {}
                (Some("target"), Some("REJECT")) => return vec![rule(&matches, Action::Drop)],
                (Some("target"), Some(name)) if GO_ON.contains(&name) => {}
                (Some("target"), _) => return vec![rule(&matches, Action::Ask)],
                _ => matches.push(Match::Always(Share::Unknown)),
            },
            "vmap" => {
                let pair = |pair: Value| {
                    let value = equal(&value["key"], pair.get(0)?);
                    Some(rule(&[&matches[..], &[value]].concat(), action(pair.get(1)?)?))
                };
                let elements = members(&value["data"], &set);
                return match elements {
                    Some(elements) => elements.into_iter().filter_map(pair).collect(),
                    None => vec![rule(&matches, Action::Ask)],
                };
            }
            _ => {
                if let Some(action) = action(statement) {
                    return vec![rule(&matches, action)];
                }
            }
        }
    }
    Vec::new()
}

/// Takes the rules that nft shows in part from what iptables-save prints of the same table. Only those: iptables-save
/// prints rules that nft made as others (measured with 1.8.9: one with a set, as one for all packets).
pub fn complete(table: &mut Table, saved: Table) {
    for (chain, rules) in &mut table.chains {
        let own = saved.chains.get(chain).filter(|own| table.lengths.get(chain) == Some(&own.len()));
        for rule in rules {
            let better = own.zip(rule.partly_shown).and_then(|(own, at)| own.get(at));
            if let Some(better) = better {
                *rule = better.clone();
            }
        }
    }
    table.iptables = saved.iptables;
}

fn action(statement: &Value) -> Option<Action> {
    let (key, value) = statement.as_object()?.iter().next()?;
    let target = || value["target"].as_str().unwrap_or_default().to_owned();
    Some(match key.as_str() {
        "accept" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "return" => Action::Return,
        "queue" | "fwd" | "synproxy" | "tproxy" => Action::Ask,
        "jump" => Action::Jump(target()),
        "goto" => Action::Goto(target()),
        _ => return None,
    })
}

/// The elements of a set or a map in place, of a list of flags or of a set with a name; else the value alone.
fn members(right: &Value, set: &dyn Fn(&str) -> Option<Vec<Value>>) -> Option<Vec<Value>> {
    let named = right.as_str().and_then(|text| text.strip_prefix('@'));
    match (named, right["set"].as_array(), right.as_array()) {
        (Some(name), ..) => set(name),
        (_, Some(list), _) | (_, _, Some(list)) => Some(list.clone()),
        _ => Some(vec![right.clone()]),
    }
}

fn condition(value: &Value, set: &dyn Fn(&str) -> Option<Vec<Value>>) -> Match {
    let (left, right) = (&value["left"], &value["right"]);
    // `ct state & (established | related) != 0`
    let masked = left["&"].as_array().filter(|both| both[0]["ct"]["key"] == "state" && right == 0);
    let (left, right, is_zero) = match masked.map(Vec::as_slice) {
        Some([state, mask]) => (state, mask.get("|").unwrap_or(mask), true),
        _ => (left, right, false),
    };
    let is_not = match value["op"].as_str() {
        Some("!=") => !is_zero,
        Some("==" | "in") => is_zero,
        // `tcp flags ! syn,ack`: none of them.
        Some("!") => is_zero,
        _ => return Match::Both(vec![needs(left), Match::Always(compared(value))]),
    };
    let is_flags = left["&"].get(0).unwrap_or(left)["payload"]["field"] == "flags";
    let found = match members(right, set) {
        // `tcp flags syn,ack`: one of them.
        _ if is_flags && value["op"] == "in" => equal_flags(right, &Value::from(0)).negated(),
        _ if is_flags && value["op"] == "!" => equal_flags(right, &Value::from(0)),
        // Under a mask they are one value.
        _ if is_flags && right.is_array() => equal(left, right),
        Some(elements) => Match::Either(elements.iter().map(|element| equal(left, element)).collect()),
        None => Match::Always(Share::Unknown),
    };
    Match::Both(vec![needs(left), if is_not { found.negated() } else { found }])
}

/// What a packet must be to have the field at all: of a TCP port nft compares the protocol first.
fn needs(left: &Value) -> Match {
    if let Some(all) = left["concat"].as_array() {
        return Match::Both(all.iter().map(needs).collect());
    }
    let inner = left["&"].get(0).unwrap_or(left);
    match inner["payload"]["protocol"].as_str() {
        Some(protocol @ ("tcp" | "udp" | "icmp")) => Match::Protocol(protocol.to_owned()),
        Some("ip" | "th" | "ether") | None => Match::Always(Share::All),
        Some(_) => Match::Always(Share::None),
    }
}

/// Whether a packet's field has a value.
fn equal(left: &Value, right: &Value) -> Match {
    let right = if right["elem"].is_object() { &right["elem"]["val"] } else { right };
    let all = |is: bool| Match::Always(if is { Share::All } else { Share::None });
    let text = right.as_str();
    if text == Some("*") {
        return all(true);
    }
    if let (Some(fields), Some(values)) = (left["concat"].as_array(), right["concat"].as_array()) {
        return Match::Both(fields.iter().zip(values).map(|(field, value)| equal(field, value)).collect());
    }
    let inner = left["&"].get(0).unwrap_or(left);
    let key = inner["meta"]["key"].as_str().or(inner["ct"]["key"].as_str());
    let field = inner["payload"]["field"].as_str();
    match (key, text) {
        // A packet has no mark unless a rule sets one.
        (Some("mark"), _) => return all(right == 0 || text == Some("0x00000000")),
        // There is a route to guests, and one to whom they talk to.
        _ if inner["fib"].is_object() && right.is_boolean() => return all(right == true),
        _ if inner["fib"]["result"] == "type" => return Match::Always(shares::address_type(text.unwrap_or_default())),
        (Some("iifname" | "iif"), Some(name)) => return Match::Interface(End::From, name.to_owned()),
        (Some("oifname" | "oif"), Some(name)) => return Match::Interface(End::To, name.to_owned()),
        (Some("iifkind"), Some(kind)) => return Match::InterfaceKind(End::From, kind.to_owned()),
        (Some("oifkind"), Some(kind)) => return Match::InterfaceKind(End::To, kind.to_owned()),
        (Some("state"), Some(state)) => return Match::State(state.to_owned()),
        // Guests have addresses of their own, and need no translation.
        (Some("status"), Some("dnat" | "snat")) => return all(false),
        (Some("l4proto"), _) => return protocol(right),
        (Some("nfproto"), _) => return all(text == Some("ipv4") || right == 2),
        (Some("protocol"), _) => return all(text == Some("ip") || right == 0x0800),
        (Some("pkttype"), _) => return all(matches!(text, Some("host" | "unicast"))),
        (Some(key), _) if key.contains("iif") || key.contains("oif") || key.contains("br") => {
            return Match::Always(Share::Unknown);
        }
        _ => {}
    }
    let mask = left["&"].get(1);
    match (inner["payload"]["protocol"].as_str(), field) {
        (Some("tcp"), Some("flags")) => equal_flags(mask.unwrap_or(&Value::from(u8::MAX)), right),
        (Some("ip"), Some("frag-off")) if right == 0 => {
            Match::Always(shares::whole(mask.and_then(Value::as_u64).unwrap_or(u64::MAX)))
        }
        _ if mask.is_some() => Match::Always(Share::Unknown),
        (Some("ip"), Some("saddr")) => address(End::From, right),
        (Some("ip"), Some("daddr")) => address(End::To, right),
        (Some("ip"), Some("protocol")) => protocol(right),
        (Some("ip"), Some("version")) => all(right == 4),
        (_, Some("sport" | "dport")) => {
            let end = |at: usize| right["range"].get(at).and_then(Value::as_u64);
            Match::Always(end(0).zip(end(1)).map_or(Share::Few, |(first, last)| shares::ports(first, last)))
        }
        (Some("icmp"), Some("type" | "code")) => Match::Always(Share::Few),
        _ => Match::Always(Share::Unknown),
    }
}

fn equal_flags(mask: &Value, right: &Value) -> Match {
    let both = bits(mask).zip(bits(right));
    Match::Always(both.map_or(Share::Unknown, |(mask, flags)| shares::tcp_flags(mask, flags)))
}

/// `tcp dport >= 1024`
fn compared(value: &Value) -> Share {
    let port = value["right"].as_u64().filter(|_| {
        let field = &value["left"]["payload"]["field"];
        field == "sport" || field == "dport"
    });
    match (port, value["op"].as_str()) {
        (Some(port), Some("<")) => shares::ports(0, port.saturating_sub(1)),
        (Some(port), Some("<=")) => shares::ports(0, port),
        (Some(port), Some(">")) => shares::ports(port + 1, 65535),
        (Some(port), Some(">=")) => shares::ports(port, 65535),
        _ => Share::Unknown,
    }
}

/// `syn`, `["syn", "ack"]`, `{"|": ["syn", "ack"]}`, in TCP's header.
fn bits(value: &Value) -> Option<u8> {
    if let Some(list) = value.as_array().or(value["|"].as_array()) {
        return list.iter().try_fold(0, |all, one| Some(all | bits(one)?));
    }
    value.as_u64().and_then(|bits| u8::try_from(bits).ok()).or_else(|| shares::tcp_flag(value.as_str()?))
}

fn protocol(right: &Value) -> Match {
    let name = match right.as_u64() {
        Some(1) => "icmp",
        Some(6) => "tcp",
        Some(17) => "udp",
        _ => right.as_str().unwrap_or_default(),
    };
    Match::Protocol(name.to_owned())
}

fn address(end: End, right: &Value) -> Match {
    let parse = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok().map(u32::from);
    let prefix = &right["prefix"];
    let range = &right["range"];
    let ends = if let Some(length @ 0..=32) = prefix["len"].as_u64() {
        let mask = u32::MAX.checked_shl(32 - length as u32).unwrap_or(0);
        parse(&prefix["addr"]).map(|address| (address & mask, address | !mask))
    } else if range.is_array() {
        parse(&range[0]).zip(parse(&range[1]))
    } else {
        parse(right).map(|address| (address, address))
    };
    ends.map_or(Match::Always(Share::Few), |(first, last)| Match::Address(end, first, last))
}
