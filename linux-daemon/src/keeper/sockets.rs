//! Sockets of units: opened and closed as interfaces and routes demand, and what is told where one cannot be had.

use bufferbane_linux_io::netlink::{Interface, RouteQuery};
use bufferbane_store::Severity;
use nix::libc;

use super::Keeper;
use super::trouble::Trouble;
use crate::ask;
use crate::equip;
use crate::plan::{Probe, Wanted};
use crate::probe::Command;
use crate::recorder::Fact;

impl Keeper {
    /// Opens or closes a unit's socket as interface and route demand.
    pub(super) fn connect(&mut self, w: &Wanted, interfaces: &[Interface]) {
        let path = self.path(w, interfaces);
        let Some(kept) = self.units.get_mut(w) else {
            return;
        };
        let id = kept.id;
        match path {
            Ok(index) if kept.open == Some(index) => {}
            Ok(index) if matches!(w.probe, Probe::Service(_)) => {
                (kept.open, kept.opened) = (Some(index), self.seen);
                let trouble = kept.trouble.take();
                self.ask(ask::Command::Open(id));
                self.note_mended(w, trouble);
            }
            Ok(index) => match equip::socket(w, kept.identifier) {
                Ok((socket, stamped)) => {
                    if self.stamped.get(&w.interface) != Some(&stamped) {
                        log::info!("packets of {} are stamped {stamped}", w.interface);
                        self.stamped.insert(w.interface.clone(), stamped);
                    }
                    (kept.open, kept.opened) = (Some(index), self.seen);
                    let trouble = kept.trouble.take();
                    self.tell(Command::Open(id, Box::new(socket)));
                    self.note_mended(w, trouble);
                }
                Err(e) => {
                    let errno = e.source.raw_os_error().unwrap_or(libc::EIO);
                    self.close(w, errno, e.to_string());
                }
            },
            Err((errno, why)) => self.close(w, errno, why),
        }
    }

    fn note_mended(&self, w: &Wanted, trouble: Option<Trouble>) {
        if self.end_trouble(w, trouble, self.seen) {
            log::info!("{}: probed again", w.name());
        }
    }

    pub(super) fn close(&mut self, w: &Wanted, errno: i32, why: String) {
        let Some(kept) = self.units.get_mut(w) else {
            return;
        };
        let was_open = kept.open.take().is_some();
        if !was_open && kept.trouble.as_ref().is_some_and(|t| t.why == why) {
            return;
        }
        let id = kept.id;
        // That an interface went down is an event of its own; one for each target would only repeat it. Nor are routes
        // there at once where it has come up.
        let is_of_link = |errno| errno == libc::ENETDOWN || errno == libc::ENODEV;
        let had_link_trouble = kept.trouble.as_ref().is_some_and(|t| is_of_link(t.errno));
        let severity = if (was_open && is_of_link(errno)) || had_link_trouble {
            Severity::Info
        } else {
            Severity::Warning
        };
        let fact = Fact {
            values: Vec::new(),
            kind: "not_probed",
            severity,
            interface: w.interface.clone(),
            target: Some(w.target.clone()),
            text: why.clone(),
        };
        let before = kept.trouble.take();
        let trouble = Trouble::new((errno, why), self.seen, before.as_ref(), fact);
        kept.trouble = Some(trouble);
        match &w.probe {
            Probe::Service(_) => self.ask(ask::Command::Close(id, errno)),
            _ => self.tell(Command::Close(id, errno)),
        }
        self.end_trouble(w, before, self.seen);
    }

    /// The index of the interface if the target can be reached through it, or errno and reason.
    fn path(&mut self, w: &Wanted, interfaces: &[Interface]) -> Result<u32, (i32, String)> {
        let name = &w.interface;
        let Some(interface) = interfaces.iter().find(|i| i.name == *name) else {
            return Err((
                libc::ENODEV,
                format!("there is no interface {name} at present"),
            ));
        };
        if !interface.up {
            return Err((libc::ENETDOWN, format!("interface {name} is switched off")));
        }
        if let Some(source) = w.source
            && !interfaces
                .iter()
                .any(|i| i.addresses.iter().any(|a| a.ip == source))
        {
            return Err((
                libc::EADDRNOTAVAIL,
                format!("its source {source} is no address of this host at present"),
            ));
        }
        let query = RouteQuery {
            interface: Some(interface.index),
            from: w.source,
            mark: w.mark,
            ..RouteQuery::to(w.remote.ip())
        };
        match self.netlink.route_for(&query) {
            Ok(Some(_)) => Ok(interface.index),
            Ok(None) => {
                let to = w.remote.ip();
                Err((
                    libc::ENETUNREACH,
                    format!("no route to {to} through {name}"),
                ))
            }
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or(libc::EIO);
                Err((
                    errno,
                    format!("no route to {} through {name}: {e}", w.remote.ip()),
                ))
            }
        }
    }
}
