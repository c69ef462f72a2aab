//! From a [`Scene`] to PNG.

use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::scene::{Label, Scene, Shape};
use super::text;
use super::theme::Rgb;
use crate::fail::Fail;

/// Bitmaps are drawn this much larger and averaged, since plotters does not smooth edges.
const OVERSAMPLING: u32 = 2;
/// Rows of the image that are drawn at a time: a page of many panels is higher than a screen, and
/// four times as much of it need not be in memory at once.
const STRIP: u32 = 256;

fn color(c: Rgb) -> RGBColor {
    RGBColor(c.0, c.1, c.2)
}

/// Whether anything of `points`, drawn with a pen of `width`, lies in rows `0..rows`.
fn is_in(points: &[(i32, i32)], width: u32, rows: u32) -> bool {
    let pen = width.cast_signed() + 1;
    points.iter().any(|p| p.1 >= -pen) && points.iter().any(|p| p.1 <= rows.cast_signed() + pen)
}

/// Draws everything but texts, `scale` times as large, from row `top` on.
fn shapes(
    backend: &mut BitMapBackend<'_>,
    scene: &Scene,
    scale: f64,
    top: u32,
) -> Result<(), Fail> {
    let (_, rows) = backend.get_size();
    let at = |v: f64| (v * scale).round() as i32;
    let row = |v: f64| at(v) - top.cast_signed();
    let place = |(x, y): &(f64, f64)| (at(*x), row(*y));
    let fail = |e| Fail::of("cannot draw", e);
    // A rectangle of a step at least, however thin it is.
    let rectangle = |[x0, y0, x1, y1]: [f64; 4]| {
        let (x0, y0) = (at(x0), row(y0));
        ((x0, y0), (at(x1).max(x0 + 1), row(y1).max(y0 + 1)))
    };
    let page = rectangle([0.0, 0.0, scene.width, scene.height]);
    let paper = color(scene.background).filled();
    backend
        .draw_rect(page.0, page.1, &paper, true)
        .map_err(fail)?;
    for shape in &scene.shapes {
        match shape {
            Shape::Box(bounds, c) => {
                let (from, to) = rectangle(*bounds);
                if is_in(&[from, to], 0, rows) {
                    backend
                        .draw_rect(from, to, &color(*c).filled(), true)
                        .map_err(fail)?;
                }
            }
            Shape::Area(points, c) => {
                let points: Vec<(i32, i32)> = points.iter().map(place).collect();
                if is_in(&points, 0, rows) {
                    backend.fill_polygon(points, &color(*c)).map_err(fail)?;
                }
            }
            Shape::Line(points, width, c) => {
                let style = ShapeStyle {
                    color: color(*c).to_rgba(),
                    filled: false,
                    stroke_width: (width * scale).round().max(1.0) as u32,
                };
                let points: Vec<(i32, i32)> = points.iter().map(place).collect();
                // The joints of long thick paths would go astray.
                let seen = |part: &&[(i32, i32)]| is_in(part, style.stroke_width, rows);
                for part in points.windows(2).filter(seen) {
                    backend
                        .draw_path(part.iter().copied(), &style)
                        .map_err(fail)?;
                }
            }
            Shape::Text(_) => {}
        }
    }
    Ok(())
}

/// The scene as PNG of this size, which must have its proportions.
pub(crate) fn png(scene: &Scene, width: u32, height: u32) -> Result<Vec<u8>, Fail> {
    let scale = f64::from(width) / scene.width;
    let mut pixels = drawn(scene, width, height, STRIP)?;
    for shape in &scene.shapes {
        if let Shape::Text(label) = shape {
            bitmap_text(&mut pixels, (width, height), label, scale);
        }
    }
    encode(&pixels, width, height).map_err(|e| Fail::of("cannot encode", e))
}

/// All pixels, texts left out, drawn `strip` rows at a time.
fn drawn(scene: &Scene, width: u32, height: u32, strip: u32) -> Result<Vec<u8>, Fail> {
    let scale = f64::from(width) / scene.width * f64::from(OVERSAMPLING);
    let wide = width * OVERSAMPLING;
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    let mut large = vec![0; (wide * strip.min(height) * OVERSAMPLING * 3) as usize];
    for top in (0..height).step_by(strip as usize) {
        let rows = strip.min(height - top);
        let high = rows * OVERSAMPLING;
        let part = &mut large[..(wide * high * 3) as usize];
        let mut backend = BitMapBackend::with_buffer(part, (wide, high));
        shapes(&mut backend, scene, scale, top * OVERSAMPLING)?;
        backend.present().map_err(|e| Fail::of("cannot draw", e))?;
        drop(backend);
        shrink(part, width as usize, &mut pixels);
    }
    Ok(pixels)
}

/// Averages squares of pixels.
fn shrink(large: &[u8], width: usize, small: &mut Vec<u8>) {
    const N: usize = OVERSAMPLING as usize;
    for rows in large.chunks_exact(width * N * 3 * N) {
        for x in 0..width {
            for c in 0..3 {
                let sum: usize = (0..N * N)
                    .map(|i| {
                        let (row, column) = (i / N, x * N + i % N);
                        usize::from(rows[(row * width * N + column) * 3 + c])
                    })
                    .sum();
                small.push(((sum + N * N / 2) / (N * N)) as u8);
            }
        }
    }
}

/// Writes a text with the coverage that the font gives, which needs no averaging.
fn bitmap_text(pixels: &mut [u8], (width, height): (u32, u32), label: &Label, scale: f64) {
    let [left, ..] = label.bounds();
    let ink = [label.color.0, label.color.1, label.color.2];
    text::draw(
        &label.text,
        label.size * scale,
        left * scale,
        label.y * scale,
        |x, y, coverage| {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
                return;
            };
            if x >= width || y >= height {
                return;
            }
            let at = (y * width + x) as usize * 3;
            for (pixel, ink) in pixels[at..at + 3].iter_mut().zip(ink) {
                let mixed = f32::from(*pixel) * (1.0 - coverage) + f32::from(ink) * coverage;
                *pixel = mixed.round() as u8;
            }
        },
    );
}

fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::Up);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a strip ends nothing is seen.
    #[test]
    fn strips_make_the_picture_that_is_drawn_at_once() {
        let mut scene = Scene::new(300.0, (255, 255, 255));
        scene.height = 200.0;
        let zigzag = |step: f64| -> Vec<(f64, f64)> {
            let y = |i: u32| if i.is_multiple_of(2) { 11.3 } else { 187.9 };
            (0..40).map(|i| (f64::from(i) * step, y(i))).collect()
        };
        scene.area(zigzag(7.3), (200, 120, 40));
        scene.fill([20.0, 3.0, 50.4, 190.0], (10, 90, 160));
        scene.fill([60.0, 99.9, 280.0, 100.1], (10, 90, 160));
        for width in [1.0, 1.5, 3.0] {
            scene.line(zigzag(5.0 + width), width, (0, 0, 0));
        }
        let whole = drawn(&scene, 500, 333, 333).unwrap();
        assert_eq!(whole.len(), 500 * 333 * 3);
        for strip in [17, 100, STRIP] {
            assert!(drawn(&scene, 500, 333, strip).unwrap() == whole, "{strip}");
        }
    }
}
