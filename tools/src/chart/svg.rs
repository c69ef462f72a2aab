//! From a [`Scene`] to SVG, written so that a page with many of them stays small: a month of columns
//! is some thousand boxes, and those of one colour that follow each other are one path.

use std::fmt::Write as _;

use super::scene::{Anchor, Label, Scene, Shape};
use super::theme::{Rgb, hex};

/// Fonts as wide as the one that charts are laid out with; the last is what there is.
const FONTS: &str = "Liberation Sans,Arial,Helvetica,sans-serif";
/// Texts of so many characters are held to their width whatever the font: one that is wider than ours
/// would run into its neighbour. Shorter ones have room.
const HELD_CHARACTERS: usize = 4;
/// Steps in a pixel of coordinates: whole numbers are the shortest.
const STEPS: f64 = 4.0;

/// The scene as SVG: `scale` times as large where that is given, else as large as its place.
pub(crate) fn svg(scene: &Scene, scale: Option<f64>) -> String {
    let size = scale.map_or(String::new(), |s| {
        let (width, height) = (scene.width * s, scene.height * s);
        format!("width=\"{width:.0}\" height=\"{height:.0}\" ")
    });
    let (right, bottom) = (
        (scene.width * STEPS).ceil() as i64,
        (scene.height * STEPS).ceil() as i64,
    );
    let mut out = Out(format!(
        "<svg {size}viewBox=\"0 0 {right} {bottom}\" role=\"img\" aria-label=\"{}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"{FONTS}\">\n",
        crate::report::html::escape(&scene.description),
    ));
    out.boxes(&[[0, 0, right, bottom]], scene.background);
    let mut boxes: Vec<[i64; 4]> = Vec::new();
    let mut color = scene.background;
    for shape in &scene.shapes {
        match shape {
            Shape::Box(bounds, c) => {
                if *c != color {
                    out.boxes(&boxes, color);
                    boxes.clear();
                    color = *c;
                }
                boxes.push(steps(*bounds));
                continue;
            }
            // Texts stand above everything: see below.
            Shape::Text(_) => continue,
            Shape::Area(..) | Shape::Line(..) => {}
        }
        out.boxes(&boxes, color);
        boxes.clear();
        match shape {
            Shape::Area(points, c) => out.path(points, "fill", *c, None),
            Shape::Line(points, width, c) => out.path(points, "stroke", *c, Some(*width)),
            Shape::Box(..) | Shape::Text(_) => {}
        }
    }
    out.boxes(&boxes, color);
    for shape in &scene.shapes {
        if let Shape::Text(label) = shape {
            out.text(label);
        }
    }
    out.0.push_str("</svg>\n");
    out.0
}

fn step(v: f64) -> i64 {
    (v * STEPS).round() as i64
}

/// Left, top, right, bottom in steps: one at least, however thin it is.
fn steps([x0, y0, x1, y1]: [f64; 4]) -> [i64; 4] {
    let (x0, y0) = (step(x0), step(y0));
    [x0, y0, step(x1).max(x0 + 1), step(y1).max(y0 + 1)]
}

/// What is being written.
struct Out(String);

