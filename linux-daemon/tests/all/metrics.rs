//! `/metrics`, as Debian's `promtool` and `prometheus` read it.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::web::{self, get, is_there, json, percent};
use crate::common::{PATIENCE, Place, sent};
use serde_json::Value;

/// A daemon with a page of its own, and where that is.
fn daemon() -> (Place, crate::common::Service, String) {
    let place = Place::new();
    let page = "[http]\nlisten = \"127.0.0.1:0\"\n[[interface]]";
    place.configure(&place.usual("5ms").replace("[[interface]]", page));
    let service = place.start().ready();
    let status = place.status_with("the page", |s| s["http"].is_string() && sent(s) > 200);
    let page = status["http"].as_str().unwrap().to_owned();
    (place, service, page)
}

#[test]
fn promtool_finds_nothing_to_say_against_it() {
    if !is_there("promtool") {
        return;
    }
    let (_place, _service, page) = daemon();
    let (head, body) = get(&page, "/metrics", "*/*").unwrap();
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(
        said.status.success() && words.is_empty(),
        "{}",
        String::from_utf8_lossy(&words)
    );
    let (head, body) = get(&page, "/metrics", "application/openmetrics-text").unwrap();
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=")
    );
    assert!(body.ends_with("\n# EOF\n"));
}

/// The path of a file that is made for Prometheus or Grafana.
fn file_of(name: &str) -> String {
    format!("{}/../docs/prometheus/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A Prometheus of its own that scrapes a page every second, for as long as this lives.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    fn start(dir: &Path, page: &str) -> Self {
        let file = dir.join("prometheus.yml");
        let rules = file_of("alerts.yml");
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [\"{rules}\"]\n\
             scrape_configs:\n  - job_name: bufferbane\n    \
             static_configs:\n      - targets: [\"{page}\"]\n"
        );
        std::fs::write(&file, config).unwrap();
        let address = web::free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn query(&self, query: &str, right: impl Fn(&[(Value, f64)]) -> bool) -> Vec<(Value, f64)> {
        web::query(&self.address, query, right)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Probes that the page counts as sent.
fn counted(page: &str) -> f64 {
    let (_, body) = get(page, "/metrics", "*/*").unwrap();
    let sent = body.lines().filter_map(|l| {
        l.strip_prefix("bufferbane_probes_sent_total{")?
            .split(' ')
            .next_back()
    });
    sent.map(|n| n.parse::<f64>().unwrap()).sum()
}

#[test]
fn prometheus_scrapes_it_and_answers_questions() {
    if !is_there("prometheus") {
        return;
    }
    let (place, service, page) = daemon();
    let prometheus = Prometheus::start(place.dir.path(), &page);
    let one = |found: &[(Value, f64)]| found.len() == 1;
    prometheus.query("up", |f| one(f) && f[0].1 == 1.0);
    // What it has is what the daemon counted at some time between two looks at the page.
    let before = counted(&page);
    let scraped = prometheus.query("sum(bufferbane_probes_sent_total)", |f| {
        one(f) && f[0].1 >= before
    });
    let after = counted(&page);
    let scraped = scraped[0].1;
    println!("{before} <= {scraped} <= {after}");
    assert!(scraped <= after, "{before} {scraped} {after}");
    let rtt_s = prometheus.query(
        "histogram_quantile(0.5, sum by (target, le) \
         (rate(bufferbane_rtt_seconds_bucket{target=\"far\"}[15s])))",
        |f| one(f) && f[0].1.is_finite(),
    );
    println!("{rtt_s:?}");
    assert!(
        rtt_s[0].1 > 0.0 && rtt_s[0].1 < 1.0,
        "over loopback: {rtt_s:?}"
    );
    let version = prometheus.query("bufferbane_build_info", one);
    assert_eq!(version[0].0["version"], env!("CARGO_PKG_VERSION"));
    // It asked for OpenMetrics and read it: only there the unit is told.
    let path = "/api/v1/metadata?metric=bufferbane_queueing_seconds";
    let (_, metadata) = get(&prometheus.address, path, "*/*").unwrap();
    assert!(
        metadata.contains("\"type\":\"histogram\"") && metadata.contains("\"unit\":\"seconds\"")
    );
    for way in ["up", "down"] {
        let query = format!("sum(bufferbane_queueing_seconds_count{{direction=\"{way}\"}})");
        prometheus.query(&query, |f| one(f) && f[0].1 > 0.0);
    }
    let (code, _) = service.end();
    assert_eq!(code, Some(0));
}

/// Every question of the shipped alert rules and of the dashboard is one that Prometheus takes, about
/// figures that there are, and those that no condition leaves out have an answer.
#[test]
fn the_shipped_alerts_and_dashboard_are_answered() {
    if !is_there("prometheus") {
        return;
    }
    let (place, _service, page) = daemon();
    let prometheus = Prometheus::start(place.dir.path(), &page);
    // What comes last: the least delays have to be known for it.
    prometheus.query("rate(bufferbane_queueing_seconds_count[15s])", |f| {
        !f.is_empty()
    });
    let (_, known) = get(&page, "/metrics", "*/*").unwrap();
    let is_known = |query: &str| {
        let words = query.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        for name in words.filter(|w| w.starts_with("bufferbane_") || w.starts_with("process_")) {
            assert!(known.contains(&format!("\n{name}")), "{name} of {query}");
        }
    };
    let begin = Instant::now();
    let rules = loop {
        let (_, body) = get(&prometheus.address, "/api/v1/rules", "*/*").unwrap();
        let rules = json(&body)["data"]["groups"][0]["rules"].take();
        let rules = rules.as_array().cloned().unwrap_or_default();
        if !rules.is_empty() && rules.iter().all(|r| r["health"] != "unknown") {
            break rules;
        }
        assert!(begin.elapsed() < PATIENCE, "{rules:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        is_known(rule["query"].as_str().unwrap());
    }

    let dashboard = std::fs::read_to_string(file_of("grafana.json")).unwrap();
    let panels = json(&dashboard)["panels"].take();
    let targets = |panel: &Value| panel["targets"].as_array().unwrap().clone();
    let queries: Vec<String> = panels
        .as_array()
        .unwrap()
        .iter()
        .flat_map(targets)
        .map(|t| t["expr"].as_str().unwrap().to_owned())
        .collect();
    for query in &queries {
        is_known(query);
        let asked = query
            .replace("$__rate_interval", "15s")
            .replace("$instance", ".*")
            .replace("$interface", ".*")
            .replace("$target", ".*");
        assert!(!asked.contains('$'), "{asked}");
        let path = format!("/api/v1/query?query={}", percent(&asked));
        let (_, body) = get(&prometheus.address, &path, "*/*").unwrap();
        assert_eq!(json(&body)["status"], "success", "{asked}: {body}");
        if !asked.contains(" > ") {
            prometheus.query(&asked, |f| !f.is_empty());
        }
    }
    println!("{} rules, {} queries", rules.len(), queries.len());
    assert!(rules.len() > 5 && queries.len() > 10);
}
