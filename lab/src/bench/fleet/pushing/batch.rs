//! A batch of one router, told as if by others and at other times.

use super::Fail;

/// The instance that the daemon gives itself; every router's name is as long.
pub(super) const PLACEHOLDER: &str = "router-00000000";

/// Bytes of the time of a sample from 2004 to 2108, ms since 1970, as a varint.
const TIME_BYTES: usize = 6;
/// The field of a sample that is its time.
const TIME_FIELD: u8 = 0x10;
/// A message of remote-write 1.0 that is not compressed, and where in it is what differs.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    message: Vec<u8>,
    names: Vec<usize>,
    times: Vec<usize>,
}

impl Batch {
    /// The batch in the body of a request.
    pub(super) fn of(body: &[u8]) -> Result<Self, Fail> {
        let message = snap::raw::Decoder::new()
            .decompress_vec(body)
            .map_err(|e| Fail::of("a batch of the daemon", e))?;
        // All samples of a batch have one time, which is the last that is said.
        let Some((_, time)) = message.split_last_chunk::<TIME_BYTES>() else {
            return Err(Fail::Failed("a batch of the daemon is empty".into()));
        };
        let mut field = vec![TIME_FIELD];
        field.extend_from_slice(time);
        let times: Vec<usize> = places(&message, &field).map(|at| at + 1).collect();
        let names: Vec<usize> = places(&message, PLACEHOLDER.as_bytes()).collect();
        // A series has one sample and says once whose it is.
        if names.len() != times.len() {
            return Err(Fail::Failed(format!(
                "a batch of the daemon has {} samples and {} names",
                times.len(),
                names.len()
            )));
        }
        Ok(Self {
            message,
            names,
            times,
        })
    }

    pub(super) const fn samples(&self) -> usize {
        self.times.len()
    }

    /// The body of a request with this batch, by router `number` at `at_ms` since 1970.
    pub(super) fn told(&self, number: usize, at_ms: u64) -> Result<Vec<u8>, Fail> {
        let mut message = self.message.clone();
        let name = format!("router-{number:08}");
        for at in &self.names {
            message[*at..*at + PLACEHOLDER.len()].copy_from_slice(name.as_bytes());
        }
        let mut time = [0; TIME_BYTES];
        for (i, byte) in time.iter_mut().enumerate() {
            let more = if i + 1 < TIME_BYTES { 0x80 } else { 0 };
            *byte = (at_ms >> (7 * i)) as u8 & 0x7F | more;
        }
        for at in &self.times {
            message[*at..*at + TIME_BYTES].copy_from_slice(&time);
        }
        snap::raw::Encoder::new()
            .compress_vec(&message)
            .map_err(|e| Fail::of("a batch", e))
    }
}

/// Where `what` is in `bytes`.
fn places<'a>(bytes: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let all = bytes.windows(what.len()).enumerate();
    all.filter(move |(_, w)| *w == what).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MS: u64 = 1_790_000_000_000;

    /// A series of one label and a sample, as the daemon writes it.
    fn series(name: &str, value: f64, at_ms: u64) -> Vec<u8> {
        let mut label = vec![0x0A, 8];
        label.extend_from_slice(b"instance");
        label.extend_from_slice(&[0x12, name.len() as u8]);
        label.extend_from_slice(name.as_bytes());
        let mut sample = Vec::new();
        if value != 0.0 {
            sample.push(0x09);
            sample.extend_from_slice(&value.to_le_bytes());
        }
        sample.push(TIME_FIELD);
        sample
            .extend((0..6).map(|i| (at_ms >> (7 * i)) as u8 & 0x7F | if i < 5 { 0x80 } else { 0 }));
        let mut s = vec![0x0A, label.len() as u8];
        s.extend_from_slice(&label);
        s.extend_from_slice(&[0x12, sample.len() as u8]);
        s.extend_from_slice(&sample);
        s
    }

    fn message(name: &str, values: [f64; 3], at_ms: u64) -> Vec<u8> {
        values.map(|v| series(name, v, at_ms)).concat()
    }

    fn body(values: [f64; 3], at_ms: u64) -> Vec<u8> {
        let message = message(PLACEHOLDER, values, at_ms);
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    }

    #[test]
    fn a_batch_is_told_by_another_router_at_another_time() {
        let values = [1.0, 0.0, 7.0];
        let batch = Batch::of(&body(values, AT_MS)).unwrap();
        assert_eq!(batch.samples(), 3);
        let told = batch.told(421, AT_MS + 15_000).unwrap();
        let told = snap::raw::Decoder::new().decompress_vec(&told).unwrap();
        assert_eq!(told, message("router-00000421", values, AT_MS + 15_000));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let whole = body([1.0, 2.0, 3.0], AT_MS);
        assert!(Batch::of(&whole[..4]).is_err());
        let nothing = snap::raw::Encoder::new().compress_vec(&[]).unwrap();
        assert!(Batch::of(&nothing).is_err());
        // Two samples of three are of that time.
        let mut mixed = message(PLACEHOLDER, [1.0, 2.0, 3.0], AT_MS);
        mixed.extend(series(PLACEHOLDER, 1.0, AT_MS + 1));
        let mixed = snap::raw::Encoder::new().compress_vec(&mixed).unwrap();
        assert!(Batch::of(&mixed).is_err());
    }
}
