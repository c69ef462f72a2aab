//! docs/events.md has every word that is told.

/// What a word is written as in the sources: `Self::FarEnd => "far_end"`.
fn words(source: &str) -> Vec<&str> {
    let arms = source.lines().filter_map(|line| {
        let (variant, word) = line.trim().split_once(" => \"")?;
        variant.starts_with("Self::").then_some(word)
    });
    arms.filter_map(|word| word.strip_suffix("\",")).collect()
}

#[test]
fn every_kind_of_event_cause_and_finding_is_documented() {
    let page = include_str!("../../docs/events.md");
    for (what, source, least) in [
        ("kind", include_str!("../src/detect/event.rs"), 19),
        ("cause", include_str!("../src/detect/verdict.rs"), 15),
        ("finding", include_str!("../src/detect/cable/judge.rs"), 8),
    ] {
        let words = words(source);
        assert!(words.len() >= least, "{what}: {words:?}");
        for word in words {
            assert!(
                page.contains(&format!("`{word}`")),
                "docs/events.md says nothing of the {what} {word}"
            );
        }
    }
}
