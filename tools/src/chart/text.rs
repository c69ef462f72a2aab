//! The embedded font: how wide texts are, and their glyphs as coverage. No font of the system is
//! ever looked for.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};

const BYTES: &[u8] = include_bytes!("../../assets/bufferbane-sans.ttf");

/// Height of a digit over the size of the font.
const DIGIT_HEIGHT: f32 = 0.69;

fn font() -> &'static FontRef<'static> {
    static FONT: OnceLock<FontRef<'static>> = OnceLock::new();
    FONT.get_or_init(|| {
        FontRef::try_from_slice(BYTES).unwrap_or_else(|e| {
            // A test opens this very file, which is part of the program.
            unreachable!("the embedded font: {e}")
        })
    })
}

/// The scale at which an em is `size` pixels.
fn scale(size: f64) -> PxScale {
    let font = font();
    let em = font.units_per_em().unwrap_or(2048.0);
    PxScale::from(size as f32 * font.height_unscaled() / em)
}

/// Each glyph of `text` with how far it is from the begin, and the whole width.
fn layout(text: &str, size: f64) -> (Vec<(GlyphId, f32)>, f32) {
    let font = font().as_scaled(scale(size));
    let (mut glyphs, mut x, mut last) = (Vec::new(), 0.0, None);
    for c in text.chars() {
        let id = font.glyph_id(c);
        if let Some(last) = last {
            x += font.kern(last, id);
        }
        glyphs.push((id, x));
        x += font.h_advance(id);
        last = Some(id);
    }
    (glyphs, x)
}

/// How wide `text` is at `size`.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    f64::from(layout(text, size).1)
}

/// `text`, or as much of it as fits into `room` with an ellipsis; nothing where not even that fits.
pub(crate) fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut short: Vec<char> = text.chars().collect();
    while short.pop().is_some() {
        let mut cut: String = short.iter().collect();
        cut.truncate(cut.trim_end().len());
        cut.push('…');
        if width(&cut, size) <= room {
            return if cut == "…" { String::new() } else { cut };
        }
    }
    String::new()
}

/// Calls `put` with each pixel that `text` covers and how much of it, 0 to 1, where the text begins
/// at `x` and its digits are centred on `y`.
pub(crate) fn draw(text: &str, size: f64, x: f64, y: f64, mut put: impl FnMut(i32, i32, f32)) {
    let baseline = y as f32 + size as f32 * DIGIT_HEIGHT / 2.0;
    let scale = scale(size);
    for (id, offset) in layout(text, size).0 {
        let glyph = id.with_scale_and_position(scale, point(x as f32 + offset, baseline));
        if let Some(outline) = font().outline_glyph(glyph) {
            let min = outline.px_bounds().min;
            outline.draw(|dx, dy, c| put(min.x as i32 + dx as i32, min.y as i32 + dy as i32, c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_opens_and_digits_are_equally_wide() {
        let one = width("1", 20.0);
        assert!(one > 5.0);
        for c in "023456789".chars() {
            assert!((width(&c.to_string(), 20.0) - one).abs() < 1e-3);
        }
        for c in "äßøŁµ–→≤…%".chars() {
            assert_ne!(font().glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn long_texts_are_cut_to_their_room() {
        let cut = fit("a very long name of an interface", 12.0, 80.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0) <= 80.0);
        assert_eq!(fit("eth0", 12.0, 80.0), "eth0");
        assert_eq!(fit("eth0", 12.0, 3.0), "");
    }
}
