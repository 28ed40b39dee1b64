//! Text of files: what is read, what is refused, and that nothing in a file brings the program down.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;
mod hostile;

use std::{fs, path::PathBuf};

use files::{docx, paragraph, pdf};
use lloco_core::{
    Error,
    reader::{self, FileText, page_of},
};

/// A file of its own in a directory of its own.
struct TestFile {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl TestFile {
    fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        Self { path, _directory: directory }
    }
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<FileText, Error> {
    reader::read(&TestFile::new(name, bytes).path)
}

/// Why a file is refused.
fn refusal(name: &str, bytes: impl AsRef<[u8]>) -> String {
    match read(name, bytes) {
        Err(Error::Unreadable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_text_stays_as_it_is() {
    let text = "Line one\r\n\tline two \u{202e}right to left\u{0} e\u{301}\n";
    assert_eq!(read("a.txt", text).unwrap().text, text);
    assert_eq!(read("README", text).unwrap().text, text);
    assert_eq!(read("a.log", "\u{feff}x").unwrap().text, "x");
    assert!(matches!(read("a.txt", b"ab\xFFcd"), Err(Error::NotText { offset: 2, .. })));
    assert_eq!(read("empty.txt", "").unwrap().text, "");
}

#[test]
fn markdown_has_a_title() {
    let file = read("a.md", "# The pump\n\nIt *pumps*.\n").unwrap();
    assert_eq!((file.title.as_deref(), file.text.as_str()), (Some("The pump"), "# The pump\n\nIt *pumps*.\n"));
}

#[test]
fn html_is_read_as_it_is_shown() {
    let html = "<!DOCTYPE html><html><head><title>Pumps &amp; valves</title><style>p { color: red }</style>\
        <script>alert('no')</script></head><body><h1>The pump</h1><p>It has <b>three</b> valves&nbsp;&mdash; all \
        <a href='http://example.org/x'>red</a>.</p><ul><li>first</li><li>second</li></ul>\
        <table><tr><td>cell one</td><td>cell two</td></tr></table></body></html>";
    let file = read("a.html", html).unwrap();
    assert_eq!(file.title.as_deref(), Some("Pumps & valves"));
    for found in ["It has three valves", "— all red.", "The pump", "first", "second", "cell one", "cell two"] {
        assert!(file.text.contains(found), "{found} in {}", file.text);
    }
    for absent in ["alert", "color", "example.org", "<"] {
        assert!(!file.text.contains(absent), "{absent} in {}", file.text);
    }
    assert!(refusal("a.html", "<p> </p>").contains("no text"));
    assert!(matches!(read("a.htm", b"<p>\xE9</p>"), Err(Error::NotText { .. })));
}

#[test]
fn a_pdf_is_read_page_by_page() {
    let file = read("a.pdf", pdf(&["The pump is red.", "The roof leaks."], "A title")).unwrap();
    assert_eq!(file.title.as_deref(), Some("A title"));
    let pages: Vec<&str> = file.text.split('\u{c}').map(str::trim).collect();
    assert_eq!(pages, ["The pump is red.", "The roof leaks.", ""]);
    let place = |text: &str| page_of(&file.text, file.text.find(text).unwrap());
    assert_eq!((place("pump"), place("roof")), (Some(1), Some(2)));
    assert_eq!(page_of(&read("one.pdf", pdf(&["One page."], "")).unwrap().text, 2), Some(1));
    assert!(refusal("empty.pdf", pdf(&[""], "")).contains("OCR"));
    assert!(refusal("a.pdf", "no pdf").contains("begin"));
}

#[test]
fn a_docx_is_read_with_its_pages() {
    let body = [
        r#"<w:p><w:pPr><w:pStyle w:val="Title"/><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr><w:r><w:t>The pump</w:t></w:r></w:p>"#.to_owned(),
        paragraph("First &amp; <second>".replace('<', "&lt;").replace('>', "&gt;").as_str()),
        r#"<w:p><w:r><w:t xml:space="preserve">one </w:t><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t><w:delText>gone</w:delText></w:r></w:p>"#.to_owned(),
        r#"<w:p><w:r><w:br w:type="page"/></w:r></w:p><w:p><w:r><w:lastRenderedPageBreak/><w:t>Page two&#x2014;here</w:t></w:r></w:p>"#.to_owned(),
        r"<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>".to_owned(),
        r#"<w:p><mc:AlternateContent><mc:Choice><w:r><w:t>box</w:t></w:r></mc:Choice><mc:Fallback><w:r><w:t>copy</w:t></w:r></mc:Fallback></mc:AlternateContent></w:p>"#.to_owned(),
    ];
    let file = read("a.docx", docx(&body.concat(), None)).unwrap();
    assert_eq!(file.title.as_deref(), Some("The pump"));
    let expected = "The pump\n\nFirst & <second>\n\none \ttwo\nthree\n\n\u{c}\n\nPage two—here\n\na \tb \t\nbox";
    assert_eq!(file.text, expected);
    assert_eq!(page_of(&file.text, file.text.find("Page").unwrap()), Some(2));
    let titled = read("a.docx", docx(&paragraph("x"), Some("Minutes &amp; more"))).unwrap();
    assert_eq!(titled.title.as_deref(), Some("Minutes & more"));
    assert!(refusal("a.docx", docx("", None)).contains("no text"));
    assert!(refusal("a.docx", "no zip").contains("zip"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = reader::read("no/such/file.pdf").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
