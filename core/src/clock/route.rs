//! Tells a new route from a standing queue, by the round trip above its floor: clocks have no part in
//! that.
//!
//! Both raise the smallest round trip. A new route raises it at once, to a value that is then met
//! again and again, loses nothing, and often has another number of hops. A queue builds up, breathes
//! with the traffic that makes it, and one that is always full loses packets. The more of this
//! speaks for a queue, the longer a new route has to prove itself.

use crate::sample::Sample;

/// A look is as long as this many probes, and not shorter than the other.
const LOOK_PROBES: u32 = 20;
const LOOK_S: f64 = 5.0;
/// The smallest excess of a look that is not the floor's own unsteadiness, ns.
const RAISED_NS: f64 = 250_000.0;
/// Smallest values of looks on one route lie this close together, ns, beside their usual spread.
const STEADY_NS: f64 = 150_000.0;
/// How long a new route has to prove itself, s: with another number of hops, with a sudden and
/// steady rise, with a steady rise, and where packets get lost.
const PROOF_HOPS_S: f64 = 15.0;
const PROOF_SUDDEN_S: f64 = 300.0;
const PROOF_STEADY_S: f64 = 900.0;
const PROOF_LOSSY_S: f64 = 3_600.0;
/// A rise of which one probe shows at least this share against the one before it is sudden.
const SUDDEN: f64 = 0.6;
/// Share of lost probes above which a full queue is likely.
const LOSSY: f64 = 0.005;
/// So many looks, most of them at the floor, make it certain that it is the floor.
const ESTABLISHED: u32 = 60;

/// A new floor of the round trip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Accepted {
    /// Since when, s.
    pub(super) from: f64,
    /// How much higher, ns, and how much of that is upward.
    pub(super) by_ns: f64,
    pub(super) up_ns: f64,
}

/// A stretch through which the floor was not seen.
#[derive(Clone, Copy, Debug)]
struct Raised {
    from: f64,
    /// Smallest and largest of the smallest values of its looks, ns.
    low_ns: f64,
    high_ns: f64,
    /// Smallest delay above the floor per direction, ns.
    up_ns: f64,
    down_ns: f64,
    sudden: bool,
    hops: bool,
    sent: u32,
    lost: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RouteWatch {
    /// Begin of the present look, s.
    began: Option<f64>,
    smallest_ns: f64,
    up_ns: f64,
    down_ns: f64,
    sent: u32,
    answered: u32,
    lost: u32,
    /// What the smallest value of a look usually is, ns.
    usual_ns: f64,
    looks: u32,
    floor_looks: u32,
    lossy_looks: u32,
    /// When the floor was last left; when since then one answer was furthest above the one before it,
    /// and by how much.
    after_floor: Option<f64>,
    jump: (f64, f64),
    excess_ns: f64,
    hops: (Option<u8>, Option<u8>),
    hops_at_floor: (Option<u8>, Option<u8>),
    raised: Option<Raised>,
}

impl RouteWatch {
    pub(super) const fn new() -> Self {
        Self {
            began: None,
            smallest_ns: f64::MAX,
            up_ns: f64::MAX,
            down_ns: f64::MAX,
            sent: 0,
            answered: 0,
            lost: 0,
            usual_ns: 0.0,
            looks: 0,
            floor_looks: 0,
            lossy_looks: 0,
            after_floor: None,
            jump: (0.0, 0.0),
            excess_ns: 0.0,
            hops: (None, None),
            hops_at_floor: (None, None),
            raised: None,
        }
    }

    /// A probe of which no answer came.
    pub(super) const fn lost(&mut self) {
        self.sent += 1;
        self.lost += 1;
    }

    /// The floor of the round trip turned out to be lower by this much, ns.
    pub(super) fn fell(&mut self, by_ns: f64) {
        if let Some(r) = &mut self.raised {
            r.low_ns += by_ns;
            r.high_ns += by_ns;
        }
        if self.smallest_ns < f64::MAX {
            self.smallest_ns += by_ns;
        }
    }

    /// Whether the floor has been seen so often that something below it is a new route.
    pub(super) const fn is_established(&self) -> bool {
        self.looks >= ESTABLISHED
            && self.floor_looks * 10 >= self.looks * 8
            && self.lossy_looks * 10 <= self.looks
    }

    /// How often the floor has been seen.
    pub(super) const fn floor_looks(&self) -> u32 {
        self.floor_looks
    }

    /// How much above the floor even the luckiest probe of a look usually is, ns.
    pub(super) const fn usual_ns(&self) -> f64 {
        self.usual_ns
    }

    /// For how long the floor has not been seen, s.
    pub(super) fn raised_s(&self, now: f64) -> f64 {
        self.raised.map_or(0.0, |r| now - r.from)
    }

