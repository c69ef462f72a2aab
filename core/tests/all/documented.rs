//! docs/events.md has every word that is told.

/// What a word is written as in the sources, within this implementation: `Self::FarEnd => "far_end"`.
fn words<'a>(source: &'a str, implementation: &str) -> Vec<&'a str> {
    let (_, own) = source.split_once(implementation).unwrap_or_default();
    let own = own.split_once("\n}").map_or(own, |(own, _)| own);
    let arms = own.lines().filter_map(|line| {
        let (variant, word) = line.trim().split_once(" => \"")?;
        variant.starts_with("Self::").then_some(word)
    });
    arms.filter_map(|word| word.strip_suffix("\",")).collect()
}

#[test]
fn every_kind_of_event_cause_and_finding_is_documented() {
    let page = include_str!("../../../docs/events.md");
    for (what, source, least) in [
        ("Kind", include_str!("../../src/detect/event.rs"), 19),
        ("Cause", include_str!("../../src/detect/verdict.rs"), 16),
        (
            "FindingKind",
            include_str!("../../src/detect/cable/judge.rs"),
            8,
        ),
    ] {
        let words = words(source, &format!("impl {what} {{"));
        assert!(words.len() >= least, "{what}: {words:?}");
        for word in words {
            assert!(
                page.contains(&format!("`{word}`")),
                "docs/events.md says nothing of the {what} {word}"
            );
        }
    }
}
