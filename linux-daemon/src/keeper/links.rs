//! Interfaces that are probed, as they go down and come up.

use std::collections::BTreeSet;

use bufferbane_linux_io::netlink::Interface;
use bufferbane_store::Severity;

use super::Keeper;
use crate::plan::Wanted;
use crate::recorder::{Fact, Order};

impl Keeper {
    /// Tells when a probed interface goes or comes.
    pub(super) fn note_links(&mut self, interfaces: &[Interface], wanted: &[Wanted]) {
        let names: BTreeSet<&String> = wanted.iter().map(|w| &w.interface).collect();
        let mut news = Vec::new();
        for name in names {
            let up = interfaces
                .iter()
                .any(|i| i.name == *name && i.up && i.running);
            if let Some(before) = self.links.insert(name.clone(), up)
                && before != up
            {
                news.push((name.clone(), up));
            }
        }
        for (name, up) in news {
            let down = format!("link_down {name}");
            let fact = |kind, severity, text: String| Fact {
                kind,
                severity,
                interface: name.clone(),
                target: None,
                text,
            };
            if up {
                log::info!("interface {name} is up");
                self.order(Order::End(down));
                let up = fact(
                    "link_up",
                    Severity::Info,
                    format!("interface {name} came up"),
                );
                self.order(Order::Moment(up));
            } else {
                log::warn!("interface {name} is down");
                let text = format!("interface {name} went down");
                self.order(Order::Begin(
                    down,
                    fact("link_down", Severity::Warning, text),
                ));
            }
        }
    }
}
