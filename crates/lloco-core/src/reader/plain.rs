//! Plain text and Markdown, which is read as it stands: its marks are few, and models know them.

use super::{FileText, title};

pub(super) fn text(text: String) -> FileText {
    let text = match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    };
    FileText { text, title: None }
}

pub(super) fn markdown(text: String) -> FileText {
    let mut file = self::text(text);
    file.title = heading(&file.text).and_then(title);
    file
}

/// The first heading of the first level outside a code block.
fn heading(text: &str) -> Option<&str> {
    let mut code = false;
    let mut before = "";
    for line in text.lines() {
        if line.starts_with("```") || line.starts_with("~~~") {
            code = !code;
        }
        if code {
            continue;
        }
        if let Some(heading) = line.strip_prefix("# ") {
            return Some(heading.trim_end_matches(['#', ' ']));
        }
        let underlined = line.len() >= 3 && line.bytes().all(|b| b == b'=');
        if underlined && !before.trim().is_empty() {
            return Some(before);
        }
        before = line;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(text("\u{feff}Hello".into()).text, "Hello");
    }

    #[test]
    fn the_first_heading_is_the_title() {
        let title = |text: &str| markdown(text.into()).title;
        assert_eq!(title("Intro\n\n# The  pump #\n\n# Other").as_deref(), Some("The pump"));
        assert_eq!(title("The pump\n========\ntext").as_deref(), Some("The pump"));
        assert_eq!(title("```\n# comment\n```\n## Second level"), None);
        assert_eq!(title("====\n#tag"), None);
    }
}
