//! What a verdict says of resolvers and of services that take connections.

use bufferbane_core::detect::Kind;

use super::super::model::Event;
use super::listed;

/// What is wrong with resolvers, and what to do: another one helps where others were well at each of their troubles.
pub(super) fn resolver(names: &[String], events: &[&Event]) -> String {
    let is = |kind: Kind| events.iter().any(|e| e.kind == kind.as_str());
    let many = names.len() > 1;
    let whom = match names {
        [one] if one.contains("resolver") => format!("the {one}"),
        _ if many => format!("the resolvers {}", listed(names)),
        _ => format!("the resolver {}", listed(names)),
    };
    if let Some(text) = one_way(&whom, many, events) {
        return format!("while the line is well, {text}");
    }
    let does = match (is(Kind::DnsFailing), is(Kind::DnsSlow)) {
        (true, false) if many => "fail, and names are not found",
        (true, false) => "fails, and names are not found",
        (false, true) if many => "are slow, and all that begins with a name waits for them",
        (false, true) => "is slow, and all that begins with a name waits for it",
        _ if many => "fail or are slow, and names are found late or not at all",
        _ => "fails or is slow, and names are found late or not at all",
    };
    let only = |e: &&Event| {
        e.values
            .get("only_this")
            .and_then(serde_json::Value::as_bool)
    };
    let advice = if events.iter().any(|e| only(e) == Some(false)) {
        "others are not well either at the same moments, so another one may not help; restart the router, and ask the \
         provider, who may answer in their place"
    } else {
        "ask another resolver (set it in the router, or on this host)"
    };
    format!("while the line is well, {whom} {does}: {advice}")
}

/// What is said where all of it is that UDP, or TCP, does not do alone.
fn one_way(whom: &str, many: bool, events: &[&Event]) -> Option<String> {
    let well_over = |e: &&Event| e.values.get("well_over")?.as_str().map(str::to_owned);
    let all_over = |way: &str| events.iter().all(|e| well_over(e).as_deref() == Some(way));
    let s = if many { "" } else { "s" };
    if events.is_empty() || events.iter().any(|e| e.kind != Kind::DnsFailing.as_str()) {
        return None;
    }
    if events.iter().all(|e| cuts(e)) {
        let then = match all_over("tcp") {
            true => ", where an answer came",
            false => "",
        };
        return Some(format!(
            "{whom} cut{s} answers short over UDP, so that programs ask again over TCP{then}: names take longer; another \
             resolver may answer at once"
        ));
    }
    if all_over("tcp") {
        return Some(format!(
            "{whom} answer{s} over TCP and not over UDP, and most programs ask over UDP alone: something on the way drops or \
             refuses it (a firewall, the router, the provider); ask over TCP, or ask another resolver"
        ));
    }
    all_over("udp").then(|| {
        format!(
            "{whom} answer{s} over UDP and not over TCP, so that long answers are not found: a firewall, or the resolver itself"
        )
    })
}

/// Whether most answers of an event were cut to fit into a datagram.
fn cuts(e: &Event) -> bool {
    let number = |name: &str| e.values.get(name).and_then(serde_json::Value::as_u64);
    let silent = 2 * number("silent").unwrap_or(0) > number("failed").unwrap_or(0);
    !silent && e.values.get("reason").and_then(|r| r.as_str()) == Some("truncated")
}

/// What is wrong with connections to `whom`, and where that is: one that is held may be lost on the way, while new ones
/// open.
pub(super) fn connections(whom: &str, events: &[&Event]) -> String {
    let has = |e: &&Event, name: &str| e.values.contains_key(name);
    let any = |name: &str| events.iter().any(|e| has(e, name));
    let (held, failed, slow) = (any("drops"), any("failed"), any("slow"));
    let what = match (failed, slow) {
        (true, true) => "do not open, or open slowly",
        (true, false) => "do not open",
        _ => "open slowly",
    };
    let end = "at that end, and for whoever runs it to mend";
    if !held {
        return format!(
            "connections to {whom} {what} while the line is well: the trouble is {end}"
        );
    }
    let silent = events.iter().filter(|e| has(e, "drops")).all(|e| {
        e.values.get("errno").and_then(serde_json::Value::as_i64)
            == Some(nix::libc::ETIMEDOUT.into())
    });
    let by = match silent {
        true => {
            "without a word: a NAT or a firewall on the way has most likely forgotten them, or that end is gone"
        }
        false => "by that end, or by something on the way in its name",
    };
    match failed || slow {
        true => format!(
            "connections to {whom} {what}, and those that are held are lost, while the line is well: the trouble is {end}"
        ),
        false => format!(
            "connections to {whom} that are held open are lost while the line is well and new ones open, {by}"
        ),
    }
}
