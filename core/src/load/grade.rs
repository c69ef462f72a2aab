//! A letter for what load does to latency.

/// The grades of DSLReports' bufferbloat test, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Below 5 ms.
    APlus,
    /// Below 30 ms.
    A,
    /// Below 60 ms.
    B,
    /// Below 200 ms.
    C,
    /// Below 400 ms.
    D,
    /// 400 ms and more.
    F,
}

impl Grade {
    /// The grade of latency that is `increase_ns` higher under load than without; of which percentile
    /// is for the caller to choose.
    #[must_use]
    pub const fn of_increase(increase_ns: u64) -> Self {
        match increase_ns / 1_000_000 {
            0..5 => Self::APlus,
            5..30 => Self::A,
            30..60 => Self::B,
            60..200 => Self::C,
            200..400 => Self::D,
            _ => Self::F,
        }
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::APlus => "A+",
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::F => "F",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_border_belongs_to_the_worse_grade() {
        let grades: std::vec::Vec<&str> = [0, 4, 5, 29, 30, 59, 60, 199, 200, 399, 400, 10_000]
            .into_iter()
            .map(|ms| Grade::of_increase(ms * 1_000_000).as_str())
            .collect();
        assert_eq!(
            grades,
            ["A+", "A+", "A", "A", "B", "B", "C", "C", "D", "D", "F", "F"]
        );
        assert!(Grade::of_increase(4_999_999) < Grade::of_increase(5_000_000));
    }
}