    /// What is further above the floor of the round trip than this is not its unsteadiness, ns.
    pub(super) const fn limit_ns(&self) -> f64 {
        RAISED_NS + 3.0 * self.usual_ns
    }

    /// The answer `sample`, at `t`, was `up_ns` and `down_ns` above the floors. Gives a new floor
    /// when it has proved itself.
    pub(super) fn add(
        &mut self,
        t: f64,
        sample: &Sample,
        up_ns: f64,
        down_ns: f64,
    ) -> Option<Accepted> {
        let excess_ns = up_ns + down_ns;
        self.hops = (sample.ttl_up, sample.ttl_down);
        if excess_ns <= self.limit_ns() {
            self.after_floor = None;
            self.hops_at_floor = self.hops;
        } else {
            let jump = (t, excess_ns - self.excess_ns);
            if self.after_floor.is_none() {
                self.after_floor = Some(t);
                self.jump = jump;
            } else if jump.1 > self.jump.1 && self.raised.is_none() {
                self.jump = jump;
            }
        }
        self.excess_ns = excess_ns;
        let began = *self.began.get_or_insert(t);
        let mut accepted = None;
        if t - began >= LOOK_S && self.answered >= LOOK_PROBES {
            accepted = self.finish_look(t);
            self.began = Some(t);
            (self.smallest_ns, self.up_ns, self.down_ns) = (f64::MAX, f64::MAX, f64::MAX);
            (self.sent, self.answered, self.lost) = (0, 0, 0);
        }
        self.smallest_ns = self.smallest_ns.min(excess_ns);
        self.up_ns = self.up_ns.min(up_ns);
        self.down_ns = self.down_ns.min(down_ns);
        self.sent += 1;
        self.answered += 1;
        accepted
    }

    fn finish_look(&mut self, t: f64) -> Option<Accepted> {
        self.looks += 1;
        self.lossy_looks += u32::from(is_lossy(self.sent, self.lost));
        if self.smallest_ns <= self.limit_ns() {
            self.floor_looks += 1;
            let gain = if self.floor_looks < 8 { 0.5 } else { 0.1 };
            self.usual_ns += gain * (self.smallest_ns - self.usual_ns);
            self.raised = None;
            return None;
        }
        let spread_ns = STEADY_NS + 2.0 * self.usual_ns;
        let present = Raised {
            from: self.began.unwrap_or(t),
            low_ns: self.smallest_ns,
            high_ns: self.smallest_ns,
            up_ns: self.up_ns,
            down_ns: self.down_ns,
            sudden: false,
            hops: false,
            sent: self.sent,
            lost: self.lost,
        };
        let mut raised = match self.raised {
            Some(mut r) => {
                r.low_ns = r.low_ns.min(self.smallest_ns);
                r.high_ns = r.high_ns.max(self.smallest_ns);
                r.up_ns = r.up_ns.min(self.up_ns);
                r.down_ns = r.down_ns.min(self.down_ns);
                r.sent = r.sent.saturating_add(self.sent);
                r.lost = r.lost.saturating_add(self.lost);
                r
            }
            None => {
                let sudden = self.jump.1 >= SUDDEN * self.smallest_ns;
                let slow = self.after_floor.unwrap_or(t);
                Raised {
                    from: if sudden { self.jump.0 } else { slow },
                    sudden,
                    ..present
                }
            }
        };
        let known = |a: Option<u8>, b: Option<u8>| a.is_some() && b.is_some() && a != b;
        raised.hops |=
            known(self.hops.0, self.hops_at_floor.0) || known(self.hops.1, self.hops_at_floor.1);
        // What breathes is a queue: a route can only begin here.
        if raised.high_ns - raised.low_ns > spread_ns {
            raised = Raised {
                hops: false,
                ..present
            };
        }
        let proof_s = if is_lossy(raised.sent, raised.lost) {
            PROOF_LOSSY_S
        } else if raised.hops {
            PROOF_HOPS_S
        } else if raised.sudden {
            PROOF_SUDDEN_S
        } else {
            PROOF_STEADY_S
        };
        self.raised = Some(raised);
        if t - raised.from < proof_s {
            return None;
        }
        self.raised = None;
        self.after_floor = None;
        self.hops_at_floor = self.hops;
        let whole_ns = (raised.up_ns + raised.down_ns).max(1.0);
        Some(Accepted {
            from: raised.from,
            by_ns: raised.low_ns,
            up_ns: raised.low_ns * raised.up_ns / whole_ns,
        })
    }
}

fn is_lossy(sent: u32, lost: u32) -> bool {
    f64::from(lost) > LOSSY * f64::from(sent) + 2.0
}
