//! Variation of delay between packets that follow each other.

/// Inter-packet delay variation (RFC 3393): the delay of a packet minus that of the one before it,
/// ns, both answered.
#[must_use]
pub const fn ipdv_ns(before_ns: u64, this_ns: u64) -> i64 {
    crate::time::signed_difference_ns(this_ns, before_ns)
}

/// The smoothed jitter of RFC 3550, section 6.4.1, in ns: `J += (|D| - J) / 16`.
///
/// Kept with four more bits, as the RFC's appendix A.8 does, so that it does not stick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rfc3550 {
    scaled: u64,
}

impl Rfc3550 {
    /// One more pair of packets, with their [`ipdv_ns`].
    pub fn add(&mut self, ipdv_ns: i64) {
        let step = ipdv_ns.unsigned_abs();
        self.scaled = self.scaled.saturating_add(step) - ((self.scaled + 8) >> 4);
    }

    /// The jitter, ns.
    #[must_use]
    pub const fn ns(&self) -> u64 {
        self.scaled >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_formula_of_the_rfc() {
        let mut j = Rfc3550::default();
        let mut model = 0.0f64;
        for i in 0..1000i64 {
            let d = (i * 7919 % 4001 - 2000) * 1000;
            j.add(d);
            model += (d.unsigned_abs() as f64 - model) / 16.0;
        }
        assert!((j.ns() as f64 - model).abs() < 20.0, "{} {model}", j.ns());
    }

    #[test]
    fn a_steady_delay_has_none() {
        assert_eq!(ipdv_ns(5, 5), 0);
        assert_eq!(ipdv_ns(7, 5), -2);
        let mut j = Rfc3550::default();
        j.add(0);
        assert_eq!(j.ns(), 0);
    }
}
