//! The part of the page that one can point at and zoom into: figures of every series, and the script
//! that draws them. Without scripts it is not there; nothing is fetched.

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::chart::{Column, Material, Theme, hex};
use crate::show::clean;

const SCRIPT: &str = include_str!("explore.js");

/// The source that the page's policy allows: this script and no other.
pub(crate) fn policy() -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(SCRIPT.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let bits = part
            .iter()
            .enumerate()
            .fold(0u32, |all, (i, b)| all | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= part.len() {
                char::from(SIGNS[(bits >> (18 - 6 * i) & 63) as usize])
            } else {
                '='
            });
        }
    }
    out
}

/// The section with its data and its script.
pub(crate) fn section(material: &Material, zone: &TimeZone) -> String {
    let (from, to) = (material.range.from_ns, material.range.to_ns);
    let data = json!({
        "from": from / 1_000_000,
        "span": to.abs_diff(from) / 1_000_000,
        "light": inks(&Theme::LIGHT),
        "dark": inks(&Theme::DARK),
        "zone": zone.iana_name().filter(|n| *n != "Etc/Unknown").unwrap_or("UTC"),
        "series": material.tracks.iter().map(|t| json!({
            "name": clean(&format!("{} → {} ({}{})", t.info.interface, t.info.target,
                t.info.kind.as_str(), t.info.family)),
            "columns": t.fine.iter().filter(|c| c.is_measured())
                .map(|c| column(c, from)).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    // Within a script nothing but its end tag and comments mean anything.
    let data = data.to_string().replace('<', "\\u003c");
    format!(
        "<section id=\"explore\" hidden>\n<p><label>Look closer at <select></select></label> \
         <button type=\"button\">whole range</button></p>\n<canvas></canvas>\n<output>Point at a time \
         to read it; drag over a stretch to zoom in.</output>\n</section>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>{SCRIPT}</script>\n"
    )
}

/// The colours of what the script draws.
fn inks(theme: &Theme) -> Value {
    json!({
        "paper": hex(theme.background),
        "grid": hex(theme.grid),
        "text": hex(theme.muted),
        "axis": hex(theme.axis),
        "hover": hex(theme.text),
        "silence": hex(theme.silent),
        "max": hex(theme.band),
        "p99": hex(theme.band_p99),
        "p95": hex(theme.band_p95),
        "median": hex(theme.main),
        "lost": hex(theme.up),
    })
}

/// Begin and end in ms, five levels in µs, probes sent and lost.
fn column(c: &Column, from_ns: i64) -> Value {
    let ms = |ns: i64| (ns - from_ns) / 1_000_000;
    let lost: u64 = c.lost.iter().sum();
    match c.rtt {
        Some(l) => {
            let [min, p50, p95, p99, max] = [l.min, l.p50, l.p95, l.p99, l.max].map(|n| n / 1000);
            json!([
                ms(c.from_ns),
                ms(c.to_ns),
                min,
                p50,
                p95,
                p99,
                max,
                c.sent,
                lost
            ])
        }
        None => json!([
            ms(c.from_ns),
            ms(c.to_ns),
            null,
            null,
            null,
            null,
            null,
            c.sent,
            lost
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert!(!SCRIPT.contains("</"), "nothing may end the script early");
    }

    #[test]
    fn the_script_has_the_colours_that_it_draws_with() {
        let (light, dark) = (inks(&Theme::LIGHT), inks(&Theme::DARK));
        let used = SCRIPT.split("ink.").skip(1).map(|s| {
            let end = s.find(|c: char| !c.is_alphanumeric()).unwrap();
            &s[..end]
        });
        let used: std::collections::BTreeSet<&str> = used.collect();
        let of = |inks: &Value| {
            inks.as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&light), used.into_iter().collect::<Vec<_>>());
        assert_eq!(of(&light), of(&dark));
    }
}
