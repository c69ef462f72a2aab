//! A way to a target, and who is on it.

use std::collections::BTreeMap;

use bufferbane_store::{Path, PathEnd, Reader, StoreError};
use serde::Serialize;

/// What kind of link each interface is, as its newest series has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds(BTreeMap<String, String>);

impl Kinds {
    pub(super) fn read(reader: &Reader) -> Result<Self, StoreError> {
        let series = reader.series()?.into_values();
        Ok(Self(
            series.map(|s| (s.interface, s.interface_kind)).collect(),
        ))
    }

    fn of(&self, interface: &str) -> &str {
        self.0.get(interface).map_or("unknown", String::as_str)
    }
}

/// A way as it was walked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Way {
    /// The interface it leaves through.
    pub(crate) interface: String,
    /// What kind of link that is: `wired`, `wifi`, `cellular`, `ppp`, `tunnel` or `unknown`.
    pub(crate) interface_kind: String,
    /// The target's or reflector's name.
    pub(crate) target: String,
    /// Its address.
    pub(crate) address: String,
    /// `target`, `silence`, `refused` or `unsent`: see docs/paths.md.
    pub(crate) end: PathEnd,
    /// Why nothing could be sent, where that was not for want of a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unsent: Option<String>,
    /// Which hop is the first that is the provider's, from 1.
    pub(crate) provider_hop: Option<usize>,
    /// The hops, the nearest first.
    pub(crate) hops: Vec<Hop>,
}

/// One hop of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hop {
    /// Who answered.
    pub(crate) addresses: Vec<String>,
    /// Messages sent to it.
    pub(crate) sent: u64,
    /// Of these answered.
    pub(crate) answered: u64,
    /// Shortest round-trip time.
    pub(crate) rtt_min_ns: Option<u64>,
    /// Mean round-trip time.
    pub(crate) rtt_mean_ns: Option<u64>,
    /// Whether it is in the household's range of addresses.
    #[serde(skip)]
    private: bool,
}

impl Way {
    pub(super) fn of(path: Path, kinds: &Kinds) -> Self {
        let hop = |h: &bufferbane_store::PathHop| Hop {
            addresses: h.addresses.iter().map(ToString::to_string).collect(),
            sent: h.sent,
            answered: h.answered,
            rtt_min_ns: h.rtt_min_ns,
            rtt_mean_ns: h.rtt_mean_ns,
            private: h.addresses.iter().all(|a| !path.is_providers(*a)),
        };
        Self {
            provider_hop: path.provider(),
            hops: path.hops.iter().map(hop).collect(),
            address: path.address.to_string(),
            end: path.end,
            unsent: path.unsent,
            interface_kind: kinds.of(&path.interface).to_owned(),
            interface: path.interface,
            target: path.target,
        }
    }

    /// Who is at hop `n`, from 1: `10.0.0.1 (the provider's first router)`.
    pub(super) fn who(&self, n: usize) -> String {
        let Some(hop) = n.checked_sub(1).and_then(|i| self.hops.get(i)) else {
            return String::new();
        };
        let name = hop.addresses.join(" or ");
        // A target at the first hop is called by its name.
        let is_first = n == 1 && (self.hops.len() > 1 || self.end != PathEnd::Target);
        let is_public = self.provider_hop == Some(n);
        let role = match self.interface_kind.as_str() {
            // The provider of the access line is not on this way, but beneath it.
            "tunnel" if is_first => "the tunnel's far end",
            "tunnel" if is_public => "the first public router beyond the tunnel",
            "tunnel" => return name,
            _ if is_public => "the provider's first router",
            // There is no router of the home's in between.
            "ppp" | "cellular" if is_first && hop.private => "the access line's far end",
            _ if is_first && hop.private => "the home's router",
            _ => return name,
        };
        format!("{name} ({role})")
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_store::PathHop;

    use super::*;

    #[test]
    fn who_is_first_depends_on_what_kind_of_link_leads_there() {
        let hops = ["10.8.0.1", "172.31.1.1", "203.0.113.1", "9.9.9.9"];
        let hop = |address: &&str| PathHop {
            addresses: address.parse().into_iter().collect(),
            sent: 3,
            answered: 3,
            rtt_min_ns: Some(1),
            rtt_mean_ns: Some(1),
        };
        let who = |kind: &str| -> Vec<String> {
            let kinds = Kinds([("l0".to_owned(), kind.to_owned())].into());
            let path = Path {
                interface: "l0".into(),
                target: "quad9".into(),
                address: [9, 9, 9, 9].into(),
                source: None,
                unsent: None,
                provider_link: false,
                end: PathEnd::Target,
                hops: hops.iter().map(hop).collect(),
            };
            let way = Way::of(path, &kinds);
            let role = |n| way.who(n).split_once(' ').map(|(_, r)| r.to_owned());
            (1..=4).map(|n| role(n).unwrap_or_default()).collect()
        };
        let provider = "(the provider's first router)";
        let home = ["(the home's router)", "", provider, ""];
        assert_eq!(who("wired"), home);
        assert_eq!(who("unknown"), home);
        for kind in ["ppp", "cellular"] {
            let line = ["(the access line's far end)", "", provider, ""];
            assert_eq!(who(kind), line);
        }
        let beyond = "(the first public router beyond the tunnel)";
        assert_eq!(who("tunnel"), ["(the tunnel's far end)", "", beyond, ""]);
    }
}
