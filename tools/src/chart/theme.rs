//! Colours: told apart by people with any kind of colour blindness, after Okabe and Ito, and by
//! their lightness where that is all there is (a grey print).

use bufferbane_store::Severity;

/// Red, green, blue.
pub(crate) type Rgb = (u8, u8, u8);

/// Shares of an ink on the background: what is in front, what is behind it, and what a line is to stand out from.
pub(crate) const STRONG: f64 = 0.75;
/// See [`STRONG`].
pub(crate) const FAINT: f64 = 0.35;
/// See [`STRONG`].
pub(crate) const TINT: f64 = 0.4;

/// `share` of one colour on another.
pub(crate) fn mixed(ink: Rgb, paper: Rgb, share: f64) -> Rgb {
    let part = |a: u8, b: u8| (f64::from(a) * share + f64::from(b) * (1.0 - share)).round() as u8;
    (
        part(ink.0, paper.0),
        part(ink.1, paper.1),
        part(ink.2, paper.2),
    )
}

/// As style sheets and SVG write it.
pub(crate) fn hex(c: Rgb) -> String {
    format!("#{:02x}{:02x}{:02x}", c.0, c.1, c.2)
}

/// The colours of one theme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Behind everything.
    pub(crate) background: Rgb,
    /// Text.
    pub(crate) text: Rgb,
    /// Text of lesser weight.
    pub(crate) muted: Rgb,
    /// Lines of the grid.
    pub(crate) grid: Rgb,
    /// Axes.
    pub(crate) axis: Rgb,
    /// The curve that matters most.
    pub(crate) main: Rgb,
    /// From the smallest to the largest.
    pub(crate) band: Rgb,
    /// From the smallest to the 99th percentile.
    pub(crate) band_p99: Rgb,
    /// From the smallest to the 95th percentile.
    pub(crate) band_p95: Rgb,
    /// The 95th percentile.
    pub(crate) p95: Rgb,
    /// The 99th.
    pub(crate) p99: Rgb,
    /// Lost on the way up.
    pub(crate) up: Rgb,
    /// Lost on the way down.
    pub(crate) down: Rgb,
    /// Lost in an unknown direction.
    pub(crate) unknown: Rgb,
    /// Not sent.
    pub(crate) unsent: Rgb,
    /// Behind times without answers.
    pub(crate) silent: Rgb,
    /// Behind times without samples.
    pub(crate) unmeasured: Rgb,
    /// From no added delay to far too much, by the borders of the grades.
    pub(crate) heat: [Rgb; 6],
}

impl Theme {
    /// Dark on white.
    pub(crate) const LIGHT: Self = Self {
        background: (255, 255, 255),
        text: (27, 31, 36),
        muted: (87, 96, 106),
        grid: (228, 231, 235),
        axis: (140, 149, 159),
        main: (0, 56, 110),
        band: (208, 228, 243),
        band_p99: (158, 199, 229),
        band_p95: (96, 160, 209),
        p95: (222, 143, 5),
        p99: (176, 58, 0),
        up: (213, 94, 0),
        down: (0, 114, 178),
        unknown: (130, 137, 145),
        unsent: (204, 121, 167),
        silent: (250, 214, 196),
        unmeasured: (240, 241, 243),
        heat: [
            (222, 235, 247),
            (158, 202, 225),
            (255, 217, 118),
            (253, 141, 60),
            (204, 60, 20),
            (103, 0, 31),
        ],
    };

    /// Light on near black.
    pub(crate) const DARK: Self = Self {
        background: (20, 24, 29),
        text: (230, 233, 236),
        muted: (154, 164, 174),
        grid: (42, 49, 57),
        axis: (98, 108, 118),
        main: (190, 226, 250),
        band: (28, 56, 78),
        band_p99: (36, 84, 118),
        band_p95: (52, 118, 164),
        p95: (240, 180, 60),
        p99: (244, 124, 70),
        up: (240, 124, 50),
        down: (86, 180, 233),
        unknown: (150, 158, 166),
        unsent: (214, 140, 184),
        silent: (92, 44, 24),
        unmeasured: (33, 38, 44),
        heat: [
            (28, 52, 78),
            (52, 108, 148),
            (150, 118, 30),
            (214, 120, 40),
            (240, 96, 70),
            (255, 190, 190),
        ],
    };

    /// Every colour of a chart.
    fn colors(&self) -> Vec<Rgb> {
        let named = [
            self.background,
            self.text,
            self.muted,
            self.grid,
            self.axis,
            self.main,
            self.band,
            self.band_p99,
            self.band_p95,
            self.p95,
            self.p99,
            self.up,
            self.down,
            self.unknown,
            self.unsent,
            self.silent,
            self.unmeasured,
        ];
        let shares = [STRONG, FAINT, TINT].into_iter();
        let mixes = shares
            .flat_map(|s| [self.up, self.down, self.unknown].map(|c| mixed(c, self.background, s)));
        named.into_iter().chain(self.heat).chain(mixes).collect()
    }

    /// Rules of a style sheet that give charts drawn in the light theme the colours of the dark one.
    pub(crate) fn dark_rules() -> String {
        let pairs = Self::LIGHT.colors().into_iter().zip(Self::DARK.colors());
        let rule = |(light, dark)| {
            let (light, dark) = (hex(light), hex(dark));
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}\n")
        };
        pairs.map(rule).collect()
    }

    /// The colour of an event.
    pub(crate) const fn severity(&self, severity: Severity) -> Rgb {
        match severity {
            Severity::Critical => self.p99,
            Severity::Warning => self.p95,
            Severity::Info => self.unknown,
        }
    }

    /// The theme of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "light" => Some(Self::LIGHT),
            "dark" => Some(Self::DARK),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_light_colour_is_one_dark_one() {
        let mut light = Theme::LIGHT.colors();
        light.sort_unstable();
        assert!(light.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(Theme::DARK.colors().len(), light.len());
    }
}
