//! From a [`Scene`] to PNG.

use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::scene::{Label, Scene, Shape};
use super::text;
use super::theme::Rgb;
use crate::fail::Fail;

/// Bitmaps are drawn this much larger and averaged, since plotters does not smooth edges.
const OVERSAMPLING: u32 = 2;
fn color(c: Rgb) -> RGBColor {
    RGBColor(c.0, c.1, c.2)
}

/// Draws everything but texts, `scale` times as large.
fn shapes(backend: &mut BitMapBackend<'_>, scene: &Scene, scale: f64) -> Result<(), Fail> {
    let at = |v: f64| (v * scale).round() as i32;
    let place = |(x, y): &(f64, f64)| (at(*x), at(*y));
    let fail = |e| Fail::of("cannot draw", e);
    // A rectangle of a step at least, however thin it is.
    let rectangle = |[x0, y0, x1, y1]: [f64; 4]| {
        let (x0, y0) = (at(x0), at(y0));
        ((x0, y0), (at(x1).max(x0 + 1), at(y1).max(y0 + 1)))
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
                backend
                    .draw_rect(from, to, &color(*c).filled(), true)
                    .map_err(fail)?;
            }
            Shape::Area(points, c) => backend
                .fill_polygon(points.iter().map(place), &color(*c))
                .map_err(fail)?,
            Shape::Line(points, width, c) => {
                let style = ShapeStyle {
                    color: color(*c).to_rgba(),
                    filled: false,
                    stroke_width: (width * scale).round().max(1.0) as u32,
                };
                let points: Vec<(i32, i32)> = points.iter().map(place).collect();
                // The joints of long thick paths would go astray.
                for part in points.windows(2) {
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
    let (large_width, large_height) = (width * OVERSAMPLING, height * OVERSAMPLING);
    let mut large = vec![0; (large_width * large_height * 3) as usize];
    {
        let mut backend = BitMapBackend::with_buffer(&mut large, (large_width, large_height));
        shapes(&mut backend, scene, scale * f64::from(OVERSAMPLING))?;
        backend.present().map_err(|e| Fail::of("cannot draw", e))?;
    }
    let mut pixels = shrink(&large, width as usize, height as usize);
    drop(large);
    for shape in &scene.shapes {
        if let Shape::Text(label) = shape {
            bitmap_text(&mut pixels, (width, height), label, scale);
        }
    }
    encode(&pixels, width, height).map_err(|e| Fail::of("cannot encode", e))
}

/// Averages squares of pixels.
fn shrink(large: &[u8], width: usize, height: usize) -> Vec<u8> {
    const N: usize = OVERSAMPLING as usize;
    let mut small = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let sum: usize = (0..N * N)
                    .map(|i| {
                        let (row, column) = (y * N + i / N, x * N + i % N);
                        usize::from(large[(row * width * N + column) * 3 + c])
                    })
                    .sum();
                small.push(((sum + N * N / 2) / (N * N)) as u8);
            }
        }
    }
    small
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
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(out)
}
