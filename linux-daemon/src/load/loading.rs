//! That an interface is loaded, as the recorder hears of it.

use std::sync::mpsc::SyncSender;

use bufferbane_linux_io::clock;

use crate::recorder::Order;

/// While this lives, the recorder takes the interface for loaded: however a test ends, that ends too.
pub(super) struct Loading {
    orders: SyncSender<Order>,
    interface: String,
}

impl Loading {
    pub(super) fn begin(orders: &SyncSender<Order>, interface: &str) -> Self {
        let (orders, interface) = (orders.clone(), interface.to_owned());
        // The recorder is gone only when everything ends.
        let _ = orders.send(Order::LoadBegins(interface.clone(), clock::now()));
        Self { orders, interface }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let interface = std::mem::take(&mut self.interface);
        let _ = self.orders.send(Order::LoadEnds(interface, clock::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_hears_when_loading_begins_and_that_it_ended() {
        let (orders, told) = std::sync::mpsc::sync_channel(2);
        drop(Loading::begin(&orders, "eth0"));
        let (Ok(Order::LoadBegins(a, from)), Ok(Order::LoadEnds(b, to))) =
            (told.recv(), told.recv())
        else {
            panic!("both are told, in order");
        };
        assert_eq!((a.as_str(), b.as_str()), ("eth0", "eth0"));
        assert!(from <= to);
    }
}
