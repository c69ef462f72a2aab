//! The page of a report: one file, in light and dark.

use std::collections::BTreeSet;

use crate::common::{Line, S, printed};

const ALL: [&str; 4] = ["--from", "2026-05-01 17:59", "--to", "2026-05-01 18:11"];

fn page(change: impl FnOnce(&mut Line)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s.redb");
    let mut line = Line::new(2, S / 5, 600 * S);
    change(&mut line);
    line.write(&store);
    printed(
        &store,
        &[&["report", "--format", "html"][..], &ALL].concat(),
    )
}

#[test]
fn the_page_is_one_file_that_loads_nothing() {
    let page = page(|l| l.event_text = "<script>alert(1)</script> & more".into());
    assert!(!page.contains("<script>alert"), "hostile text is text");
    for loads in [
        "src=\"http",
        "href=\"http",
        "src='",
        "@import",
        "url(http",
        "<link",
    ] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    for shows in ["vienna", "gateway", "Lost probes", "<svg", "alert(1)"] {
        assert!(page.contains(shows), "{shows}");
    }
}

#[test]
fn every_colour_of_a_chart_has_one_for_the_dark() {
    let page = page(|l| l.load_tests = 3);
    let (style, body) = page.split_once("</style>").unwrap();
    let mut colors = BTreeSet::new();
    for how in ["fill", "stroke"] {
        let begin = format!(" {how}=\"#");
        colors.extend(body.split(&begin).skip(1).map(|rest| {
            let color = rest.split('"').next().unwrap();
            format!("[{how}=\"#{color}\"]{{{how}:#")
        }));
    }
    assert!(colors.len() > 20, "{colors:?}");
    for rule in colors {
        let dark = style.split(&rule).nth(1).expect(&rule);
        assert!(!rule.contains(&dark[..6]), "{rule}{dark:.6}");
    }
    // On paper it stays as it is.
    let rules = style
        .split("@media")
        .filter(|m| m.contains("color-scheme: dark"));
    assert_eq!(rules.filter(|m| m.starts_with(" screen and")).count(), 2);
}
