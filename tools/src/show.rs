//! Figures in words: the same in every format that people read.

/// `text` on one line, without characters that would steer a terminal or break a file.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            let steers = c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
            if steers { '\u{fffd}' } else { c }
        })
        .collect()
}

/// `text` cut to at most `width` characters, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// An interface's name cut to at most `width` characters: of one that says which store it is from
/// (`router: eth0`) the store gives way first.
pub(crate) fn cut_interface(name: &str, width: usize) -> String {
    let Some((store, interface)) = name.split_once(": ") else {
        return cut(name, width);
    };
    let room = width.saturating_sub(interface.chars().count() + 2);
    if room < 2 {
        return cut(interface, width);
    }
    format!("{}: {interface}", cut(store, room))
}

/// A whole number with narrow gaps between thousands: `72 000`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{a0}');
        }
        out.push(c);
    }
    out
}

/// `one` or `many` after its number.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{}\u{a0}{}", count(n), if n == 1 { one } else { many })
}

/// A share as a percentage: `0 %`, `0.06 %`, `12.3 %`; never 0 for what is not, never 100 for what
/// is less.
pub(crate) fn percent(part: u64, of: u64) -> String {
    if of == 0 {
        return "–".into();
    }
    let share = part as f64 * 100.0 / of as f64;
    let text = match share {
        _ if part == 0 => "0".to_owned(),
        _ if part == of => "100".to_owned(),
        s if s < 0.001 => "<0.001".to_owned(),
        s if s < 0.1 => format!("{s:.3}"),
        s if s < 10.0 => format!("{s:.2}"),
        s => format!("{:.1}", s.min(99.9)),
    };
    format!("{text}\u{a0}%")
}

/// Milliseconds without their unit, with three or four digits that count: `0.123`, `23.41`, `812`.
pub(crate) fn millis(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        m if m < 9.9995 => format!("{m:.3}"),
        m if m < 99.995 => format!("{m:.2}"),
        m if m < 999.95 => format!("{m:.1}"),
        m => format!("{m:.0}"),
    }
}

/// Milliseconds, or a dash where nothing is known.
pub(crate) fn millis_or_dash(ns: Option<u64>) -> String {
    ns.map_or_else(|| "–".into(), millis)
}

/// A delay with its unit: `417 ns`, `85.2 µs`, `23.4 ms`, `1.25 s`.
pub(crate) fn delay(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}\u{a0}ns"),
        1_000..999_950 => (ns as f64 / 1e3, "µs"),
        999_950..999_950_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}\u{a0}{unit}")
}

/// A stretch of time in its two largest units: `450 ms`, `12.5 s`, `3 min 20 s`, `5 h 12 min`,
/// `29 d 3 h`.
pub(crate) fn stretch(ns: u64) -> String {
    const S: u64 = 1_000_000_000;
    if ns < 100 * S {
        let seconds = ns as f64 / 1e9;
        return match ns {
            0..999_500_000 => delay(ns),
            n if n.is_multiple_of(S) => format!("{}\u{a0}s", n / S),
            _ => format!("{seconds:.1}\u{a0}s"),
        };
    }
    let seconds = (ns + S / 2) / S;
    let pair = |n: u64, unit: &str, rest: u64, small: &str| {
        if rest == 0 {
            format!("{n}\u{a0}{unit}")
        } else {
            format!("{n}\u{a0}{unit} {rest}\u{a0}{small}")
        }
    };
    match seconds {
        0..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// Bytes: `812 B`, `1.4 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.5 {
            return if unit == "B" || value >= 99.95 {
                format!("{value:.0}\u{a0}{unit}")
            } else {
                format!("{value:.1}\u{a0}{unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}\u{a0}TiB")
}

/// Rows under headings, each column as wide as it must be; `left` columns from the left are set to
/// the left, the others to the right.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, (cell, width)) in cells.zip(&widths).enumerate() {
            if i > 0 {
                text.push_str("  ");
            }
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            if i < left {
                text.push_str(cell);
                text.push_str(&gap);
            } else {
                text.push_str(&gap);
                text.push_str(cell);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut headings.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let plain = |s: String| s.replace('\u{a0}', " ");
        assert_eq!(plain(count(72_000)), "72 000");
        assert_eq!(plain(count(999)), "999");
        assert_eq!(plain(percent(0, 10)), "0 %");
        assert_eq!(plain(percent(1, 10_000_000)), "<0.001 %");
        assert_eq!(plain(percent(99_999, 100_000)), "99.9 %");
        assert_eq!(plain(percent(5, 5)), "100 %");
        assert_eq!(percent(0, 0), "–");
        for (ns, text) in [
            (417, "417 ns"),
            (85_200, "85.2 µs"),
            (999_960, "1.00 ms"),
            (23_410_000, "23.4 ms"),
            (1_250_000_000, "1.25 s"),
        ] {
            assert_eq!(plain(delay(ns)), text);
        }
        for (s, text) in [
            (0.45, "450 ms"),
            (12.5, "12.5 s"),
            (60.0, "60 s"),
            (200.0, "3 min 20 s"),
            (18_720.0, "5 h 12 min"),
            (2_516_400.0, "29 d 3 h"),
        ] {
            assert_eq!(plain(stretch((s * 1e9) as u64)), text);
        }
        assert_eq!(millis(23_414_000), "23.41");
        assert_eq!(millis(812_000_000), "812.0");
        assert_eq!(plain(bytes(1_468_006)), "1.4 MiB");
    }

    #[test]
    fn interfaces_are_told_apart_however_long_their_store_is_called() {
        assert_eq!(cut_interface("eth0", 12), "eth0");
        assert_eq!(cut_interface("laptop: eth0", 12), "laptop: eth0");
        assert_eq!(cut_interface("the-router: wwan0", 12), "the-…: wwan0");
        assert_eq!(
            cut_interface("router: a-very-long-name", 12),
            "a-very-long…"
        );
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let clean = clean("a\u{1b}[2Jb\nc\u{202e}d");
        assert_eq!(clean, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(cut("interface", 5), "inte…");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bb".into(), "22".into()]];
        assert_eq!(table(&["x", "n"], &rows, 1), "x    n\na    1\nbb  22\n");
    }
}