impl Out {
    /// Writing to a string cannot fail.
    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(what);
    }

    /// Filled boxes of one colour.
    fn boxes(&mut self, boxes: &[[i64; 4]], color: Rgb) {
        if boxes.is_empty() {
            return;
        }
        self.put(format_args!("<path fill=\"{}\" d=\"", hex(color)));
        // Each begins where the one before did: that is a shorter number.
        let (mut x, mut y) = (0, 0);
        for (i, [x0, y0, x1, y1]) in boxes.iter().copied().enumerate() {
            if i == 0 {
                self.put(format_args!("M{x0} {y0}"));
            } else {
                self.put(format_args!("m{}{}", x0 - x, signed(y0 - y)));
            }
            let wide = x1 - x0;
            self.put(format_args!("h{wide}v{}h{}z", y1 - y0, -wide));
            (x, y) = (x0, y0);
        }
        self.0.push_str("\"/>\n");
    }

    /// A filled polygon, or a line of `width`.
    fn path(&mut self, points: &[(f64, f64)], how: &str, color: Rgb, width: Option<f64>) {
        let Some((first, rest)) = points.split_first() else {
            return;
        };
        match width {
            None => self.put(format_args!("<path {how}=\"{}\" d=\"", hex(color))),
            Some(w) => self.put(format_args!(
                "<path fill=\"none\" {how}=\"{}\" stroke-width=\"{}\" d=\"",
                hex(color),
                step(w).max(1)
            )),
        }
        let (mut x, mut y) = (step(first.0), step(first.1));
        self.put(format_args!("M{x} {y}"));
        let mut before = ' ';
        for (to_x, to_y) in rest.iter().map(|(x, y)| (step(*x), step(*y))) {
            let (dx, dy) = (to_x - x, to_y - y);
            let kind = match (dx, dy) {
                (0, 0) => continue,
                (_, 0) => 'h',
                (0, _) => 'v',
                _ => 'l',
            };
            if kind != before {
                self.0.push(kind);
                before = kind;
            } else if (if kind == 'v' { dy } else { dx }) >= 0 {
                self.0.push(' ');
            }
            match kind {
                'h' => self.put(format_args!("{dx}")),
                'v' => self.put(format_args!("{dy}")),
                _ => self.put(format_args!("{dx}{}", signed(dy))),
            }
            (x, y) = (to_x, to_y);
        }
        self.0
            .push_str(if width.is_none() { "z\"/>\n" } else { "\"/>\n" });
    }

    fn text(&mut self, label: &Label) {
        let anchor = match label.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let held = if label.text.chars().count() >= HELD_CHARACTERS {
            let width = step(super::text::width(&label.text, label.size));
            format!(" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\"")
        } else {
            String::new()
        };
        self.put(format_args!(
            "<text x=\"{}\" y=\"{}\" dy=\".5ex\"{anchor}{held} font-size=\"{}\" fill=\"{}\">{}</text>\n",
            step(label.x),
            step(label.y),
            step(label.size),
            hex(label.color),
            crate::report::html::escape(&label.text)
        ));
    }
}

/// A number that follows another: its sign parts them, or a space does.
fn signed(n: i64) -> String {
    if n < 0 {
        n.to_string()
    } else {
        format!(" {n}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb = (255, 0, 0);
    const BLUE: Rgb = (0, 0, 255);

    #[test]
    fn boxes_of_one_colour_are_one_path_and_the_order_stays() {
        let mut scene = Scene::new(100.0, (255, 255, 255));
        scene.height = 50.0;
        scene.description = "a < b".into();
        scene.fill([1.0, 2.0, 3.0, 4.0], RED);
        scene.fill([5.0, 1.0, 5.0, 4.0], RED);
        scene.fill([0.0, 0.0, 1.0, 1.0], BLUE);
        scene.area(vec![(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (1.0, -1.0)], RED);
        scene.line(
            vec![(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (2.0, 1.0)],
            1.0,
            BLUE,
        );
        let svg = svg(&scene, None);
        let lines: Vec<&str> = svg.lines().collect();
        assert!(lines[0].contains("viewBox=\"0 0 400 200\"") && lines[0].contains("a &lt; b"));
        assert_eq!(
            lines[2],
            "<path fill=\"#ff0000\" d=\"M4 8h8v8h-8zm16-4h1v12h-1z\"/>"
        );
        assert_eq!(lines[3], "<path fill=\"#0000ff\" d=\"M0 0h4v4h-4z\"/>");
        assert_eq!(lines[4], "<path fill=\"#ff0000\" d=\"M0 0h8v8l-4-12z\"/>");
        assert_eq!(
            lines[5],
            "<path fill=\"none\" stroke=\"#0000ff\" stroke-width=\"4\" d=\"M0 0h4 4v4\"/>"
        );
    }

    #[test]
    fn hostile_text_stays_text() {
        let mut scene = Scene::new(100.0, (255, 255, 255));
        let text = "<script>\"&'".to_owned();
        let (anchor, color) = (Anchor::Middle, RED);
        scene.text(
            Label {
                x: 1.0,
                y: 1.0,
                text,
                size: 10.0,
                color,
                anchor,
            },
            1e9,
        );
        let svg = svg(&scene, Some(2.0));
        assert!(
            svg.contains(">&lt;script&gt;&quot;&amp;&#39;</text>"),
            "{svg}"
        );
        assert!(svg.contains("width=\"200\""));
        // Whatever font there is, a text is as wide as it was laid out.
        let wide = step(crate::chart::text::width("<script>\"&'", 10.0));
        assert!(svg.contains(&format!("textLength=\"{wide}\"")), "{svg}");
    }
}
