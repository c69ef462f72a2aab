//! `bbtool live`: what goes on now, in the terminal.
//!
//! A line and the last minutes of each series, interfaces next to each other, brought up to date over
//! the daemon's control socket. It only asks for the status, which never forces a commit.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};
use serde_json::Value;

use crate::args::Live as Arguments;
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::show::{bytes, clean, count, cut, delay, percent, stretch};
use crate::{out, source, when};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Values that are kept of each series: as many as a wide screen shows.
const KEPT: usize = 600;
/// Lines of a series: its name, its figures, its curve.
const ROWS: u16 = 5;
/// A panel is at least so wide.
const NARROWEST: u16 = 46;

/// Everything that is shown.
#[derive(Default)]
struct View {
    status: Value,
    /// By series, oldest first: what is drawn.
    curves: BTreeMap<String, Curve>,
    /// Why there is nothing new.
    trouble: Option<String>,
    /// The first panel that is shown.
    scroll: u16,
    /// Whether times are in UTC.
    utc: bool,
}

/// The last values of a series.
#[derive(Default)]
struct Curve {
    /// RTT, or queue upward where that is known, ns; `None` where nothing was answered.
    values: VecDeque<Option<u64>>,
    /// Probes tried and gone of each interval.
    tried: VecDeque<(u64, u64)>,
}

/// `bbtool live`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let interval = args.interval.as_deref().unwrap_or("1s");
    let ns = when::duration(interval).map_err(|e| Fail::Usage(format!("--interval: {e}")))?;
    if !(100_000_000..=60_000_000_000).contains(&ns) {
        return Err(Fail::Usage(format!(
            "--interval {interval} is out of range; 100ms to 60s is allowed"
        )));
    }
    if !out::is_terminal() {
        return Err(Fail::Usage(
            "live needs a terminal; for a file or a pipe there is bbtool status".into(),
        ));
    }
    let place = args.place();
    let mut view = View {
        utc: args.utc,
        ..View::default()
    };
    // Before the screen is taken, so that this is said as ever.
    let first = source::status(&place, PATIENCE)?;
    view.take(&first);
    let mut terminal = ratatui::try_init().map_err(|e| Fail::of("the terminal", e))?;
    let interval = Duration::from_nanos(ns.unsigned_abs());
    let mut next = Instant::now() + interval;
    let result = loop {
        if let Err(e) = terminal.draw(|frame| view.draw(frame)) {
            break Err(Fail::of("the terminal", e));
        }
        let left = next.saturating_duration_since(Instant::now());
        match pressed(left) {
            Ok(Some(Press::Quit)) => break Ok(()),
            Ok(Some(Press::Scroll(by))) => view.scroll = view.scroll.saturating_add_signed(by),
            Ok(None) => {}
            Err(e) => break Err(Fail::of("the terminal", e)),
        }
        if Instant::now() >= next {
            next += interval;
            match control::ask(&place.socket, "status", PATIENCE) {
                Ok(answer) => view.take(&answer["status"]),
                Err(e @ ControlError::Absent) => view.trouble = Some(e.to_string()),
                Err(e) => view.trouble = Some(format!("no answer: {e}")),
            }
        }
    };
    ratatui::restore();
    result
}

enum Press {
    Quit,
    Scroll(i16),
}

/// Waits for a key, at most so long.
fn pressed(patience: Duration) -> std::io::Result<Option<Press>> {
    if !event::poll(patience)? {
        return Ok(None);
    }
    let Input::Key(key) = event::read()? else {
        return Ok(None);
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Press::Quit),
        KeyCode::Char('c') if control => Some(Press::Quit),
        KeyCode::Down | KeyCode::Char('j') => Some(Press::Scroll(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Press::Scroll(-1)),
        _ => None,
    })
}

fn text(v: &Value) -> String {
    clean(v.as_str().unwrap_or("–"))
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or(0)
}

fn key(s: &Value) -> String {
    format!(
        "{} {} {}{} {}",
        s["interface"], s["target"], s["kind"], s["family"], s["address"]
    )
}

fn delay_or_dash(v: &Value) -> String {
    v.as_u64().map_or_else(|| "–".into(), delay)
}

