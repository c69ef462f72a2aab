//! A report without names: for those who want to show theirs to everybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::model::Report;
use super::way::Way;

/// Takes out the names of host, interfaces and targets, what `stores` are called where there are
/// several, and addresses wherever they are.
pub(crate) fn anonymize(report: &mut Report, stores: &[String]) {
    let mut names = Names::default();
    for (i, store) in stores.iter().enumerate() {
        names
            .texts
            .insert(store.clone(), format!("store {}", i + 1));
    }
    for s in &report.series {
        names.interface(&s.interface);
        names.target(&s.target);
    }
    for e in &report.events {
        names.interface(&e.interface);
        e.target.iter().for_each(|t| names.target(t));
        e.seen.iter().for_each(|s| names.target(&s.way.target));
        e.close_looks.iter().for_each(|l| names.target(&l.target));
    }
    for k in &report.paths {
        names.interface(&k.way.interface);
        names.target(&k.way.target);
    }
    for p in &report.path_mtu {
        names.interface(&p.interface);
        names.target(&p.target);
    }
    // What an uplink carried is known where nothing was probed over it, too.
    for value in report.load.iter().chain(&report.capacity) {
        names.interface(value["interface"].as_str().unwrap_or_default());
    }
    for t in &report.throughput {
        names.interface(&t.interface);
        names.target(&t.reflector);
    }
    for b in &report.bufferbloat {
        names.interface(&b.interface);
        names.target(&b.reflector);
    }
    if !report.host.is_empty() {
        names.texts.insert(report.host.clone(), "router".into());
    }
    report.host = "router".into();
    for s in &mut report.series {
        s.interface = names.of_interface(&s.interface);
        s.target = names.of_target(&s.target);
    }
    for e in &mut report.events {
        e.text = names.scrub(&e.text);
        e.interface = names.of_interface(&e.interface);
        e.target = e.target.as_deref().map(|t| names.of_target(t));
        e.values.values_mut().for_each(|v| names.scrub_value(v));
        e.seen.iter_mut().for_each(|s| names.hide(&mut s.way));
        for l in &mut e.close_looks {
            l.interface = names.of_interface(&l.interface);
            l.target = names.of_target(&l.target);
            l.address = names.scrub(&l.address);
        }
    }
    report.paths.iter_mut().for_each(|k| names.hide(&mut k.way));
    for p in &mut report.path_mtu {
        p.interface = names.of_interface(&p.interface);
        p.target = names.of_target(&p.target);
        p.address = names.scrub(&p.address);
        p.told_by = p.told_by.as_deref().map(|by| names.scrub(by));
    }
    for g in &mut report.grades {
        g.interface = names.of_interface(&g.interface);
    }
    for c in &mut report.clock {
        c.interface = names.of_interface(&c.interface);
        c.reflector = names.of_target(&c.reflector);
    }
    for v in &mut report.verdicts {
        v.interface = names.of_interface(&v.interface);
        v.text = names.scrub(&v.text);
        v.evidence.iter_mut().for_each(|e| *e = names.scrub(e));
    }
    for t in &mut report.throughput {
        t.interface = names.of_interface(&t.interface);
        t.reflector = names.of_target(&t.reflector);
    }
    for b in &mut report.bufferbloat {
        b.interface = names.of_interface(&b.interface);
        b.reflector = names.of_target(&b.reflector);
    }
    for o in &mut report.outages {
        o.interface = names.of_interface(&o.interface);
    }
    for c in &mut report.compared {
        for change in &mut c.changes {
            change.interface = names.of_interface(&change.interface);
            change.target = names.of_target(&change.target);
        }
    }
    let lists = [&mut report.load, &mut report.capacity];
    for value in lists.into_iter().flatten() {
        if let Some(Value::String(interface)) = value.get_mut("interface") {
            *interface = names.of_interface(interface);
        }
        names.scrub_value(value);
    }
    for interface in report.cable.iter_mut().flat_map(|c| c.interfaces()) {
        *interface = names.of_interface(interface);
    }
}

/// Names and what stands for them.
#[derive(Debug, Default)]
struct Names {
    interfaces: BTreeMap<String, String>,
    targets: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
}

impl Names {
    fn interface(&mut self, name: &str) {
        let next = format!("uplink {}", self.interfaces.len() + 1);
        if !name.is_empty() {
            self.interfaces.entry(name.to_owned()).or_insert(next);
        }
    }

    fn target(&mut self, name: &str) {
        let next = format!("target {}", self.targets.len() + 1);
        self.targets.entry(name.to_owned()).or_insert(next);
    }

    /// What an interface is called now.
    fn of_interface(&self, name: &str) -> String {
        self.interfaces.get(name).cloned().unwrap_or_default()
    }

    /// What a target is called now.
    fn of_target(&self, name: &str) -> String {
        self.targets.get(name).cloned().unwrap_or_default()
    }

    /// Hides where a way leads; which hop is whose stays.
    fn hide(&self, way: &mut Way) {
        way.interface = self.of_interface(&way.interface);
        way.target = self.of_target(&way.target);
        way.address = self.scrub(&way.address);
        let addresses = way.hops.iter_mut().flat_map(|h| &mut h.addresses);
        addresses.for_each(|a| *a = self.scrub(a));
    }

    /// `text` without the names and without addresses.
    fn scrub(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        // A word ends at what can be in no name and no address.
        let is_word = |c: char| c.is_alphanumeric() || "-_.:@%/".contains(c);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let len = rest
                .find(|x| is_word(x) != is_word(c))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(len);
            out.push_str(&if is_word(c) {
                self.word(word)
            } else {
                word.to_owned()
            });
            rest = after;
        }
        out
    }

    fn word(&self, word: &str) -> String {
        let bare = word.trim_end_matches(['.', ':']);
        let end = &word[bare.len()..];
        for names in [&self.texts, &self.interfaces, &self.targets] {
            if let Some(name) = names.get(bare) {
                return format!("{name}{end}");
            }
        }
        let host = bare.split(['/', '%']).next().unwrap_or(bare);
        if host.parse::<IpAddr>().is_ok()
            || [bare, host].iter().any(|a| a.parse::<SocketAddr>().is_ok())
        {
            return format!("(address){end}");
        }
        word.to_owned()
    }

    fn scrub_value(&self, value: &mut Value) {
        match value {
            Value::String(s) => *s = self.scrub(s),
            Value::Array(all) => all.iter_mut().for_each(|v| self.scrub_value(v)),
            Value::Object(all) => all.values_mut().for_each(|v| self.scrub_value(v)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_go_and_words_stay() {
        let mut names = Names::default();
        names.interface("eth0");
        names.target("vienna");
        let scrubbed = names.scrub(
            "eth0: vienna moved from 203.0.113.7 to 2001:db8::1, then [2001:db8::2]:9876; ethernet \
             stays, 10.0.0.1:53 goes, and 9.9.9.9:53/tcp.",
        );
        assert_eq!(
            scrubbed,
            "uplink 1: target 1 moved from (address) to (address), then [(address)]:9876; ethernet \
             stays, (address) goes, and (address)."
        );
    }
}
