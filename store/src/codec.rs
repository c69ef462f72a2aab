//! What the rows of the tables are made of.

use bufferbane_core::record;
use bufferbane_core::sample::Sample;
use bufferbane_core::stats::summary::{MAX_ENCODED, Summary};

use crate::error::StoreError;

/// One block of all `samples`, however large.
pub(crate) fn encode_block(samples: &[Sample]) -> Vec<u8> {
    let mut out = vec![0; 64 << 10];
    loop {
        match record::encode(samples, &mut out) {
            Some(len) => {
                out.truncate(len);
                return out;
            }
            None => out.resize(out.len() * 2, 0),
        }
    }
}

pub(crate) fn decode_block(bytes: &[u8]) -> Result<Vec<Sample>, StoreError> {
    let mut samples = record::decode(bytes).map_err(|e| StoreError::Damaged(e.to_string()))?;
    let all: Vec<Sample> = samples.by_ref().collect();
    if samples.is_damaged() {
        return Err(StoreError::Damaged("a block of samples ends early".into()));
    }
    Ok(all)
}

pub(crate) fn decode_summary(bytes: &[u8]) -> Result<Summary, StoreError> {
    Summary::decode(bytes).ok_or_else(|| StoreError::Damaged("a damaged rollup row".into()))
}

pub(crate) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = vec![0; MAX_ENCODED];
    let len = summary.encode(&mut out).unwrap_or(0);
    out.truncate(len);
    out
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|e| StoreError::Damaged(format!("a damaged row: {e}")))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Damaged(e.to_string()))
}
