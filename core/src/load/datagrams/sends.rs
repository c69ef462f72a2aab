//! How many datagrams left in each send: when one fails, so many were not lost by the line.

/// Sends that are remembered, a power of two. A failure is told as the send is handed over, or right
/// after.
const LATEST: usize = 256;

/// The latest sends by the driver's keys, and whose they were.
#[derive(Clone, Debug)]
pub struct Sends<T> {
    latest: [Option<(u32, T, u32)>; LATEST],
}

impl<T: Copy> Default for Sends<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Sends<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            latest: [const { None }; LATEST],
        }
    }

    /// A datagram of `whose` was queued under `key`, or in one send with that of the key `with`.
    pub const fn add(&mut self, key: u32, with: Option<u32>, whose: T) {
        let first = match with {
            Some(first) => first,
            None => key,
        };
        let place = &mut self.latest[first as usize % LATEST];
        *place = match *place {
            Some((of, whose, count)) if of == first => Some((of, whose, count + 1)),
            _ => Some((first, whose, 1)),
        };
    }

    /// The send with this key failed: whose datagrams were in it, and how many.
    pub const fn take(&mut self, key: u32) -> Option<(T, u32)> {
        let place = &mut self.latest[key as usize % LATEST];
        match *place {
            Some((of, whose, count)) if of == key => {
                *place = None;
                Some((whose, count))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_that_fails_takes_with_it_what_left_in_it() {
        let mut sends = Sends::new();
        sends.add(7, None, 'a');
        sends.add(8, Some(7), 'a');
        sends.add(9, Some(7), 'a');
        sends.add(10, None, 'b');
        assert_eq!(sends.take(8), None);
        assert_eq!(sends.take(7), Some(('a', 3)));
        assert_eq!(sends.take(7), None);
        // Long ago: another has its place.
        sends.add(10 + LATEST as u32, None, 'c');
        assert_eq!(sends.take(10), None);
        assert_eq!(sends.take(10 + LATEST as u32), Some(('c', 1)));
    }
}
