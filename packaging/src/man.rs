//! A man page of a command line.

use std::fmt::Write;

use argh_shared::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

/// What a man page says beyond the command line.
pub(crate) struct Manual {
    pub(crate) name: &'static str,
    pub(crate) section: u8,
    /// Paths, and what they are.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub(crate) see_also: &'static [(&'static str, u8)],
}

impl Manual {
    /// All of it, in the macros of man(7).
    pub(crate) fn page(&self, arguments: &CommandInfoWithArgs<'_>) -> String {
        let mut page = Page(String::new());
        let title = self.name.to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        page.line(&format!(
            ".TH \"{}\" {} \"\" \"Bufferbane {version}\" \"Bufferbane\"",
            roff(&title),
            self.section
        ));
        let (first, rest) = arguments
            .description
            .split_once("\n\n")
            .unwrap_or((arguments.description, ""));
        page.section("NAME");
        let summary = first.trim().trim_end_matches('.');
        page.line(&format!("{} \\- {}", roff(self.name), roff(summary)));
        page.section("SYNOPSIS");
        page.synopsis(self.name, arguments);
        page.section("DESCRIPTION");
        page.text(first);
        page.text(rest);
        if !arguments.flags.is_empty() {
            page.section("OPTIONS");
            page.options(arguments);
        }
        if !arguments.commands.is_empty() {
            page.section("COMMANDS");
            page.commands(self.name, arguments);
        }
        if !arguments.examples.is_empty() {
            page.section("EXAMPLES");
            page.examples(self.name, arguments);
        }
        if !arguments.notes.is_empty() {
            page.section("NOTES");
            page.notes(self.name, arguments);
        }
        if !arguments.error_codes.is_empty() {
            page.section("EXIT STATUS");
            for code in arguments.error_codes {
                page.item(&format!("\\fB{}\\fR", code.code), code.description);
            }
        }
        page.section("FILES");
        for (path, what) in self.files {
            page.item(&format!("\\fI{}\\fR", roff(path)), what);
        }
        page.section("SEE ALSO");
        let others: Vec<String> = self
            .see_also
            .iter()
            .map(|(name, section)| format!("\\fB{}\\fR({section})", roff(name)))
            .collect();
        page.line(&others.join(", "));
        page.0
    }
}

/// What is written so far.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn section(&mut self, name: &str) {
        self.line(&format!(".SH {name}"));
    }

    /// Paragraphs; a line that begins with a dot or a quote would be taken for a request.
    fn text(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            if line.is_empty() {
                self.line(".PP");
            } else {
                self.line(&roff(line));
            }
        }
    }

    fn item(&mut self, what: &str, meaning: &str) {
        self.line(".TP");
        self.line(what);
        self.text(meaning);
    }

    fn synopsis(&mut self, name: &str, command: &CommandInfoWithArgs<'_>) {
        let mut line = format!("\\fB{}\\fR", roff(name));
        for flag in command.flags.iter().filter(|f| !f.hidden) {
            let shown = flag_shown(flag);
            let _ = match flag.optionality {
                Optionality::Required => write!(line, " {shown}"),
                Optionality::Optional => write!(line, " [{shown}]"),
                Optionality::Repeating | Optionality::Greedy => write!(line, " [{shown}]..."),
            };
        }
        if !command.commands.is_empty() {
            line.push_str(" \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]");
        }
        for p in command.positionals.iter().filter(|p| !p.hidden) {
            let shown = positional_shown(p);
            let _ = match p.optionality {
                Optionality::Required => write!(line, " {shown}"),
                Optionality::Optional => write!(line, " [{shown}]"),
                Optionality::Repeating | Optionality::Greedy => write!(line, " [{shown}...]"),
            };
        }
        self.line(&line);
    }

    fn options(&mut self, command: &CommandInfoWithArgs<'_>) {
        for p in command.positionals.iter().filter(|p| !p.hidden) {
            self.item(&positional_shown(p), p.description);
        }
        for flag in command.flags.iter().filter(|f| !f.hidden) {
            self.item(&flag_shown(flag), flag.description);
        }
    }

    /// Each command, and those within it.
    fn commands(&mut self, above: &str, command: &CommandInfoWithArgs<'_>) {
        for sub in &command.commands {
            let name = format!("{above} {}", sub.name);
            self.line(&format!(".SS \"{}\"", roff(&name)));
            self.synopsis(&name, &sub.command);
            self.line(".PP");
            self.text(sub.command.description);
            self.options(&sub.command);
            if !sub.command.notes.is_empty() {
                self.line(".PP");
                self.notes(&name, &sub.command);
            }
            if !sub.command.examples.is_empty() {
                self.line(".PP");
                self.examples(&name, &sub.command);
            }
            self.commands(&name, &sub.command);
        }
    }

    fn examples(&mut self, name: &str, command: &CommandInfoWithArgs<'_>) {
        self.line(".nf");
        for example in command.examples {
            for line in example.replace("{command_name}", name).lines() {
                self.line(&format!("    {}", roff(line)));
            }
        }
        self.line(".fi");
    }

    fn notes(&mut self, name: &str, command: &CommandInfoWithArgs<'_>) {
        for note in command.notes {
            self.text(&note.replace("{command_name}", name));
        }
    }
}

fn flag_shown(flag: &FlagInfo<'_>) -> String {
    let long = roff(flag.long);
    match flag.kind {
        FlagInfoKind::Switch => format!("\\fB{long}\\fR"),
        FlagInfoKind::Option { arg_name } => format!("\\fB{long}\\fR \\fI{}\\fR", roff(arg_name)),
    }
}

fn positional_shown(p: &PositionalInfo<'_>) -> String {
    format!("\\fI{}\\fR", roff(p.name))
}

/// Text as roff reads it: hyphens that can be copied, and nothing that is a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.chars().next() {
        Some('.' | '\'') => format!("\\&{text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(roff("--out a\\b"), "\\-\\-out a\\eb");
        assert_eq!(roff(".TH"), "\\&.TH");
        assert_eq!(roff("'tis"), "\\&'tis");
    }
}