impl View {
    fn take(&mut self, status: &Value) {
        self.trouble = None;
        self.status = status.clone();
        let mut there = Vec::new();
        for s in status["series"].as_array().into_iter().flatten() {
            let now = &s["last_second"];
            let answered = number(&now["received"]) > 0;
            let value = now["queue_up_ns"].as_u64().or(now["rtt_ns"].as_u64());
            let curve = self.curves.entry(key(s)).or_default();
            curve.values.push_back(value.filter(|_| answered));
            let gone = number(&now["lost"]) + number(&now["unsent"]);
            let tried = number(&now["sent"]) + number(&now["unsent"]);
            curve.tried.push_back((tried, gone));
            if curve.values.len() > KEPT {
                curve.values.pop_front();
                curve.tried.pop_front();
            }
            there.push(key(s));
        }
        self.curves.retain(|name, _| there.contains(name));
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, middle, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(ROWS),
            Constraint::Length(self.foot_rows(frame.area().height)),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(head.width), head);
        self.panels(frame, middle);
        frame.render_widget(Paragraph::new(self.events(foot)), foot);
    }

    fn head(&self, width: u16) -> Paragraph<'static> {
        let s = &self.status;
        let store = &s["store"];
        let full = store["full"].as_bool() == Some(true);
        let first = format!(
            "bufferbaned {}, up {}, {} resident, store {}{}",
            text(&s["version"]),
            stretch(number(&s["uptime_s"]) * 1_000_000_000),
            bytes(number(&s["resident_bytes"])),
            bytes(number(&store["file_bytes"])),
            if full { ", THE DISK IS FULL" } else { "" }
        );
        let load: Vec<String> = s["load"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|l| {
                let rate = |v: &Value| {
                    v.as_u64()
                        .map_or_else(|| "–".into(), |b| format!("{:.1} Mbit/s", b as f64 / 1e6))
                };
                format!(
                    "{} ↑ {} ↓ {}",
                    text(&l["interface"]),
                    rate(&l["up_bps"]),
                    rate(&l["down_bps"])
                )
            })
            .collect();
        let second = match &self.trouble {
            Some(why) => Line::from(cut(&clean(why), width.into())).red().bold(),
            None if load.is_empty() => Line::from("q quits, ↑ ↓ scroll").dim(),
            None => Line::from(vec![
                load.join("   ").into(),
                "   q quits, ↑ ↓ scroll".dim(),
            ]),
        };
        let first = cut(&first.replace('\u{a0}', " "), width.into());
        Paragraph::new(vec![Line::from(first).bold(), second])
    }

    /// Panels in as many columns as have room: first down, then to the right, so that the
    /// interfaces, by which series are ordered, stand next to each other.
    fn panels(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let series: Vec<&Value> = self.status["series"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        if series.is_empty() {
            frame.render_widget(Paragraph::new("nothing is probed yet").dim(), area);
            return;
        }
        let interfaces = {
            let mut names: Vec<String> = series.iter().map(|s| text(&s["interface"])).collect();
            names.sort();
            names.dedup();
            names
        };
        // One column for each interface where they fit, else one for all.
        let side_by_side = interfaces.len() as u16 * NARROWEST <= area.width;
        let groups: Vec<Vec<&Value>> = if side_by_side {
            interfaces
                .iter()
                .map(|i| {
                    let own = series.iter().filter(|s| text(&s["interface"]) == *i);
                    own.copied().collect()
                })
                .collect()
        } else {
            vec![series]
        };
        let visible = (area.height / ROWS).max(1);
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0) as u16;
        self.scroll = self.scroll.min(longest.saturating_sub(visible));
        let columns = Layout::horizontal(vec![Constraint::Fill(1); groups.len()]).split(area);
        for (column, group) in columns.iter().zip(&groups) {
            let shown = group.iter().skip(self.scroll.into()).take(visible.into());
            for (i, s) in shown.enumerate() {
                let place = Rect {
                    y: column.y + i as u16 * ROWS,
                    height: ROWS.min(column.height),
                    ..*column
                };
                self.panel(frame, place, s);
            }
        }
    }

    fn panel(&self, frame: &mut Frame<'_>, area: Rect, s: &Value) {
        let now = &s["last_second"];
        let name = format!(
            " {} → {} {}{} ",
            text(&s["interface"]),
            text(&s["target"]),
            text(&s["kind"]),
            number(&s["family"])
        );
        let block = Block::bordered().title(cut(&name, usize::from(area.width).saturating_sub(2)));
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let Some(curve) = self.curves.get(&key(s)) else {
            return;
        };
        let (tried, gone) = curve
            .tried
            .iter()
            .fold((0, 0), |(t, g), (a, b)| (t + a, g + b));
        let silent =
            number(&now["received"]) == 0 && number(&now["sent"]) + number(&now["unsent"]) > 0;
        let directed = now["queue_up_ns"].is_u64();
        let rtt = if silent {
            Span::styled("no answer", Style::new().fg(Color::Red).bold())
        } else {
            Span::raw(delay_or_dash(&now["rtt_ns"])).bold()
        };
        let mut spans = vec![Span::raw("RTT "), rtt];
        if directed {
            spans.push(Span::raw(format!(
                "  queue ↑ {} ↓ {}",
                delay_or_dash(&now["queue_up_ns"]),
                delay_or_dash(&now["queue_down_ns"])
            )));
        }
        let lost = format!("  lost {} of {}", percent(gone, tried), count(tried));
        spans.push(if gone * 100 > tried {
            Span::raw(lost).red()
        } else {
            Span::raw(lost)
        });
        let [line, graph] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
        let line_text = Line::from(
            spans
                .into_iter()
                .map(|s| Span::styled(s.content.replace('\u{a0}', " "), s.style))
                .collect::<Vec<_>>(),
        );
        frame.render_widget(Paragraph::new(line_text), line);
        let width = usize::from(graph.width);
        let skip = curve.values.len().saturating_sub(width);
        // What was not answered is left open, never drawn over.
        let values: Vec<Option<u64>> = curve.values.iter().skip(skip).copied().collect();
        let sparkline = Sparkline::default()
            .data(values)
            .absent_value_symbol("×")
            .absent_value_style(Style::new().fg(Color::Red))
            .style(Style::new().fg(Color::Cyan));
        frame.render_widget(sparkline, graph);
    }

    fn foot_rows(&self, height: u16) -> u16 {
        let lines = self.lines().len() as u16;
        lines.min(height / 4)
    }

    /// Troubles, then events, the newest first.
    fn lines(&self) -> Vec<(Option<Color>, String)> {
        let troubles = self.status["troubles"].as_array().into_iter().flatten();
        let events = self.status["events"].as_array().into_iter().flatten().rev();
        troubles
            .map(|t| (Some(Color::Red), format!("trouble: {}", text(t))))
            .chain(events.map(|e| {
                let at = e["at_ns"].as_i64().unwrap_or(0);
                let color = match e["severity"].as_str() {
                    Some("critical") => Some(Color::Red),
                    Some("warning") => Some(Color::Yellow),
                    _ => None,
                };
                let ongoing = e["ongoing"].as_bool() == Some(true);
                let line = format!(
                    "{}  {} {}: {}{}",
                    when::zoned(at, &when::zone(self.utc)).strftime("%H:%M:%S"),
                    text(&e["kind"]).replace('_', " "),
                    text(&e["interface"]),
                    text(&e["text"]),
                    if ongoing { " (still going on)" } else { "" }
                );
                (color, line)
            }))
            .collect()
    }

    fn events(&self, area: Rect) -> Vec<Line<'static>> {
        self.lines()
            .into_iter()
            .take(area.height.into())
            .map(|(color, line)| {
                let line = Line::from(cut(&line, area.width.into()));
                match color {
                    Some(color) => line.fg(color),
                    None => line,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    fn series(interface: &str, target: &str, received: u64) -> Value {
        json!({
            "interface": interface, "target": target, "kind": "udp", "family": 4,
            "address": "192.0.2.1:9876", "interval_ns": 50_000_000,
            "last_second": {"sent": 20, "received": received, "lost": 20 - received, "unsent": 0,
                "rtt_ns": 23_400_000, "queue_up_ns": 1_500_000, "queue_down_ns": 200_000},
        })
    }

    fn screen(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content.chunks(width.into());
        rows.map(|row| row.iter().map(|c| c.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn interfaces_stand_side_by_side_where_there_is_room_and_hostile_names_are_harmless() {
        let mut view = View::default();
        let status = json!({
            "version": "0.1.0", "uptime_s": 60, "store": {"file_bytes": 1_000_000},
            "series": [series("eth0", "vienna", 20), series("wwan0", "vie\u{1b}[2Jnna", 0)],
            "load": [{"interface": "eth0", "up_bps": 1_300_000, "down_bps": 0}],
            "events": [{"at_ns": 0, "kind": "link_down", "severity": "warning",
                "interface": "eth0", "text": "no carrier\u{7}", "ongoing": true}],
        });
        for _ in 0..5 {
            view.take(&status);
        }
        let wide = screen(&mut view, 120, 24);
        let line = wide.lines().find(|l| l.contains("eth0 → vienna")).unwrap();
        assert!(line.contains("wwan0 → vie"), "{wide}");
        for part in [
            "23.4 ms",
            "queue ↑ 1.50 ms",
            "no answer",
            "eth0 ↑ 1.3 Mbit/s ↓ 0.0 Mbit/s   q quits",
            "link down",
            "×",
            "100 %",
        ] {
            assert!(wide.contains(part), "{part}:\n{wide}");
        }
        assert!(!wide.contains('\u{1b}') && !wide.contains('\u{7}'));
        let narrow = screen(&mut view, 60, 24);
        let line = narrow
            .lines()
            .find(|l| l.contains("eth0 → vienna"))
            .unwrap();
        assert!(!line.contains("wwan0"), "{narrow}");
    }

    #[test]
    fn every_size_of_screen_and_every_status_can_be_drawn() {
        let mut view = View::default();
        for status in [
            json!(null),
            json!({}),
            json!({"series": [series("a", "b", 3)]}),
        ] {
            view.take(&status);
            view.trouble = Some("the daemon does not run".into());
            view.scroll = 9;
            for (width, height) in [(1, 1), (20, 4), (46, 8), (200, 60)] {
                screen(&mut view, width, height);
            }
        }
    }
}
