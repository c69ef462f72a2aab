//! What a line does, as a person writes it: `delay=20ms,rate=10Mbit,buffer=120ms,loss=0.1%`.

use bufferbane_config::{parse_duration, parse_size};

use super::plan::{Bucket, Bursts, Direction, Grants, MOST_NAMED, Outages};

impl Direction {
    /// Reads a list of `key=value`, separated by commas; `bufferbane-lab link --help` has them all.
    /// Without any, packets pass at once.
    ///
    /// # Errors
    /// Which part is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut direction = Self::delay(0);
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            direction
                .set(key, value)
                .map_err(|why| format!("\"{part}\": {why}"))?;
        }
        Ok(direction)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let parts: Vec<&str> = value.split('/').collect();
        let part = |i: usize| {
            parts
                .get(i)
                .copied()
                .ok_or_else(|| format!("{} values are too few, separated by /", parts.len()))
        };
        let most = |n: usize| {
            if parts.len() > n {
                return Err(format!("{} values are too many", parts.len()));
            }
            Ok(())
        };
        match key {
            "delay" => self.delay_ns = parse_duration(value)?,
            "jitter" => self.jitter_ns = parse_duration(value)?,
            "rate" => self.rate_bps = rate(value)?,
            "buffer" => match parse_size(value) {
                Ok(bytes) => self.buffer_bytes = bytes,
                // A buffer in time is not limited in bytes as well.
                Err(_) => (self.buffer_ns, self.buffer_bytes) = (parse_duration(value)?, u64::MAX),
            },
            "bucket" => {
                most(2)?;
                self.bucket = Some(Bucket {
                    sustained_bps: rate(part(0)?)?,
                    burst_bytes: parse_size(part(1)?)?,
                });
            }
            "grants" => {
                most(2)?;
                self.grants = Some(Grants {
                    every_ns: parse_duration(part(0)?)?,
                    lead_ns: parse_duration(part(1)?)?,
                });
            }
            "largest" => {
                self.largest_bytes = value
                    .parse()
                    .map_err(|_| "a size of packets is a whole number of bytes")?;
            }
            "loss" => self.loss_ppm = share(value)?,
            "bursts" => {
                most(3)?;
                self.bursts = Some(Bursts {
                    begin_ppm: share(part(0)?)?,
                    mean_packets: part(1)?
                        .parse()
                        .map_err(|_| "the mean length of a run is a whole number of packets")?,
                    loss_ppm: parts.get(2).map_or(Ok(1_000_000), |s| share(s))?,
                });
            }
            "outage" if value.is_empty() => self.outage = true,
            "outages" => {
                most(3)?;
                self.outages = Some(Outages {
                    first_ns: parse_duration(part(0)?)?,
                    every_ns: parse_duration(part(1)?)?,
                    length_ns: parse_duration(part(2)?)?,
                });
            }
            "reorder" => {
                most(2)?;
                self.reorder_ppm = share(part(0)?)?;
                self.reorder_ns = parse_duration(part(1)?)?;
            }
            "duplicate" => self.duplicate_ppm = share(value)?,
            "dscp" if value == "clear" => self.rewrite.tos_keep = 0x03,
            "dscp" => return Err("the only thing that can be done to it is dscp=clear".into()),
            "ttl" => {
                self.rewrite.ttl_less = value
                    .parse()
                    .map_err(|_| "a TTL is a whole number below 256")?;
            }
            "only" => {
                most(MOST_NAMED)?;
                for (place, host) in self.only.iter_mut().zip(&parts) {
                    let wrong = |_| format!("\"{host}\" is no address of a far host");
                    *place = Some(host.parse().map_err(wrong)?);
                }
            }
            _ => {
                return Err("there is no such key; bufferbane-lab link --help lists them".into());
            }
        }
        Ok(())
    }
}

/// Bits per second: a number and one of bit, kbit, Mbit, Gbit.
fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a rate; write for example 10Mbit or 1.5Mbit");
    let begin = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(begin);
    let scale = match unit {
        "bit" => 1.0,
        "kbit" => 1e3,
        "Mbit" => 1e6,
        "Gbit" => 1e9,
        _ => return Err(wrong()),
    };
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n * scale <= 1e12 => Ok((n * scale) as u64),
        _ => Err(wrong()),
    }
}

/// Per million, from a percentage.
fn share(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is not a share; write for example 0.5% or 100%");
    let percent: f64 = text
        .strip_suffix('%')
        .and_then(|n| n.parse().ok())
        .ok_or_else(wrong)?;
    if (0.0..=100.0).contains(&percent) {
        Ok((percent * 10_000.0).round() as u32)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Rewrite;
    use super::*;

    #[test]
    fn every_key_does_what_it_says() {
        let text = "delay=20ms, jitter=3ms,rate=1.5Mbit,buffer=64KiB,buffer=120ms,bucket=2Mbit/128KiB,\
                    grants=2ms/1ms,largest=1400,loss=0.5%,bursts=0.1%/200/60%,outage,outages=10s/30s/2s,\
                    reorder=1%/5ms,duplicate=0.1%,dscp=clear,ttl=3,only=192.0.2.1/2001:db8::1";
        let expected = Direction {
            delay_ns: 20_000_000,
            jitter_ns: 3_000_000,
            rate_bps: 1_500_000,
            bucket: Some(Bucket {
                sustained_bps: 2_000_000,
                burst_bytes: 128 << 10,
            }),
            grants: Some(Grants {
                every_ns: 2_000_000,
                lead_ns: 1_000_000,
            }),
            buffer_bytes: u64::MAX,
            buffer_ns: 120_000_000,
            largest_bytes: 1400,
            loss_ppm: 5_000,
            bursts: Some(Bursts {
                begin_ppm: 1_000,
                mean_packets: 200,
                loss_ppm: 600_000,
            }),
            outage: true,
            outages: Some(Outages {
                first_ns: 10_000_000_000,
                every_ns: 30_000_000_000,
                length_ns: 2_000_000_000,
            }),
            reorder_ppm: 10_000,
            reorder_ns: 5_000_000,
            duplicate_ppm: 1_000,
            rewrite: Rewrite {
                ttl_less: 3,
                ..Rewrite::BLEACH_DSCP
            },
            only: [Some("192.0.2.1"), Some("2001:db8::1"), None, None]
                .map(|host| host.map(|h| h.parse().expect("an address"))),
        };
        assert_eq!(Direction::parse(text), Ok(expected));
        assert_eq!(Direction::parse(""), Ok(Direction::delay(0)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("dealy=20ms", "no such key"),
            ("delay=20", "duration"),
            ("rate=10", "rate"),
            ("rate=10MB", "rate"),
            ("loss=101%", "share"),
            ("loss=1", "share"),
            ("bursts=1%", "too few"),
            ("grants=1ms/1ms/1ms", "too many"),
            ("ttl=300", "TTL"),
            ("only=vienna", "vienna"),
            ("only=::1/::2/::3/::4/::5", "too many"),
            ("delay=1ms,outage=yes", "outage=yes"),
        ] {
            let said = Direction::parse(text).expect_err(text);
            assert!(said.contains(named), "{text}: {said}");
        }
    }
}
