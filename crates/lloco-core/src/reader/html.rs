//! HTML: the text that a browser would show, without scripts, styles and links' addresses.

use std::panic::{AssertUnwindSafe, catch_unwind};

use html2text::{config, render::TrivialDecorator};

use super::{FileText, title};

/// Characters of a line; a paragraph is one line, so that sentences stay whole.
const WIDTH: usize = 1 << 20;
/// Elements within elements. Time to build the tree grows with the square of the depth.
const DEEPEST: usize = 2000;

pub(super) fn read(html: &str) -> Result<FileText, String> {
    if depth(html) > DEEPEST {
        return Err(format!("its elements are nested more than {DEEPEST} deep"));
    }
    let convert = || {
        let settings =
            config::with_decorator(TrivialDecorator::new()).raw_mode(true).no_table_borders().allow_width_overflow();
        settings.string_from_read(html.as_bytes(), WIDTH)
    };
    match catch_unwind(AssertUnwindSafe(convert)) {
        Ok(Ok(text)) if !text.trim().is_empty() => Ok(FileText { title: element_text(html, "title"), text }),
        Ok(Ok(_)) => Err("there is no text in it".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the HTML library gave up".into()),
    }
}

/// Elements that never hold others, or that end without being closed.
const SHORT: [&str; 24] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "p", "li",
    "td", "tr", "th", "dt", "dd", "option", "thead", "tbody", "tfoot",
];

/// How deep elements lie within each other, counted generously by their tags.
fn depth(html: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for (place, _) in html.match_indices('<') {
        let rest = html.get(place + 1..).unwrap_or_default();
        match rest.bytes().next() {
            Some(b'/') => depth = depth.saturating_sub(usize::from(!is_short(rest.get(1..).unwrap_or_default()))),
            Some(first) if first.is_ascii_alphabetic() && !is_short(rest) => depth += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn is_short(tag: &str) -> bool {
    let end = tag.bytes().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(tag.len());
    let name = tag.get(..end).unwrap_or_default();
    SHORT.iter().any(|short| name.eq_ignore_ascii_case(short))
}

/// The text of the first element of this name, without tags.
fn element_text(html: &str, name: &str) -> Option<String> {
    let starts = html.match_indices('<').map(|(place, _)| place + 1);
    let start = starts.clone().find(|&place| {
        let tag = html.get(place..).unwrap_or_default();
        let named = tag.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
        named && tag.as_bytes().get(name.len()).is_some_and(|&b| b == b'>' || b.is_ascii_whitespace())
    })?;
    let inner = html.get(start..)?.split_once('>')?.1;
    let inner = inner.split_once("</").map_or(inner, |(inner, _)| inner);
    let inner = inner.get(..inner.floor_char_boundary(2000)).unwrap_or_default();
    let text = config::with_decorator(TrivialDecorator::new())
        .string_from_read(inner.replace('<', " ").as_bytes(), WIDTH)
        .ok()?;
    title(&text)
}
