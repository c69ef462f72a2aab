//! A drawing as a list of shapes, in pixels of a page, before it becomes an image of any kind.

use super::text;
use super::theme::Rgb;

/// Where a text stands beside its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A text on one line.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// Where, horizontally.
    pub(crate) x: f64,
    /// The middle of its line.
    pub(crate) y: f64,
    /// The text.
    pub(crate) text: String,
    /// Size of the font.
    pub(crate) size: f64,
    /// Colour.
    pub(crate) color: Rgb,
    /// Where it stands beside `x`.
    pub(crate) anchor: Anchor,
}

impl Label {
    /// Left, top, right and bottom of what it covers.
    pub(crate) fn bounds(&self) -> [f64; 4] {
        let width = text::width(&self.text, self.size);
        let left = match self.anchor {
            Anchor::Start => self.x,
            Anchor::Middle => self.x - width / 2.0,
            Anchor::End => self.x - width,
        };
        let half = self.size * 0.5;
        [left, self.y - half, left + width, self.y + half]
    }
}

/// One thing to draw.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A filled rectangle: left, top, right, bottom.
    Box([f64; 4], Rgb),
    /// A filled polygon.
    Area(Vec<(f64, f64)>, Rgb),
    /// A line of a width through points.
    Line(Vec<(f64, f64)>, f64, Rgb),
    /// A text.
    Text(Label),
}

/// A drawing.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// Pixels across.
    pub(crate) width: f64,
    /// Pixels down.
    pub(crate) height: f64,
    /// What it is drawn on.
    pub(crate) background: Rgb,
    /// The shapes, from back to front.
    pub(crate) shapes: Vec<Shape>,
    /// What it shows, for those who cannot see it.
    pub(crate) description: String,
}

impl Scene {
    /// An empty page.
    pub(crate) fn new(width: f64, background: Rgb) -> Self {
        Self {
            width,
            height: 0.0,
            background,
            shapes: Vec::new(),
            description: String::new(),
        }
    }

    /// Adds a filled rectangle.
    pub(crate) fn fill(&mut self, bounds: [f64; 4], color: Rgb) {
        self.shapes.push(Shape::Box(bounds, color));
    }

    /// Adds a filled polygon.
    pub(crate) fn area(&mut self, points: Vec<(f64, f64)>, color: Rgb) {
        if points.len() > 2 {
            self.shapes.push(Shape::Area(points, color));
        }
    }

    /// Adds a line; a point alone becomes a dot.
    pub(crate) fn line(&mut self, points: Vec<(f64, f64)>, width: f64, color: Rgb) {
        match points.as_slice() {
            [] => {}
            [(x, y)] => {
                let r = width.max(1.5) * 0.75;
                self.fill([x - r, y - r, x + r, y + r], color);
            }
            _ => self.shapes.push(Shape::Line(points, width, color)),
        }
    }

    /// Adds a text, cut to `room` where it is longer. Gives its width.
    pub(crate) fn text(&mut self, mut label: Label, room: f64) -> f64 {
        label.text = text::fit(&crate::show::clean(&label.text), label.size, room);
        if label.text.is_empty() {
            return 0.0;
        }
        let width = text::width(&label.text, label.size);
        self.shapes.push(Shape::Text(label));
        width
    }
}
